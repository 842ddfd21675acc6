"""Mixup for any loss: two hand-computed losses, weight 1, the memory's rows, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TINY, settings

import jaxrobust
from jaxrobust import main, networks
from jaxrobust.data import batches
from jaxrobust.errors import UserError
from jaxrobust.methods import _agreement, _supervised, make_loss, supervised
from jaxrobust.methods._supervised import make_memory
from jaxrobust.runs import predict
from jaxrobust.runs.experiment import assemble

PARTNER, SHARE = jnp.array([2, 0, 1, 3]), jnp.full(4, 0.75)
LABELS = jnp.array([0, 1, 2, 1])


def plain(key, x):
    return x


def one_step(monkeypatch, name, alpha, share=SHARE):
    """Returns parameters before and after a step of gradient descent, the state, and the logits."""
    for module in (_supervised, _agreement):
        monkeypatch.setattr(module, "mixup_pairs", lambda key, n, alpha: (PARTNER, share))
    network = networks.make("mlp", 3, hidden=(5,))
    loss = make_loss(name, {}, epochs=2, class_counts=jnp.array([1, 2, 1]))
    x = jax.random.normal(jax.random.key(3), (4, 6))
    method = supervised(
        network,
        loss,
        optax.sgd(1.0),
        plain,
        example=x,
        num_examples=4,
        batch_size=4,
        epochs=2,
        memory=make_memory(name, {}, LABELS, 3),
        mixup_alpha=alpha,
    )
    state = method.init(jax.random.key(1))
    batch = batches.take({"x": x, "labels": LABELS}, jnp.arange(4))
    step = method.stages[0].passes[0].step
    after, info = step(state, batch, None, jax.random.key(5), jnp.int32(0))
    return network, loss, x, state, after, info


@pytest.mark.parametrize("name", ["ce", "gce", "jal_ce", "dal", "logit_adjusted"])
def test_the_loss_is_the_share_of_each_label_s_loss_on_the_mixed_images(monkeypatch, name):
    network, loss, x, state, after, _ = one_step(monkeypatch, name, 1.0)
    mixed = 0.75 * x + 0.25 * x[PARTNER]

    def by_hand(params):
        logits = network.apply(params, {}, mixed, True)[0]
        one = loss(logits, LABELS, epoch=0, key=None)
        other = loss(logits, LABELS[PARTNER], epoch=0, key=None)
        return jnp.mean(0.75 * one + 0.25 * other)

    expected = jax.tree.map(lambda p, g: p - g, state.params, jax.grad(by_hand)(state.params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected
    )


@pytest.mark.parametrize("name", ["ce", "gce", "nlnl", "jal_ce", "anl_fl", "elr", "selc"])
def test_with_weight_1_the_step_is_the_plain_one(monkeypatch, name):
    mixed = one_step(monkeypatch, name, 1.0, share=jnp.ones(4))[4]
    alone = one_step(monkeypatch, name, None)[4]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mixed, alone)


def test_a_run_with_weight_1_is_the_plain_run(tmp_path, gallery):
    """Beta(alpha, alpha) of a tiny alpha draws 0 or 1 alone, and the larger share is 1."""
    jaxrobust.train(settings(small=TINY | {"train.mixup_alpha": 1e-4}), tmp_path)
    ends = [predict.open_workdir(p)[1]["state"].params for p in (tmp_path, gallery(settings()))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *ends)


def test_elr_s_rows_move_by_the_images_as_they_are_and_are_mixed(monkeypatch):
    """As in ELR+: log(1 - <s t + (1 - s) t', p>), t of the unmixed prediction."""
    network, _, x, state, after, info = one_step(monkeypatch, "elr", 1.0)
    seen = network.apply(state.params, {}, x, True)[0]
    p = np.clip(jax.nn.softmax(seen), 1e-4, 1 - 1e-4)
    rows = 0.3 * p / p.sum(-1, keepdims=True)
    np.testing.assert_allclose(after.memory["rows"][:4], rows, rtol=1e-5)
    np.testing.assert_allclose(info.logits, seen, rtol=1e-5)
    target = 0.75 * rows + 0.25 * rows[np.asarray(PARTNER)]
    z = network.apply(state.params, {}, 0.75 * x + 0.25 * x[PARTNER], True)[0]
    log_p = np.asarray(jax.nn.log_softmax(z))
    one_hot = np.eye(3)[np.asarray(LABELS)]
    soft = 0.75 * one_hot + 0.25 * one_hot[np.asarray(PARTNER)]
    c = np.clip(np.exp(log_p), 1e-4, 1 - 1e-4)
    expected = -(soft * log_p).sum(-1) + 3.0 * np.log(1 - (target * c).sum(-1))
    np.testing.assert_allclose(info.scalars["loss"], expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("recipe", ["digits_dynamic_loss", "digits_losses:elr"])
def test_methods_that_mix_take_the_setting(recipe):
    made = settings(recipe, small=TINY | {"train.mixup_alpha": 1.0, "method.warmup_epochs": 1})
    assert assemble(made).method.epochs == made.train.epochs


@pytest.mark.parametrize(
    "recipe, more, said",
    [
        ("digits_curvenet", {}, "train.mixup_alpha: method.name=curvenet gives each example"),
        ("digits_meta_weight_net", {}, "method.name=meta_weight_net"),
        ("digits_dynamic_loss", {"method.mixup_alpha": 0.5}, "are both set; use one"),
    ],
)
def test_where_a_mixture_makes_no_sense_it_is_refused(recipe, more, said):
    small = {"train.mixup_alpha": 1.0} | more
    with pytest.raises(UserError, match=said):
        assemble(settings(recipe, small=small))


def test_a_weight_out_of_range_is_one_line(capsys):
    command = ["main", "--config=digits_losses:ce", "--config.train.mixup_alpha=0", "--workdir=w"]
    assert main.run(command) == 2
    assert "train.mixup_alpha=0.0: must be greater than 0" in capsys.readouterr().err
