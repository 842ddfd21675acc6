"""Skipped layers: the same gradient as with the bottom held, from less work."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import losses, networks
from jaxrobust.bilevel import make_bilevel
from jaxrobust.errors import UserError
from jaxrobust.objectives import curve_weighted, dynamic_loss

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


KEY = jax.random.key(7)


def meta_gradient(setting, **options):
    """Meta-gradient (by a meta-optimizer of learning rate 1), the new state and the info."""
    jit, network, objective, state, batch, meta_batch = setting
    bilevel = make_bilevel(network, objective, OPTIMIZER, optax.sgd(1.0), **options)
    after, info = jit(bilevel.step)(state, batch, meta_batch, KEY)
    return jax.tree.map(jnp.subtract, state.meta_params, after.meta_params), after, info


def by_hand(setting, skip, train_bottom):
    """The same objective as a function of the top alone."""
    jit, network, objective, state, batch, meta_batch = setting
    names = network.stages[skip:]

    def logits(top, x):
        params, network_state = state.params | top, state.network_state
        features, _ = network.run(params, network_state, x, train_bottom, 0, skip)
        return network.run(params, network_state, features, True, skip, None)[0]

    def meta(phi):
        start = {name: state.params[name] for name in names}
        seen = batch
        if objective.observe is not None:
            look_key, _ = jax.random.split(KEY)
            seen = objective.observe(look_key, logits(start, batch["x"]), batch)

        def inner(top):
            return jnp.mean(objective.loss(phi, logits(top, batch["x"]), seen))

        grads = jax.tree.map(jnp.zeros_like, state.params) | jax.grad(inner)(start)
        updates, _ = OPTIMIZER.update(grads, state.opt_state, state.params)
        top = optax.apply_updates(start, {name: updates[name] for name in names})
        return jnp.mean(losses.cross_entropy(logits(top, meta_batch["x"]), meta_batch["labels"]))

    return jit(jax.grad(meta))(state.meta_params)


def assert_equal(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 1e-10, "atol": 1e-14}))


@pytest.mark.parametrize("statistics", ["eval", "batch"])
def test_the_gradient_is_that_of_the_top_with_the_bottom_held(setting, statistics):
    found, after, _ = meta_gradient(setting, skip=1, bottom_batch_norm=statistics)
    assert_equal(found, by_hand(setting, 1, statistics == "batch"))
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


OBJECTIVES = {"curvenet": curve_weighted(3, 5, 4), "dynamic loss": dynamic_loss(3, 5, 4)}


def random_batch(shape, seed=0, size=4, dtype=np.float64):
    rng = np.random.default_rng(seed)
    batch = {"x": rng.normal(size=(size, *shape)), "curve": rng.normal(size=(size, 5))}
    rows = {name: rng.integers(0, 3, size).astype(np.int32) for name in ("labels", "rank")}
    batch = {name: value.astype(dtype) for name, value in batch.items()} | rows
    return {name: jnp.asarray(v) for name, v in batch.items()} | {"index": jnp.arange(size)}


def filled(function, *arguments, seed):
    """What a function would return, with random numbers in it: nothing is compiled."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        low = 0.5 if "var" in jax.tree_util.keystr(path) else -0.5
        return jnp.asarray(rng.uniform(low, low + 1, leaf.shape), jnp.float64)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(function, *arguments))


@pytest.mark.parametrize(
    "skip, statistics, name",
    [
        (1, "batch", "dynamic loss"),
        (2, "eval", "curvenet"),
        (3, "batch", "curvenet"),
        (4, "eval", "dynamic loss"),
    ],
)
def test_a_split_resnet_32_has_the_gradient_with_the_bottom_held(toy, x64, skip, statistics, name):
    network = networks.make("resnet32", 3, dtype=jnp.float64, width=2, blocks=1)
    objective, batches = OBJECTIVES[name], [random_batch((8, 8, 3), seed) for seed in (0, 1)]
    bilevel = make_bilevel(network, objective, OPTIMIZER, optax.sgd(1.0))
    start = filled(network.init, KEY, batches[0]["x"], seed=2)
    state = filled(bilevel.init, KEY, *start, seed=3)

    @toy.jit
    def both(state, *batches):
        setting = Setting(lambda f: f, network, objective, state, *batches)
        found, _, _ = meta_gradient(setting, skip=skip, bottom_batch_norm=statistics)
        return found, by_hand(setting, skip, statistics == "batch")

    found, expected = both(state, *batches)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found)) > 1e-6
    assert_equal(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "name, shape, sizes, skips",
    [
        ("mlp", (6,), {"hidden": (8, 4)}, (1, 2)),
        ("small_cnn", (8, 8, 1), {"width": 4}, (1, 2, 3)),
        ("resnet18", (8, 8, 3), {"width": 4, "blocks": 1}, (2, 5)),
        ("resnet50", (32, 32, 3), {"width": 4, "blocks": (1, 1)}, (1, 3)),
        ("wrn28_10", (8, 8, 3), {"width": 8, "blocks": 1}, (1, 4)),
        ("vgg19_bn", (32, 32, 3), {"width": 2}, (3, 5)),
        ("inception_resnet_v2", (75, 75, 3), {"blocks": (0, 0, 0)}, (2, 4)),
    ],
)
def test_every_network_can_be_split(name, shape, sizes, skips):
    """The last of `skips` leaves the head."""
    network = networks.make(name, 3, **sizes)
    batch = random_batch(shape, dtype=np.float32)
    start = jax.eval_shape(network.init, jax.random.key(0), batch["x"])
    assert skips[-1] == len(network.stages) - 1
    for skip in skips:
        bilevel = make_bilevel(
            network, OBJECTIVES["curvenet"], OPTIMIZER, optax.sgd(1.0), skip=skip
        )
        state = jax.eval_shape(bilevel.init, jax.random.key(0), *start)
        after, _ = jax.eval_shape(bilevel.step, state, batch, batch)
        jax.tree.map(
            lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)),
            after,
            state,
        )
