"""Hyper-parameters by epoch, and what a trainer asks of the package."""

import functools
import inspect
import re

import jax
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError


@pytest.mark.golden
def test_dal_schedule_reproduces_the_released_program(golden, x64):
    cases = np.load(golden("dal_schedule.npz"))
    assert cases.files
    for key in cases.files:
        q_start, q_end, epochs = re.fullmatch(r"qs(.+)_qe(.+)_epochs(\d+)", key).groups()
        q, lamb = jax.vmap(
            lambda epoch, s=float(q_start), e=float(q_end), n=int(epochs): losses.dal_schedule(
                epoch, n, q_start=s, q_end=e
            )
        )(np.arange(int(epochs)))
        np.testing.assert_allclose(np.stack([q, lamb], -1), cases[key], rtol=1e-10, atol=1e-10)


def test_dal_schedule_turns_robust_where_q_passes_one():
    q, lamb = jax.jit(jax.vmap(lambda epoch: losses.dal_schedule(epoch, 90)))(np.arange(90))
    assert q[0] == np.float32(0.6) and np.all(np.diff(q) > 0) and q[-1] < 1.5
    np.testing.assert_array_equal(np.asarray(lamb) > 0, np.asarray(q) > 1 + 1e-6)
    assert 0.9 < lamb[-1] < 1


@pytest.mark.parametrize("ends", [(-0.1, 1.5), (1.0, 1.5), (0.6, 1.0), (1.5, 0.6)])
def test_dal_schedule_needs_ends_on_both_sides_of_one(ends):
    with pytest.raises(UserError, match="0 <= q_start < 1 < q_end"):
        losses.dal_schedule(0, 10, q_start=ends[0], q_end=ends[1])


def test_sparse_regularization_grows_by_rho_every_epoch():
    by_epoch = jax.jit(losses.ce_sr_schedule)(np.arange(4))
    np.testing.assert_allclose(by_epoch, 8 * 1.02 ** np.arange(4), rtol=1e-6)
    np.testing.assert_allclose(losses.ce_sr_schedule(3, lamb=2, rho=1.5), 6.75)


def test_settings_are_what_a_user_may_set():
    assert losses.settings("dal") == {"q_start": 0.6, "q_end": 1.5, "hard": False}
    assert losses.settings("ce_sr") == {"tau": 0.5, "p": 0.01, "lamb": 8.0, "rho": 1.02}
    assert losses.settings("nlnl") == {"num_negatives": 110}
    assert losses.settings("ldam") == {"max_margin": 0.5, "scale": 30.0}
    assert losses.settings("bi_tempered") == {"t1": 0.7, "t2": 1.5, "num_iters": 5}
    assert losses.settings("ce") == {}


def test_defaults_are_those_of_the_released_programs_and_papers():
    released = {
        "gce": {"q": 0.7},
        "sce": {"alpha": 10, "beta": 0.1},
        "nce_rce": {"alpha": 10, "beta": 0.1},
        "tce": {"order": 18},
        "agce": {"a": 3, "q": 0.7},
        "nce_agce": {"alpha": 10, "beta": 0.1, "a": 3, "q": 0.7},
        "js": {"pi": 0.5},
        "focal": {"gamma": 2},
        "logit_adjusted": {"tau": 1},
    }
    assert {name: losses.settings(name) for name in released} == released


@pytest.mark.parametrize("name", sorted(losses.SCHEDULES))
def test_a_scheduled_loss_defaults_to_its_first_epoch(name):
    parameters = inspect.signature(losses.get(name)).parameters
    for keyword, value in losses.at_epoch(name, losses.settings(name), 0, 10).items():
        assert parameters[keyword].default == value


def test_needs_are_what_the_trainer_supplies():
    assert losses.needs("nlnl") == ("key", "class_counts")
    asking = {name for name in losses.LOSSES if "class_counts" in losses.needs(name)}
    assert asking == {"nlnl", "ldam", "logit_adjusted", "balanced_softmax"}
    assert losses.needs("ce") == ()


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_settings_needs_and_epoch_are_enough_to_call_any_loss(name):
    supplied = {"key": jax.random.key(0), "class_counts": np.array([3, 2])}
    supplied = {k: v for k, v in supplied.items() if k in losses.needs(name)}
    kwargs = losses.at_epoch(name, losses.settings(name), 7, 10)
    loss = functools.partial(losses.get(name), **kwargs, **supplied)
    assert jax.eval_shape(loss, np.zeros((2, 2), np.float32), np.array([0, 1])).shape == (2,)


def test_at_epoch_follows_the_schedule():
    q, lamb = losses.dal_schedule(8, 10, q_start=0.4, q_end=1.5)
    got = losses.at_epoch("dal", {"q_start": 0.4, "q_end": 1.5, "hard": True}, 8, 10)
    assert got == {"q": q, "lamb": lamb, "hard": True}
    got = losses.at_epoch("ce_sr", {"lamb": 2.0, "rho": 3.0, "tau": 0.1}, 2, 10)
    assert got == {"tau": 0.1, "p": 0.01, "lamb": 18.0}
    assert losses.at_epoch("gce", {"q": 0.3}, 8, 10) == {"q": 0.3}
    with pytest.raises(UserError, match="'q_stat'.*Did you mean 'q_start'"):
        losses.at_epoch("dal", {"q_stat": 0.4}, 0, 10)
