"""Wrong use of a step in somebody's own project: one line that says what to do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust.bilevel import make_bilevel
from jaxrobust.errors import UserError
from jaxrobust.objectives import LabelCorrector, dynamic_loss, learning_to_reweight

RNG = np.random.default_rng(0)
BATCH = {
    "x": RNG.normal(size=(6, 4)).astype(np.float32),
    "labels": np.arange(6) % 3,
    "rank": np.arange(6) % 5,
    "index": np.arange(6),
}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


MODULE = Net()
PARAMS = MODULE.init(jax.random.key(0), BATCH["x"])["params"]


def apply(params, state, x, train):
    del train
    return MODULE.apply({"params": params}, x), state


def step(network=apply, objective=None, batch=BATCH, **options):
    objective = objective or dynamic_loss(3, 5, 4)
    bilevel = make_bilevel(network, objective, optax.adam(1e-2), optax.adam(1e-2), **options)
    state = bilevel.init(jax.random.key(0), PARAMS)
    metadata = {name: BATCH[name] for name in ("x", "labels")}
    return jax.jit(bilevel.step)(state, batch, metadata, jax.random.key(1))


def without(name):
    return {key: value for key, value in BATCH.items() if key != name}


def test_a_flax_module_in_a_line():
    state, info = step()
    assert np.isfinite(info.meta_grad_norm) and info.meta_grad_norm > 0 and state.step == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"network": MODULE}, r"must be apply\(params, state, x, train\) .* such as lambda"),
        ({"network": MODULE.apply}, r"must be apply\(params, state, x, train\)"),
        (
            {"network": lambda p, s, x, train: apply(p, s, x, train)[0]},
            r"must return \(logits .B, K.",
        ),
        ({"batch": (BATCH["x"], BATCH["labels"])}, "must be a dictionary with 'x'.* not a tuple"),
        ({"batch": without("x")}, "must be a dictionary with 'x'.* of index, labels, rank"),
        ({"batch": BATCH | {"real_step": BATCH}}, r"'real_step'. is from .* look_ahead"),
        ({"batch": without("rank")}, "needs 'rank', which is not there"),
        ({"batch": without("labels")}, "needs 'labels', which is not there"),
        ({"batch": BATCH | {"labels": np.eye(3)[BATCH["labels"]]}}, r"labels \[6, 3\]"),
        ({"objective": dynamic_loss(5, 5, 4)}, r"loss of logits \[6, 3\].*shapes"),
        ({"objective": learning_to_reweight(4)[0]}, r"loss of logits \[6, 3\]"),
        ({"objective": LabelCorrector(3)}, "must be an Objective.* not 'LabelCorrector'"),
        ({"meta_every": 1.5}, "whole number of at least 1, not 1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_use_is_told_in_a_line(wrong, message):
    with pytest.raises(UserError, match=message) as caught:
        step(**wrong)
    assert "\n" not in str(caught.value)


def test_labels_are_not_needed_by_an_objective_that_does_not_read_them():
    objective = dynamic_loss(3, 5, 4)
    reads = objective._replace(
        loss=lambda phi, z, batch: objective.loss(phi, z, batch | {"labels": batch["y"]}),
        observe=None,
        weights=None,
    )
    batch = without("labels") | {"y": BATCH["labels"], "pseudo_labels": jnp.zeros(6, jnp.int32)}
    assert step(objective=reads, batch=batch)[0].step == 1


def of_metadata(metadata, labels=None, **options):
    bilevel = make_bilevel(
        apply, dynamic_loss(3, 5, 4), optax.adam(1e-2), optax.adam(1e-2), **options
    )
    state = bilevel.init(jax.random.key(0), PARAMS)
    batch = BATCH if labels is None else BATCH | {"labels": labels}
    return jax.jit(bilevel.step)(state, batch, metadata, jax.random.key(1))


@pytest.mark.parametrize(
    "metadata, message",
    [
        ((BATCH["x"], BATCH["labels"]), "metadata batch must be a dictionary .* not a tuple"),
        ({"x": BATCH["x"]}, "meta-loss .* needs 'labels', which is not there"),
        (
            {"x": BATCH["x"], "labels": np.eye(3, dtype=int)[BATCH["labels"]]},
            r"metadata batch has 'labels' \[6, 3\] of int\d+: pass int \[B\]",
        ),
        ({"x": np.ones((6, 9)), "labels": BATCH["labels"]}, "on the metadata batch's 'x'"),
        ({"x": BATCH["x"], "labels": BATCH["labels"][:4]}, r"'labels' \[4\] for 6 examples"),
    ],
    ids=["pair", "no labels", "integer one-hot", "other width", "fewer labels"],
)
def test_mistakes_in_the_metadata_are_named(metadata, message):
    with pytest.raises(UserError, match=message) as caught:
        of_metadata(metadata)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [-1, 3, 200])
def test_a_label_that_is_no_class_makes_the_loss_nan_unless_it_does_not_count(wrong):
    good = {"x": BATCH["x"], "labels": BATCH["labels"]}
    labels = BATCH["labels"].copy()
    labels[2] = wrong
    _, info = of_metadata(good | {"labels": labels})
    assert np.isnan(info.meta_loss) and np.isfinite(info.inner_loss)
    _, info = of_metadata(good, labels=labels)
    assert np.isnan(info.loss) and np.isnan(info.inner_loss)
    where = np.arange(6) != 2
    _, info = of_metadata(good | {"labels": labels, "where": where})
    assert np.isfinite(info.meta_loss) and np.isfinite(info.meta_grad_norm)


def test_a_custom_meta_loss_cannot_hide_a_wrong_label():
    labels = np.where(np.arange(6) == 0, -1, BATCH["labels"])

    def last_logit_wins(logits, batch):
        return -jnp.take_along_axis(logits, batch["labels"][:, None], axis=1)[:, 0]

    _, info = of_metadata({"x": BATCH["x"], "labels": labels}, meta_loss=last_logit_wins)
    assert np.isnan(info.meta_loss)


@pytest.mark.parametrize("which", ["optimizer", "meta_optimizer"])
@pytest.mark.parametrize("wrong", [0.1, optax.adam, None])
def test_what_is_no_optimizer_is_named(which, wrong):
    both = {"optimizer": optax.sgd(0.1), "meta_optimizer": optax.sgd(0.1)} | {which: wrong}
    with pytest.raises(UserError, match=f"make_bilevel: {which} must be an optimizer of optax"):
        make_bilevel(apply, dynamic_loss(3, 5, 4), both["optimizer"], both["meta_optimizer"])
