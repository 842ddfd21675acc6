"""Any optimizer of optax, or one line; any structure of inputs; many look-ahead steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from jaxrobust import losses
from jaxrobust.bilevel import hypergradient, make_bilevel
from jaxrobust.errors import UserError
from jaxrobust.objectives import Objective

WEIGHTED = Objective(
    init=lambda key: jnp.zeros(4),
    loss=lambda phi, z, b: jax.nn.sigmoid(phi)[b["labels"]] * losses.cross_entropy(z, b["labels"]),
)


def data(n=16, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(n, d)).astype(np.float32), "labels": rng.integers(0, 4, n)}


def linear(params, state, x, train):
    return x @ params["w"], state


def run(optimizer, steps=6, apply=linear, batch=None):
    batch = batch or data()
    bilevel = make_bilevel(apply, WEIGHTED, optimizer, optax.sgd(0.1))
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)}
    state, step = bilevel.init(jax.random.key(0), params), jax.jit(bilevel.step)
    for _ in range(steps):
        state, info = step(state, batch, batch)
    return state, info


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
        optax.polyak_sgd(),
        optax.contrib.momo(),
        optax.adam(1e-2),
    ],
)
def test_optimizers_that_ask_for_the_loss_get_it(optimizer):
    state, info = run(optimizer)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state))
    assert float(info.meta_grad_norm) > 0


def test_the_value_given_to_the_optimizer_is_the_loss_before_the_step():
    def update(updates, state, params=None, *, value, value_fn, grad, **_):
        same = jnp.isclose(value, value_fn(params), rtol=1e-5) & (value > 0)
        return jax.tree.map(lambda g: -0.1 * g, updates), same.astype(jnp.float32)

    watching = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)
    state, _ = run(watching, steps=1)
    assert float(state.opt_state) == 1


@pytest.mark.parametrize(
    "optimizer, says",
    [
        (optax.radam(1e-2), "not a number in its first steps"),
        (optax.contrib.mechanize(optax.adam(1e-2)), "not a number in its first steps"),
        (optax.lbfgs(0.1), "cannot be taken"),
        (optax.contrib.sophia(1e-2), "asks for arguments"),
        (
            optax.lookahead(optax.sgd(0.1), 5, 0.5),
            "parameters of another kind .* as optax.lookahead",
        ),
    ],
)
def test_optimizers_without_a_derivative_are_refused_in_one_line(optimizer, says):
    with pytest.raises(UserError, match=says) as error:
        run(optimizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrap, pick",
    [
        (lambda x: (x, x), lambda x: x[0]),
        (lambda x: {"tokens": x, "mask": x > 0}, lambda x: x["tokens"]),
    ],
)
def test_inputs_may_be_any_structure(wrap, pick):
    plain, _ = run(optax.sgd(0.1))
    batch = data()
    other, _ = run(
        optax.sgd(0.1),
        batch=batch | {"x": wrap(batch["x"])},
        apply=lambda p, s, x, train: (pick(x) @ p["w"], s),
    )
    np.testing.assert_array_equal(plain.params["w"], other.params["w"])


def problem():
    x, y = (
        jnp.asarray(np.random.default_rng(0).normal(size=s), jnp.float32)
        for s in ((6, 8, 3), (6, 8))
    )

    def inner(w, phi, batch):
        a, b = batch
        return jnp.mean((a @ w - b) ** 2) + jnp.exp(phi) * jnp.sum(w**2)

    def outer(w, batch):
        return jnp.mean((x[0] @ w - y[0]) ** 2)

    return x, y, inner, outer


@pytest.mark.parametrize("steps", [2, 6])
def test_many_steps_compile_as_a_scan_and_give_the_gradient_written_out(steps):
    x, y, inner, outer = problem()
    adam, w = optax.adam(1e-2), jnp.zeros(3)

    def written_out(phi):
        params, state = w, adam.init(w)
        for _ in range(steps):
            grads = jax.grad(inner)(params, phi, (x[1], y[1]))
            grads = jnp.where(grads == 0, 1e-15, grads)
            updates, state = adam.update(grads, state, params)
            params = params + updates
        return outer(params, None)

    compute = hypergradient(inner, outer, adam, steps=steps)
    found = compute(-3.0, w, adam.init(w), (x[1], y[1]), None)
    np.testing.assert_allclose(found.grads, jax.grad(written_out)(-3.0), rtol=1e-4)
    text = str(
        jax.make_jaxpr(lambda phi: compute(phi, w, adam.init(w), (x[1], y[1]), None).grads)(-3.0)
    )
    assert ("scan[" in text) == (steps > 3)


@pytest.mark.parametrize("mode", ["exact", "first_order", "finite_difference"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_each_look_ahead_step_may_have_a_batch_of_its_own(steps, mode):
    x, y, inner, outer = problem()
    sgd, w = optax.sgd(0.05), jnp.ones(3)
    batches = (x[:steps], y[:steps])
    found = hypergradient(inner, outer, sgd, steps=steps, mode=mode, per_step=True)(
        -3.0, w, sgd.init(w), batches, None
    )
    params = w
    for i in range(steps):
        params = params - 0.05 * jax.grad(inner)(params, -3.0, (x[i], y[i]))
    np.testing.assert_allclose(found.params, params, rtol=1e-5)
    repeated = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * steps), batches)
    one, same = (
        hypergradient(inner, outer, sgd, steps=steps, mode=mode, per_step=own)(
            -3.0, w, sgd.init(w), given, None
        )
        for own, given in ((False, (x[0], y[0])), (True, repeated))
    )
    np.testing.assert_allclose(one.grads, same.grads, rtol=1e-5)


def test_shard_map_that_sums_gradients_itself_is_refused():
    bilevel = make_bilevel(linear, WEIGHTED, optax.sgd(0.1), optax.sgd(0.1), axis_name="d")
    params = {"w": jnp.ones((6, 4))}
    state = bilevel.init(jax.random.key(0), params)
    mesh = AbstractMesh((2,), ("d",), axis_types=(AxisType.Auto,))
    split = jax.tree.map(lambda a: jnp.stack([a, a]), data())

    def step(check):
        return jax.eval_shape(
            jax.shard_map(
                lambda s, b: bilevel.step(
                    s, jax.tree.map(lambda a: a[0], b), jax.tree.map(lambda a: a[0], b)
                )[0],
                mesh=mesh,
                in_specs=(P(), P("d")),
                out_specs=P(),
                check_vma=check,
            ),
            state,
            split,
        )

    step(False)
    with pytest.raises(UserError, match="check_vma=False"):
        step(True)
