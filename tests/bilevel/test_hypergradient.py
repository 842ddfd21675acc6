"""The hypergradient: two ways to one derivative, closed forms, approximations, zero gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import losses
from jaxrobust.bilevel import hypergradient
from jaxrobust.errors import UserError

OPTIMIZERS = {
    "sgd": optax.sgd(0.3),
    "momentum": optax.sgd(0.3, momentum=0.9),
    "nesterov and weight decay": optax.chain(
        optax.add_decayed_weights(0.01), optax.sgd(0.3, momentum=0.9, nesterov=True)
    ),
    "adam": optax.adam(0.05),
    "clipping and schedule": optax.chain(
        optax.clip_by_global_norm(0.1), optax.sgd(optax.cosine_decay_schedule(0.5, 10), 0.9)
    ),
}
MODES = ["exact", "first_order", "finite_difference"]


class Problem:
    """A network with batch norm, a loss weighted by phi, and an optimizer that has moved."""

    def __init__(self, toy, optimizer, activation=jax.nn.relu):
        network = toy.make_network(activation=activation)
        self.batch, self.meta_batch = toy.make_batches()
        self.phi = np.linspace(-1.0, 1.0, len(self.batch["labels"]), dtype=self.batch["x"].dtype)
        self.optimizer, self.jit = optimizer, toy.jit

        @toy.jit
        def start():
            params, state = network.init(jax.random.key(1), self.batch["x"])
            opt_state = optimizer.init(params)
            for shift in (1.0, 2.0):
                grads = jax.tree.map(lambda p, s=shift: 0.1 * jnp.cos(p + s), params)
                _, opt_state = optimizer.update(grads, opt_state, params)
            return params, state, opt_state

        self.params, state, self.opt_state = start()
        self.inner = functools.partial(toy.weighted_cross_entropy, network=network, state=state)

        def meta(params, batch):
            logits, _ = network.apply(params, state, batch["x"], True)
            return jnp.mean(losses.cross_entropy(logits, batch["labels"]))

        self.meta = meta

    def compute(self, **options):
        compute = self.jit(hypergradient(self.inner, self.meta, self.optimizer, **options))
        return compute(self.phi, self.params, self.opt_state, self.batch, self.meta_batch)

    def ahead(self, phi, steps=1):
        """Meta-loss after `steps` steps, written down plainly."""
        params, opt_state = self.params, self.opt_state
        for _ in range(steps):
            grads = jax.grad(self.inner)(params, phi, self.batch)
            updates, opt_state = self.optimizer.update(grads, opt_state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return self.meta(params, self.meta_batch)

    def differences(self, steps=1, e=1e-5):
        """Meta-loss after the steps, and its central finite differences."""
        eye = e * np.eye(len(self.phi))
        points = np.concatenate([np.zeros((1, len(eye))), eye, -eye]) + np.asarray(self.phi)[None]
        value = np.asarray(self.jit(jax.vmap(functools.partial(self.ahead, steps=steps)))(points))
        up, down = np.split(value[1:], 2)
        return value[0], (up - down) / (2 * e)


@pytest.mark.parametrize(
    "name,steps",
    [
        ("nesterov and weight decay", 1),
        ("adam", 1),
        ("clipping and schedule", 1),
        ("momentum", 2),
        ("momentum", 5),
    ],
)
def test_exact_equals_central_differences(toy, x64, name, steps):
    problem = Problem(toy, OPTIMIZERS[name])
    found = problem.compute(steps=steps)
    meta_loss, differences = problem.differences(steps)
    assert np.all(np.abs(found.grads) > 1e-9)
    np.testing.assert_allclose(found.grads, differences, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.meta_loss, meta_loss, rtol=1e-12)


def test_losses_and_parameters_are_those_of_the_look_ahead(toy, x64):
    problem = Problem(toy, OPTIMIZERS["adam"])
    found = problem.compute()

    @toy.jit
    def plain(params, opt_state):
        inner, grads = jax.value_and_grad(problem.inner)(params, problem.phi, problem.batch)
        return inner, optax.apply_updates(params, problem.optimizer.update(grads, opt_state)[0])

    inner, expected = plain(problem.params, problem.opt_state)
    np.testing.assert_allclose(found.inner_loss, inner, rtol=1e-12)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_reverse_equals_forward_mode(toy, x64, steps):
    problem = Problem(toy, OPTIMIZERS["adam"])
    forward = toy.jit(jax.jacfwd(functools.partial(problem.ahead, steps=steps)))(problem.phi)
    np.testing.assert_allclose(problem.compute(steps=steps).grads, forward, rtol=1e-9)


def test_reverse_equals_forward_over_reverse(toy, x64):
    """d M/d phi = d/dphi of the derivative of L along u = (dU/dg)^T grad M."""
    problem = Problem(toy, OPTIMIZERS["nesterov and weight decay"])
    found = problem.compute()

    def along(phi):
        v = jax.grad(problem.meta)(found.params, problem.meta_batch)
        u = jax.tree.map(lambda v: -0.3 * (1 + 0.9) * v, v)
        inner = functools.partial(problem.inner, phi=phi, batch=problem.batch)
        return jax.jvp(lambda p: inner(p), (problem.params,), (u,))[1]

    np.testing.assert_allclose(found.grads, toy.jit(jax.grad(along))(problem.phi), rtol=1e-9)


def ridge(seed=0, n=12, d=4, penalty=0.3):
    rng = np.random.default_rng(seed)
    x, y, weights = rng.normal(size=(n, d)), rng.normal(size=n), rng.uniform(0.5, 1.5, n)
    meta_x, meta_y = rng.normal(size=(n, d)), rng.normal(size=n)
    hessian = (x.T * weights) @ x + penalty * np.eye(d)
    theta = np.linalg.solve(hessian, (x.T * weights) @ y)

    def inner(theta, weights, batch):
        x, y = batch
        return 0.5 * jnp.sum(weights * (x @ theta - y) ** 2) + 0.5 * penalty * theta @ theta

    def meta(theta, batch):
        return 0.5 * jnp.sum((batch[0] @ theta - batch[1]) ** 2)

    return inner, meta, hessian, theta, weights, (x, y), (meta_x, meta_y)


@pytest.mark.parametrize("mode", ["exact", "finite_difference"])
def test_weighted_ridge_regression_after_one_gradient_step(x64, mode):
    inner, meta, hessian, _, weights, (x, y), (meta_x, meta_y) = ridge()
    theta = np.ones(x.shape[1])
    gradient = (x.T * weights) @ (x @ theta - y) + 0.3 * theta
    ahead = theta - 0.01 * gradient
    expected = -0.01 * (x @ (meta_x.T @ (meta_x @ ahead - meta_y))) * (x @ theta - y)
    compute = hypergradient(inner, meta, optax.sgd(0.01), mode=mode)
    found = compute(
        *(jnp.asarray(a) for a in (weights, theta)),
        optax.sgd(0.01).init(theta),
        (x, y),
        (meta_x, meta_y),
    )
    np.testing.assert_allclose(found.grads, expected, rtol=1e-7)


def test_weighted_ridge_regression_at_its_solution(x64):
    """A Newton step from the solution: the derivative of the solution itself, -H^-1 x_i r_i."""
    inner, meta, hessian, theta, weights, batch, meta_batch = ridge()
    newton = optax.GradientTransformation(
        lambda params: (), lambda g, s, p: (-jnp.linalg.solve(jnp.asarray(hessian), g), s)
    )
    compute = hypergradient(inner, meta, newton)
    found = compute(jnp.asarray(weights), jnp.asarray(theta), (), batch, meta_batch)
    np.testing.assert_allclose(found.params, theta, rtol=1e-10)
    residual, meta_residual = batch[0] @ theta - batch[1], meta_batch[0] @ theta - meta_batch[1]
    pull = np.linalg.solve(hessian, meta_batch[0].T @ meta_residual)
    np.testing.assert_allclose(found.grads, -(batch[0] @ pull) * residual, rtol=1e-9)


@pytest.mark.parametrize("name", ["momentum", "adam", "clipping and schedule"])
def test_finite_difference_is_exact_but_for_its_small_error(toy, x64, name):
    problem = Problem(toy, OPTIMIZERS[name])
    exact, approximate = problem.compute(), problem.compute(mode="finite_difference")
    np.testing.assert_allclose(approximate.grads, exact.grads, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(approximate.meta_loss, exact.meta_loss, rtol=1e-12)
    np.testing.assert_allclose(approximate.inner_loss, exact.inner_loss, rtol=1e-12)


def test_finite_difference_in_float32(toy):
    problem = Problem(toy, OPTIMIZERS["momentum"], jnp.tanh)  # No kinks for 0.01 to step over.
    exact, approximate = problem.compute(), problem.compute(mode="finite_difference")
    assert exact.grads.dtype == approximate.grads.dtype == jnp.float32
    scale = np.abs(exact.grads).max()
    np.testing.assert_allclose(approximate.grads, exact.grads, atol=0.01 * scale)


def test_first_order_errs_by_the_order_of_the_learning_rate(toy, x64):
    def relative_error(rate):
        problem = Problem(toy, optax.sgd(rate))
        exact, first = problem.compute().grads, problem.compute(mode="first_order").grads
        return np.linalg.norm(first - exact) / np.linalg.norm(exact)

    errors = [relative_error(rate) for rate in (1e-2, 1e-3)]
    assert errors[0] < 0.1
    np.testing.assert_allclose(errors[0] / errors[1], 10, rtol=0.05)


def test_first_order_is_the_slope_of_the_tangent(toy, x64):
    problem = Problem(toy, OPTIMIZERS["adam"])

    def tangent(phi):
        v = jax.grad(problem.meta)(problem.params, problem.meta_batch)
        grads = jax.grad(problem.inner)(problem.params, phi, problem.batch)
        updates, _ = problem.optimizer.update(grads, problem.opt_state, problem.params)
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, v, updates)))

    found = problem.compute(mode="first_order")
    np.testing.assert_allclose(found.grads, toy.jit(jax.grad(tangent))(problem.phi), rtol=1e-9)
    meta = toy.jit(problem.meta)(problem.params, problem.meta_batch)
    np.testing.assert_allclose(found.meta_loss, meta, rtol=1e-12)


def test_approximations_differentiate_the_last_step_only(toy, x64):
    problem = Problem(toy, OPTIMIZERS["momentum"])
    whole = problem.compute(mode="finite_difference", steps=3)
    first = problem.compute(mode="finite_difference", steps=2)
    np.testing.assert_allclose(whole.inner_loss, first.inner_loss, rtol=1e-12)

    @toy.jit
    def plain(params, opt_state):
        grads = jax.grad(problem.inner)(params, problem.phi, problem.batch)
        updates, opt_state = problem.optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(2):
        problem.params, problem.opt_state = plain(problem.params, problem.opt_state)
    np.testing.assert_allclose(whole.grads, problem.compute().grads, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("mode", ["exact", "finite_difference"])
def test_held_parameters_are_constants(toy, x64, mode):
    # Clipping by the global norm must not see the gradients of what is frozen either.
    problem = Problem(toy, OPTIMIZERS["clipping and schedule"])
    found = problem.compute(frozen=lambda path: path.startswith("l1/"), mode=mode)
    for before, after in zip(
        jax.tree.leaves(problem.params["l1"]), jax.tree.leaves(found.params["l1"]), strict=True
    ):
        np.testing.assert_array_equal(before, after)

    def ahead(phi):
        def inner(top):
            return problem.inner(problem.params | {"l2": top}, phi, problem.batch)

        grads = jax.tree.map(jnp.zeros_like, problem.params) | {
            "l2": jax.grad(inner)(problem.params["l2"])
        }
        updates, _ = problem.optimizer.update(grads, problem.opt_state, problem.params)
        top = jax.tree.map(jnp.add, problem.params["l2"], updates["l2"])
        return problem.meta(problem.params | {"l2": top}, problem.meta_batch)

    expected = toy.jit(jax.grad(ahead))(problem.phi)
    np.testing.assert_allclose(found.grads, expected, rtol=1e-5, atol=1e-10)


def test_aux_is_what_the_first_look_ahead_step_saw(toy):
    problem = Problem(toy, OPTIMIZERS["sgd"])
    inner = problem.inner
    problem.inner = lambda p, phi, batch: (inner(p, phi, batch), p["l2"]["bias"])
    for options in ({"steps": 2}, {"steps": 2, "mode": "finite_difference"}):
        found = problem.compute(has_aux=True, **options)
        np.testing.assert_array_equal(found.aux, problem.params["l2"]["bias"])


def disconnect(problem, how):
    """Cuts one link of the chain; returns options for the hypergradient."""
    inner, meta = problem.inner, problem.meta
    if how == "the loss has no phi":
        problem.inner = lambda p, phi, b: inner(p, jnp.zeros_like(phi), b)
    elif how == "phi is stopped":
        problem.inner = lambda p, phi, b: inner(p, jax.lax.stop_gradient(phi), b)
    elif how == "phi only adds":
        problem.inner = lambda p, phi, b: inner(p, jnp.zeros_like(phi), b) + jnp.sum(phi**2)
    elif how == "the optimizer does nothing":
        problem.optimizer = optax.set_to_zero()
        problem.opt_state = problem.optimizer.init(problem.params)
    elif how == "the optimizer takes signs":
        problem.optimizer = optax.sign_sgd(0.1)
        problem.opt_state = problem.optimizer.init(problem.params)
    elif how == "everything is frozen":
        return {"frozen": lambda path: True}
    elif how == "the meta-loss has no network":
        problem.meta = lambda p, b: meta(jax.lax.stop_gradient(p), b)
    return {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "how",
    [
        "the loss has no phi",
        "phi is stopped",
        "phi only adds",
        "the optimizer does nothing",
        "the optimizer takes signs",
        "everything is frozen",
        "the meta-loss has no network",
    ],
)
def test_a_gradient_that_nothing_leads_to_is_an_error_when_traced(toy, mode, how):
    problem = Problem(toy, OPTIMIZERS["sgd"])
    options = disconnect(problem, how)
    compute = hypergradient(problem.inner, problem.meta, problem.optimizer, mode=mode, **options)
    with pytest.raises(UserError, match="meta-gradient is zero.*Check"):
        jax.eval_shape(
            compute,
            problem.phi,
            problem.params,
            problem.opt_state,
            problem.batch,
            problem.meta_batch,
        )


def linear_problem(dead):
    """Logistic regression weighted by phi [4]; `dead` columns of x are zero."""
    rng = np.random.default_rng(0)
    x, meta_x = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    x, meta_x = (np.pad(v, ((0, 0), (0, dead))).astype(np.float32) for v in (x, meta_x))
    sign = np.array([1, -1, 1, -1, 1], np.float32)

    def inner(w, phi, batch):
        return jnp.mean(phi * jax.nn.softplus(-sign[:4] * (batch @ w)))

    def meta(w, batch):
        return jnp.mean(jax.nn.softplus(-sign * (batch @ w)))

    return inner, meta, x, meta_x, jnp.zeros(3 + dead)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(0.05),
        optax.adamw(0.05),
        optax.rmsprop(0.05),
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["adam", "adamw", "rmsprop", "clip"],
)
def test_inputs_that_are_always_zero_change_nothing(optimizer, mode):
    """Their gradients are exactly zero, where Adam's square root has no derivative."""
    found = {}
    for dead in (0, 2):
        inner, meta, x, meta_x, w = linear_problem(dead)
        compute = hypergradient(inner, meta, optimizer, mode=mode)
        seen = jnp.pad(jnp.array([0.1, -0.2, 0.1]), (0, dead))  # Of the dead, nothing ever.
        _, opt_state = optimizer.update(seen, optimizer.init(w), w)
        phi = jnp.array([0.2, 0.4, 0.6, 0.8])
        found[dead] = jax.jit(compute)(phi, w, opt_state, x, meta_x)
    assert np.linalg.norm(found[0].grads) > 1e-4
    rtol = 5e-2 if mode == "finite_difference" else 1e-4
    np.testing.assert_allclose(found[2].grads, found[0].grads, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(found[2].params[:3], found[0].params, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(1e-9, eps=1e-6),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-3)),
    ],
    ids=["adam", "clip"],
)
def test_a_look_ahead_from_weights_of_zero_has_the_slope_at_zero(optimizer):
    """As in learning to reweight: there Adam is SGD with rate / eps, and nothing is clipped."""
    inner, meta, x, meta_x, w = linear_problem(0)
    phi = jnp.zeros(4)
    found, expected = (
        jax.jit(hypergradient(inner, meta, o))(phi, w, o.init(w), x, meta_x).grads
        for o in (optimizer, optax.sgd(1e-3))
    )
    assert np.linalg.norm(expected) > 1e-5
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_losses_compiled_and_rematerialised_inside_stay_connected(toy, mode):
    problem = Problem(toy, OPTIMIZERS["momentum"])
    expected = problem.compute(mode=mode)
    problem.inner = jax.jit(jax.checkpoint(problem.inner))
    problem.meta = jax.jit(problem.meta)
    found = problem.compute(mode=mode)
    np.testing.assert_allclose(found.grads, expected.grads, rtol=1e-3, atol=1e-6)


def test_wrong_use_is_told(toy):
    problem = Problem(toy, OPTIMIZERS["sgd"])
    with pytest.raises(UserError, match="Did you mean 'first_order'"):
        problem.compute(mode="firstorder")
    with pytest.raises(UserError, match="at least 1"):
        problem.compute(steps=0)


@pytest.mark.parametrize("steps", [1, 2])
def test_more_than_one_look_ahead_step_is_rematerialised(toy, steps):
    problem = Problem(toy, OPTIMIZERS["sgd"])
    compute = hypergradient(problem.inner, problem.meta, problem.optimizer, steps=steps)
    program = jax.make_jaxpr(compute)(
        problem.phi, problem.params, problem.opt_state, problem.batch, problem.meta_batch
    )
    names = [str(equation.primitive) for equation in program.eqns]
    assert any(name.startswith(("checkpoint", "remat")) for name in names) == (steps > 1)


@pytest.mark.parametrize("mode", ["exact", "first_order", "finite_difference"])
def test_a_meta_loss_that_reads_the_meta_parameters_has_that_term_too(x64, mode):
    """w' = w - a phi w, M = w'^2 / 2 + phi^3 w': dM/dphi = (w' + phi^3)(-a w) + 3 phi^2 w'."""
    w, phi, rate = 2.0, 0.5, 0.1
    compute = hypergradient(
        lambda w, phi, batch: phi * w**2 / 2,
        lambda w, batch, phi: w**2 / 2 + phi**3 * w,
        optax.sgd(rate),
        mode=mode,
        direct_term=True,
    )
    found = compute(jnp.asarray(phi), jnp.asarray(w), optax.sgd(rate).init(w), None, None)
    moved = w - rate * phi * w
    at = w if mode == "first_order" else moved  # M's slopes are taken where the look-ahead starts.
    np.testing.assert_allclose(
        found.grads, (at + phi**3) * (-rate * w) + 3 * phi**2 * at, rtol=1e-6
    )
