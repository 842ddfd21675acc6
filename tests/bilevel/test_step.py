"""The step: what it learns, what it leaves alone, and how often it is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import losses
from jaxrobust.bilevel import make_bilevel
from jaxrobust.errors import UserError
from jaxrobust.objectives import Objective, curve_weighted, dynamic_loss

SGD = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
KEY = jax.random.key(0)


@pytest.fixture
def batches(toy):
    return toy.make_batches()


def start(toy, bilevel, network, batch):
    """A fresh state, compiled as a whole: cheaper than operation by operation."""
    return toy.jit(lambda: bilevel.init(KEY, *network.init(jax.random.key(1), batch["x"])))()


def simple_bilevel(toy, network, meta_optimizer=None, **options):
    return make_bilevel(
        network, toy.objective, SGD, meta_optimizer or optax.sgd(1.0, momentum=0.9), **options
    )


def assert_equal(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0}))


def test_one_trace_over_many_steps_with_donated_buffers(toy, batches):
    network, traces = toy.make_network(), []
    bilevel = make_bilevel(network, dynamic_loss(3, 5, 4), SGD, optax.adam(1e-2))

    def step(*args):
        traces.append(1)
        return bilevel.step(*args)

    jitted = toy.jit(step, donate_argnums=0)
    state = start(toy, bilevel, network, batches[0])
    phi = jax.tree.map(np.asarray, state.meta_params)
    for i in range(20):
        state, info = jitted(state, *batches, jax.random.fold_in(KEY, i))
    assert len(traces) == 1 and int(state.step) == 20 and bool(info.met)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, info)))
    moved = [
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(phi), jax.tree.leaves(state.meta_params), strict=True)
    ]
    assert all(moved) and float(info.meta_grad_norm) > 0


def test_the_step_is_look_ahead_then_meta_step_then_real_step(toy, batches, x64):
    """Against the three lines of the module, written down plainly."""
    network = toy.make_network()
    objective, meta_optimizer = toy.objective, optax.adam(1e-2)
    bilevel = simple_bilevel(toy, network, meta_optimizer)
    state = start(toy, bilevel, network, batches[0])
    after, info = toy.jit(bilevel.step)(state, *batches)

    def plain(state, batch, meta_batch):
        def inner(params, phi):
            logits, new = network.apply(params, state.network_state, batch["x"], True)
            return jnp.mean(objective.loss(phi, logits, batch)), new

        def update(params, phi):
            (value, new), grads = jax.value_and_grad(inner, has_aux=True)(params, phi)
            updates, opt_state = SGD.update(grads, state.opt_state, params)
            return optax.apply_updates(params, updates), (value, new, opt_state)

        def meta(phi):
            logits, _ = network.apply(
                update(state.params, phi)[0], state.network_state, meta_batch["x"], True
            )
            return jnp.mean(losses.cross_entropy(logits, meta_batch["labels"]))

        meta_loss, grads = jax.value_and_grad(meta)(state.meta_params)
        updates, _ = meta_optimizer.update(grads, state.meta_opt_state, state.meta_params)
        phi = optax.apply_updates(state.meta_params, updates)
        return phi, meta_loss, *update(state.params, phi)

    phi, meta_loss, params, (loss, network_state, opt_state) = toy.jit(plain)(state, *batches)
    assert_equal(after.meta_params, phi, rtol=1e-10)
    assert_equal(after.params, params, rtol=1e-10)
    assert_equal(after.opt_state, opt_state, rtol=1e-10, atol=1e-14)
    assert_equal(after.network_state, network_state, rtol=1e-12)  # The real step's alone, once.
    assert_equal((info.loss, info.meta_loss), (loss, meta_loss), rtol=1e-12)


def test_meta_learning_rate_0_leaves_phi_where_it_is(toy, batches):
    network = toy.make_network()
    bilevel = simple_bilevel(toy, network, optax.sgd(0.0))
    state = start(toy, bilevel, network, batches[0])
    step = toy.jit(bilevel.step)
    after, info = step(step(state, *batches, KEY)[0], *batches, KEY)
    assert_equal(after.meta_params, state.meta_params)
    assert float(info.meta_grad_norm) > 0


def test_without_corrector_and_with_margins_0_it_is_supervised_training(toy, batches, x64):
    network, (batch, meta_batch) = toy.make_network(), batches
    objective = dynamic_loss(3, 5, 4, corrector=False)
    bilevel = make_bilevel(network, objective, SGD, optax.sgd(0.0))
    state = start(toy, bilevel, network, batch)
    margin_net = state.meta_params["margin"]["margin_net"]
    margin_net["dense_2"] = jax.tree.map(np.zeros_like, margin_net["dense_2"])

    @toy.jit
    def supervised(params, network_state, opt_state):
        def loss(params):
            logits, new = network.apply(params, network_state, batch["x"], True)
            return jnp.mean(losses.cross_entropy(logits, batch["labels"])), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = SGD.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), value

    step, plain = toy.jit(bilevel.step), (state.params, state.network_state, state.opt_state)
    for _ in range(5):
        state, info = step(state, batch, meta_batch)
        plain, value = supervised(*plain)
        np.testing.assert_allclose(info.loss, value, rtol=1e-12)
    reached = state.params, state.network_state, state.opt_state
    assert_equal(reached, plain, rtol=1e-12, atol=1e-15)


def test_without_metadata_it_is_a_plain_step_with_phi_as_it_is(toy, batches):
    network, (batch, meta_batch) = toy.make_network(), batches
    bilevel = simple_bilevel(toy, network)
    frozen = simple_bilevel(toy, network, optax.sgd(0.0))
    state = start(toy, bilevel, network, batch)
    after, info = toy.jit(bilevel.step)(state, batch)
    expected, _ = toy.jit(frozen.step)(start(toy, frozen, network, batch), batch, meta_batch)
    assert_equal(after.params, expected.params, rtol=1e-6)
    assert_equal(after.meta_params, state.meta_params)
    assert_equal(after.meta_opt_state, state.meta_opt_state)
    assert not info.met and float(info.meta_loss) == 0 and float(info.loss) > 0


def test_meta_every(toy, batches):
    network = toy.make_network()
    bilevel = simple_bilevel(toy, network, meta_every=3)
    every = toy.jit(simple_bilevel(toy, network).step)
    step, state = toy.jit(bilevel.step), start(toy, bilevel, network, batches[0])
    for i in range(5):
        before, (state, info) = state, step(state, *batches, KEY)
        assert bool(info.met) == (i in (0, 3))
        if info.met:
            expected, seen = every(before, *batches, KEY)
            assert_equal(state, expected, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(info.meta_loss, seen.meta_loss, rtol=1e-5)
        else:
            assert_equal(state.meta_params, before.meta_params)
            assert float(info.meta_loss) == 0


def echo(seen):
    """An objective that reports what it was given: the batch's keys, by stage."""

    def loss(phi, logits, batch):
        return jax.nn.sigmoid(phi) * losses.cross_entropy(logits, batch["labels"])

    def observe(key, logits, batch):
        seen.append(sorted(batch))
        return batch | {"drawn": logits, "noise": jax.random.normal(key, ())}

    def weights(phi, logits, batch):
        return jnp.broadcast_to(batch["noise"], logits.shape[:1]) + 0 * batch["drawn"][:, 0]

    return Objective(lambda key: jnp.zeros(()), loss, observe, weights)


def test_the_real_step_may_see_another_view_and_draws_from_the_look_ahead(toy, batches):
    network, (batch, meta_batch), seen = toy.make_network(), batches, []
    bilevel = make_bilevel(network, echo(seen), SGD, optax.sgd(0.0))
    strong = {"x": batch["x"] + 1.0, "only_real": batch["rank"]}
    state = start(toy, bilevel, network, batch)
    after, info = toy.jit(bilevel.step)(state, batch | strong, meta_batch, KEY, look_ahead=batch)
    assert "only_real" not in seen[0] and "only_real" in seen[-1]
    logits, network_state = toy.jit(network.apply, static_argnums=3)(
        state.params, state.network_state, strong["x"], True
    )
    np.testing.assert_allclose(info.logits, logits, rtol=1e-5)
    assert_equal(after.network_state, network_state, rtol=1e-5)

    # Alone, without metadata, the same real step: the view seen first gives the logits again.
    alone, seen_alone = toy.jit(bilevel.step)(state, batch | strong, None, KEY, look_ahead=batch)
    assert_equal(alone.params, after.params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(seen_alone.weights, info.weights, rtol=1e-6)


def test_pseudo_labels_of_the_real_step_come_from_the_weak_view(toy, batches):
    """A weak view that is sure of class 2 turns every distrusted label into 2."""
    (batch, meta_batch), objective = batches, dynamic_loss(3, 5, 4, margin=False)

    def apply(params, state, x, train):
        return x[:, :3] * 50 + (x @ params - jax.lax.stop_gradient(x @ params)), state

    bilevel = make_bilevel(apply, objective, optax.sgd(0.0), optax.sgd(0.0))
    weak = jnp.zeros_like(batch["x"]).at[:, 2].set(1.0)
    strong = jnp.zeros_like(batch["x"]).at[:, 0].set(1.0)
    state = bilevel.init(KEY, jnp.ones((4, 3)))
    net = state.meta_params["corrector"]["rank_weight_net"]
    net["dense_2"]["bias"] = jnp.full((3,), -50.0)
    batch, look_ahead = batch | {"x": strong}, batch | {"x": weak}
    _, info = toy.jit(bilevel.step)(state, batch, meta_batch, KEY, look_ahead=look_ahead)
    np.testing.assert_allclose(info.loss, 50.0, rtol=1e-5)  # Class 2 against a sure class 0.


def test_examples_left_out_do_not_count(toy, batches, x64):
    network, (batch, meta_batch) = toy.make_network(with_bn=False), batches
    bilevel = simple_bilevel(toy, network)
    state = start(toy, bilevel, network, batch)
    step = toy.jit(bilevel.step)

    def spoiled(batch, rows):
        spoil = {"x": 1e3 * batch["x"], "labels": jnp.full_like(batch["labels"], -1)}
        spoil = {k: batch[k].at[rows:].set(v[rows:]) for k, v in spoil.items()}
        return batch | spoil | {"where": jnp.arange(len(batch["labels"])) < rows}

    def cut(batch, rows):
        return {k: v[:rows] for k, v in batch.items()}

    after, info = step(state, spoiled(batch, 5), spoiled(meta_batch, 4))
    expected, short = step(state, cut(batch, 5), cut(meta_batch, 4))
    assert_equal(after, expected, rtol=1e-10, atol=1e-14)
    for name in ("loss", "inner_loss", "meta_loss", "meta_grad_norm", "effective_sample_size"):
        np.testing.assert_allclose(getattr(info, name), getattr(short, name), rtol=1e-10)


def test_effective_sample_size_and_weights(toy, batches):
    network, (batch, meta_batch) = toy.make_network(), batches
    bilevel = simple_bilevel(toy, network)
    state, info = toy.jit(bilevel.step)(start(toy, bilevel, network, batch), batch, meta_batch)
    w = np.asarray(1 / (1 + np.exp(-state.meta_params)))[batch["rank"]]
    np.testing.assert_allclose(info.weights, w, rtol=1e-5)
    expected = np.sum(w) ** 2 / np.sum(w**2) / len(w)
    np.testing.assert_allclose(info.effective_sample_size, expected, rtol=1e-5)
    bilevel = make_bilevel(network, toy.objective._replace(weights=None), SGD, optax.sgd(1.0))
    _, info = toy.jit(bilevel.step)(start(toy, bilevel, network, batch), batch, meta_batch)
    assert info.weights is None and float(info.effective_sample_size) == 1


def test_many_seeds_at_once(toy, batches):
    network = toy.make_network()
    bilevel = simple_bilevel(toy, network)

    def run(seed):
        params, network_state = network.init(jax.random.key(seed), batches[0]["x"])
        state = bilevel.init(jax.random.key(seed + 10), params, network_state)
        return bilevel.step(state, *batches, jax.random.key(seed))

    together = toy.jit(jax.vmap(run))(jnp.arange(2))
    alone = toy.jit(run)(1)
    assert_equal(jax.tree.map(lambda leaf: leaf[1], together), alone, rtol=1e-4, atol=1e-6)


def test_a_few_steps_of_metadata_teach_the_weights_which_label_is_wrong(toy):
    """One feature, two classes; the curve says which labels were flipped."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 1))
    true = (x[:, 0] > 0).astype(np.int32)
    wrong = rng.random(64) < 0.4
    curve = np.where(wrong, 1.0, -1.0)[:, None] * np.ones((1, 3))
    batch = {"x": x, "labels": np.where(wrong, 1 - true, true), "curve": curve}
    batch = {
        k: jnp.asarray(v, jnp.float32 if k != "labels" else jnp.int32) for k, v in batch.items()
    }
    clean = batch | {"labels": jnp.asarray(true)}

    def apply(params, state, x, train):
        return x @ params, state

    objective = curve_weighted(2, 3, 8)
    bilevel = make_bilevel(apply, objective, optax.sgd(0.5), optax.adam(3e-2))
    state, step = toy.jit(bilevel.init)(KEY, jnp.zeros((1, 2))), toy.jit(bilevel.step)
    for _ in range(60):
        state, info = step(state, batch, clean)
    weights = np.asarray(info.weights)
    assert weights[wrong].mean() < 0.2 and weights[~wrong].mean() > 0.8


@pytest.mark.parametrize(
    "options,message",
    [
        ({"meta_every": 0}, "meta_every"),
        ({"mode": "exakt"}, "Did you mean 'exact'"),
        ({"bottom_batch_norm": "train"}, "bottom_batch_norm"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(toy, options, message):
    with pytest.raises(UserError, match=message):
        simple_bilevel(toy, toy.make_network(), **options)


def test_an_objective_that_draws_wants_a_key(toy, batches):
    network = toy.make_network()
    bilevel = make_bilevel(network, dynamic_loss(3, 5, 4), SGD, optax.sgd(1.0))
    with pytest.raises(UserError, match="key"):
        jax.eval_shape(bilevel.step, start(toy, bilevel, network, batches[0]), *batches)


def test_an_objective_that_ignores_its_parameters_is_refused(toy, batches):
    network = toy.make_network()
    objective = Objective(
        lambda key: jnp.ones(3), lambda phi, z, b: losses.cross_entropy(z, b["labels"])
    )
    bilevel = make_bilevel(network, objective, SGD, optax.adam(1e-3))
    with pytest.raises(UserError, match="meta-gradient is zero"):
        jax.eval_shape(bilevel.step, start(toy, bilevel, network, batches[0]), *batches)
