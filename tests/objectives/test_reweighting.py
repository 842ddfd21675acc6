"""Meta-Weight-Net and learning to reweight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import losses
from jaxrobust.bilevel import make_bilevel
from jaxrobust.objectives import learning_to_reweight, meta_weight_net


def linear(params, state, x, train):
    del train
    return x @ params, state


def data(seed, n, d=4, k=3):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    return {"x": x, "labels": jnp.asarray(rng.integers(0, k, n), jnp.int32)}


def test_meta_weight_net_weighs_by_the_loss_without_gradient_through_the_weight():
    objective = meta_weight_net(hidden=7)
    phi = jax.jit(objective.init)(jax.random.key(0))
    batch, logits = data(0, 5), jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    value = losses.cross_entropy(logits, batch["labels"])
    hidden = jax.nn.relu(value[:, None] @ phi["dense_0"]["kernel"])
    expected = jax.nn.sigmoid(hidden @ phi["dense_1"]["kernel"])[:, 0]
    weights = objective.weights(phi, logits, batch)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_allclose(objective.loss(phi, logits, batch), weights * value, rtol=1e-5)
    actual = jax.grad(lambda z: objective.loss(phi, z, batch).sum())(logits)
    fixed = jax.grad(lambda z: (weights * losses.cross_entropy(z, batch["labels"])).sum())(logits)
    np.testing.assert_allclose(actual, fixed, rtol=1e-5)


def test_meta_weight_net_learns_that_a_high_loss_means_a_wrong_label():
    """From a network that is right: wrong labels have a loss of about 6, right ones near 0."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (64, 1)) * np.where(np.arange(64) % 2, 1, -1)[:, None]
    true, wrong = (x[:, 0] > 0).astype(np.int32), rng.random(64) < 0.4
    batch = {"x": jnp.asarray(x, jnp.float32), "labels": jnp.where(wrong, 1 - true, true)}
    clean = batch | {"labels": jnp.asarray(true)}
    objective = meta_weight_net(hidden=20)
    bilevel = make_bilevel(linear, objective, optax.sgd(0.05), optax.adam(1e-2))
    state = jax.jit(bilevel.init)(jax.random.key(0), jnp.array([[-3.0, 3.0]]))
    last = state.meta_params["dense_1"]
    last["kernel"] = jnp.zeros_like(last["kernel"])  # All weights begin at a half.
    step = jax.jit(bilevel.step)
    for _ in range(60):
        state, info = step(state, batch, clean)
    assert info.weights[wrong].mean() < 0.05 < 0.2 < info.weights[~wrong].mean()
    assert state.params[0, 1] > 2


def test_learning_to_reweight_is_algorithm_1():
    """weights = max(0, <grad of each example, grad of the metadata>), normalized; for SGD."""
    batch, meta_batch = data(0, 8), data(1, 6)
    params = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    objective, meta_optimizer = learning_to_reweight(8)
    bilevel = make_bilevel(linear, objective, optax.sgd(0.1), meta_optimizer)
    state = jax.jit(bilevel.init)(jax.random.key(0), params)
    step = jax.jit(bilevel.step)
    before, info = step(state, batch, meta_batch)

    def loss(p, b):
        return losses.cross_entropy(b["x"] @ p, b["labels"])

    each = jax.jacobian(loss)(params, batch)
    meta = jax.grad(lambda p: loss(p, meta_batch).mean())(params)
    agreement = np.maximum(np.einsum("bij,ij->b", each, meta), 0)
    expected = 8 * agreement / agreement.sum()
    assert 0 < (expected > 0).sum() < 8
    np.testing.assert_allclose(info.weights, expected, rtol=1e-4, atol=1e-6)
    grad = np.einsum("b,bij->ij", expected / 8, each)
    np.testing.assert_allclose(before.params, params - 0.1 * grad, rtol=1e-4, atol=1e-6)

    # The next batch starts afresh: the weights of the last one leave no trace.
    fresh = state._replace(params=before.params, opt_state=before.opt_state)
    again, fresh = step(before, batch, meta_batch)[1], step(fresh, batch, meta_batch)[1]
    np.testing.assert_array_equal(again.weights, fresh.weights)


def test_learning_to_reweight_gives_no_weight_where_nothing_helps():
    _, meta_optimizer = learning_to_reweight(3)
    updates, _ = meta_optimizer.update(jnp.array([0.0, 1.0, 2.0]), (), jnp.ones(3))
    np.testing.assert_array_equal(updates, -np.ones(3))
