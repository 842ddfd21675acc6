"""Losses with a memory per example, trained: rows by index, kept, resumed, shared by devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import train_until_killed

import jaxrobust
from jaxrobust import config, losses
from jaxrobust.errors import UserError
from jaxrobust.methods import make_loss
from jaxrobust.runs import predict
from jaxrobust.runs.experiment import assemble


def small(loss="elr", epochs=2, **hyper):
    made = config.load(f"digits_losses:{loss}")
    made.loss.update(hyper)
    made.network.name, made.network.width, made.train.epochs = "mlp", 16, epochs
    made.data.noise.kind, made.data.noise.rate = "symmetric", 0.4
    made.train.batch_size, made.train.loop = 300, "step"
    made.log.figures = made.log.tensorboard = False
    return config.validate(made)


def trained(made, folder):
    jaxrobust.train(made, folder)
    return jax.device_get(predict.open_workdir(folder)[1]["state"])


def rows_of(state):
    return next(
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.memory)
        if getattr(path[-1], "key", None) == "rows"
    )


def test_without_its_regularizer_elr_trains_as_cross_entropy(tmp_path):
    elr = trained(small(lamb=0.0), tmp_path / "elr")
    plain = trained(small("ce"), tmp_path / "ce")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        elr.params,
        plain.params,
    )


def test_every_example_s_row_moves_and_no_other(tmp_path):
    made = small(epochs=1)
    n = len(assemble(made).method.init(jax.random.key(0)).memory["rows"])
    rows = rows_of(trained(made, tmp_path))
    examples = 0.3 * np.ones(sum(rows.any(-1)))  # From zeros one step leaves 1 - beta = 0.3.
    assert rows.shape == (n, 10) and n % 64 == 0 and 0 < n - len(examples) < 64
    np.testing.assert_allclose(rows[: len(examples)].sum(-1), examples, rtol=1e-5)
    assert not rows[len(examples) :].any()


@pytest.mark.parametrize("loss, hyper", [("elr", {}), ("selc", {"es": 1, "momentum": 0.5})])
def test_killed_within_an_epoch_its_memory_goes_on(tmp_path, loss, hyper):
    made = config.from_mapping(json.loads(config.to_json(small(loss, **hyper))))
    made.checkpoint.every_seconds, made.checkpoint.every_steps = 0, 1
    whole = trained(made, tmp_path / "whole")
    saved = train_until_killed(made, tmp_path / "killed", 6)
    assert saved[-1]["position"] > 0
    jax.tree.map(np.testing.assert_array_equal, trained(made, tmp_path / "killed"), whole)
    start = losses.MEMORY_LOSSES[loss].init(jnp.zeros(4, jnp.int32), 10)
    assert not np.array_equal(rows_of(whole)[:4], start)


def test_four_devices_share_the_memory_and_equal_one(four_devices):
    four_devices("memory")  # `memory_on_four_devices.py` asserts it.


def test_a_method_that_keeps_no_memory_refuses_the_loss():
    made = config.load("digits_dynamic_loss")
    made.loss.name = "elr"
    with pytest.raises(UserError, match="loss.name=elr has a memory.*method.name=supervised"):
        assemble(config.validate(made))
    loss = make_loss("elr", {}, epochs=1, class_counts=jnp.ones(2))
    with pytest.raises(UserError, match="memory per example"):
        loss(jnp.zeros((1, 2)), jnp.array([0]), epoch=0, key=None)


def test_the_logits_of_a_run_are_clipped():
    bound = make_loss("gce", {"q": 0.5}, epochs=1, class_counts=jnp.ones(2), logit_clip=0.5)
    z, labels = jnp.array([[3.0, 4.0]]), jnp.array([0])
    expected = losses.generalized_cross_entropy(jnp.array([[0.3, 0.4]]), labels, q=0.5)
    np.testing.assert_allclose(bound(z, labels, epoch=0, key=None), expected, rtol=1e-6)
    made = small("ce", logit_clip=0.5)
    assert made.loss.logit_clip == 0.5
