"""Skipped layers: the same gradient as with the bottom held, from less work."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import losses
from jaxrobust.bilevel import make_bilevel
from jaxrobust.errors import UserError

OPTIMIZER = optax.chain(optax.add_decayed_weights(5e-3), optax.sgd(0.1, momentum=0.9))


class Setting(NamedTuple):
    jit: Any
    network: Any
    objective: Any
    state: Any
    batch: Any
    meta_batch: Any


@pytest.fixture
def setting(toy, x64):
    """A network, batches, and a state in which momentum and running statistics have moved."""
    network, (batch, meta_batch) = toy.make_network(), toy.make_batches()
    bilevel = make_bilevel(network, toy.objective, OPTIMIZER, optax.sgd(1.0))

    @toy.jit
    def start():
        params, _ = network.init(jax.random.key(1), batch["x"])
        moved = {"bn": {"mean": jnp.linspace(-1, 1, 6), "var": jnp.linspace(1, 2, 6)}}
        state = bilevel.init(jax.random.key(0), params, moved)
        _, opt_state = OPTIMIZER.update(jax.tree.map(jnp.sin, params), state.opt_state, params)
        return state._replace(opt_state=opt_state)

    state = start()
    return Setting(toy.jit, network, toy.objective, state, batch, meta_batch)


def meta_gradient(setting, **options):
    """Meta-gradient (by a meta-optimiser of learning rate 1), the new state and the info."""
    jit, network, objective, state, batch, meta_batch = setting
    bilevel = make_bilevel(network, objective, OPTIMIZER, optax.sgd(1.0), **options)
    after, info = jit(bilevel.step)(state, batch, meta_batch)
    return jax.tree.map(np.subtract, state.meta_params, after.meta_params), after, info


def by_hand(setting, train_bottom):
    """The same objective as a function of the top alone."""
    jit, network, objective, state, batch, meta_batch = setting

    def logits(top, x):
        features, _ = network.run(state.params, state.network_state, x, train_bottom, 0, 1)
        params = state.params | {"l2": top}
        return network.run(params, state.network_state, features, True, 1, None)[0]

    def meta(phi):
        def inner(top):
            return jnp.mean(objective.loss(phi, logits(top, batch["x"]), batch))

        grads = jax.tree.map(jnp.zeros_like, state.params) | {
            "l2": jax.grad(inner)(state.params["l2"])
        }
        updates, _ = OPTIMIZER.update(grads, state.opt_state, state.params)
        top = optax.apply_updates(state.params["l2"], updates["l2"])
        return jnp.mean(losses.cross_entropy(logits(top, meta_batch["x"]), meta_batch["labels"]))

    return jit(jax.grad(meta))(state.meta_params)


def assert_equal(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 1e-10, "atol": 1e-14}))


@pytest.mark.parametrize("statistics", ["eval", "batch"])
def test_the_gradient_is_that_of_the_top_with_the_bottom_held(setting, statistics):
    found, after, _ = meta_gradient(setting, skip=1, bottom_batch_norm=statistics)
    assert_equal(found, by_hand(setting, statistics == "batch"))
    state = setting.state
    for before, now in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True
    ):
        assert np.any(before != now)  # The real step still trains every layer,
    assert np.any(state.network_state["bn"]["mean"] != after.network_state["bn"]["mean"])


def test_skipping_nothing_is_exactly_the_full_step(setting):
    whole, skipped = meta_gradient(setting), meta_gradient(setting, skip=lambda path: False)
    assert_equal(skipped, whole, rtol=0)
    assert_equal(meta_gradient(setting, skip=0), whole, rtol=0)
    differs = meta_gradient(setting, skip=1)[0]
    assert np.any(jax.tree.leaves(differs)[0] != jax.tree.leaves(whole[0])[0])


def test_a_predicate_on_the_path_is_the_same_as_a_split_with_batch_statistics(setting):
    split = meta_gradient(setting, skip=1, bottom_batch_norm="batch")
    by_path = meta_gradient(setting, skip=lambda path: path.startswith("l1/"))
    assert_equal(by_path, split)


def test_a_predicate_needs_no_stages(setting):
    alone = setting._replace(network=setting.network.apply)
    held = {"skip": lambda path: path.endswith("bias"), "mode": "finite_difference"}
    assert_equal(meta_gradient(alone, **held), meta_gradient(setting, **held))


@pytest.mark.parametrize("skip", [2, -1])
def test_the_top_must_be_left(toy, skip):
    with pytest.raises(UserError, match="2 stages .l1, l2."):
        make_bilevel(toy.make_network(), toy.objective, OPTIMIZER, optax.sgd(1.0), skip=skip)


def test_a_bare_function_has_no_stages_to_split(toy):
    apply = toy.make_network().apply
    with pytest.raises(UserError, match="predicate"):
        make_bilevel(apply, toy.objective, OPTIMIZER, optax.sgd(1.0), skip=1)
