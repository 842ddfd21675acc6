"""The gradient of a meta-loss, some optimizer steps ahead, for the parameters of the inner loss.

Symbols: theta `params`, phi `meta_params`, L inner loss, M meta-loss, K look-ahead steps,
U(g, theta) one step of the optimizer with gradient g. With theta_0 = theta,

    theta_k = U(grad_theta L(theta_{k-1}, phi), theta_{k-1}),    wanted is    d M(theta_K) / d phi.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust.errors import UserError, check, choose

NUDGE = 1e-15  # Its square is still a normal number in float32.
UNROLLED = 3  # more look-ahead steps than these are compiled as a scan

Frozen = Callable[[str], bool]
"""`frozen(path) -> bool`, True for parameters to leave alone; a path is "stage1/conv/kernel"."""


Found = tuple[tuple[Any, jax.Array], Any, tuple[jax.Array, Any]]
"""(the gradient, the meta-loss), theta_K, (loss, aux) of the first look-ahead step."""


class LookAhead(NamedTuple):
    """Two losses, an optimizer, and what it may move.

    Attributes:
      inner_loss: `(params, meta_params, batch) -> (loss, aux)`.
      meta_loss: `(params, meta_batch, meta_params) -> loss`.
      optimizer: optax.
      frozen: predicate on parameter paths, see `hypergradient`; None: none is frozen.
      axis_name: of the `pmap` over whose devices gradients are summed, or None.
      per_step: whether the leaves of a batch have a leading axis of steps.
      direct_term: whether the meta-loss reads the meta-parameters itself.
    """

    inner_loss: Callable[[Any, Any, Any], tuple[jax.Array, Any]]
    meta_loss: Callable[[Any, Any, Any], jax.Array]
    optimizer: optax.GradientTransformation
    frozen: Frozen | None
    axis_name: str | None
    per_step: bool = False
    direct_term: bool = False

    def gradient(self, params: Any, meta_params: Any, batch: Any) -> tuple[Any, Any]:
        """Returns (loss, aux) and grad_theta L, zero where frozen."""

        def loss(params: Any) -> Any:
            return self.inner_loss(stop(params, self.frozen), meta_params, batch)

        found, grads = jax.value_and_grad(loss, has_aux=True)(params)
        return found, self.sum(grads)

    def meta_gradient(
        self, params: Any, meta_batch: Any, meta_params: Any
    ) -> tuple[jax.Array, Any, Any]:
        """Returns M, grad_theta M, zero where frozen, and grad_phi M, None without direct term."""

        def loss(params: Any, meta_params: Any) -> Any:
            return self.meta_loss(stop(params, self.frozen), meta_batch, meta_params)

        which = (0, 1) if self.direct_term else (0,)
        value, grads = jax.value_and_grad(loss, which)(params, meta_params)
        return value, self.sum(grads[0]), grads[1] if self.direct_term else None

    def move(
        self,
        grads: Any,
        opt_state: Any,
        params: Any,
        value: jax.Array,
        value_fn: Callable[[Any], jax.Array],
    ) -> tuple[Any, Any]:
        """Returns U(grads, params), frozen parameters unchanged, and the optimizer's state.

        Optimizers that ask for optax's extra arguments get `value`, the loss at `params`,
        `grad`, and `value_fn(params)`, the loss elsewhere.

        Gradients that are exactly zero, as of an input that never fires or where the look-ahead
        starts at weights of zero, are nudged: at zero itself Adam's square root and a clipped norm
        have no derivative, and reverse mode makes NaN of it. Values change by less than rounding.
        """
        grads = jax.tree.map(lambda g: g + jnp.where(g == 0, NUDGE, 0).astype(g.dtype), grads)
        updates, opt_state = update(self.optimizer, grads, opt_state, params, value, value_fn)
        return keep(params, optax.apply_updates(params, updates), self.frozen), opt_state

    def run(
        self, steps: int, meta_params: Any, params: Any, opt_state: Any, batch: Any
    ) -> tuple[Any, Any, Any]:
        """Returns theta_K, the optimizer's state, and (loss, aux) of the first step.

        More than one step are rematerialized: each keeps only its parameters for the backward
        pass and runs again there. More than `UNROLLED` steps are compiled as one step and a scan.
        """

        def one(params: Any, opt_state: Any, meta_params: Any, batch: Any) -> Any:
            found, grads = self.gradient(params, meta_params, batch)
            return *self.move(
                grads, opt_state, params, self.sum(found[0]), self.value_fn(meta_params, batch)
            ), found

        def at(i: int) -> Any:
            return jax.tree.map(lambda leaf: leaf[i], batch) if self.per_step else batch

        one = jax.checkpoint(one) if steps > 1 else one
        params, opt_state, first = one(params, opt_state, meta_params, at(0))
        if steps <= UNROLLED:
            for i in range(1, steps):
                params, opt_state, _ = one(params, opt_state, meta_params, at(i))
            return params, opt_state, first

        def body(carry: Any, given: Any) -> Any:
            after = one(*carry, meta_params, given if self.per_step else batch)[:2]
            return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, carry), None

        rest = jax.tree.map(lambda leaf: leaf[1:steps], batch) if self.per_step else None
        start = jax.tree.map(jnp.asarray, (params, opt_state))
        (params, opt_state), _ = jax.lax.scan(body, start, rest, length=steps - 1)
        return params, opt_state, first

    def value_fn(self, meta_params: Any, batch: Any) -> Callable[[Any], jax.Array]:
        """Returns L as a function of theta alone, summed over devices."""
        return lambda params: self.sum(self.inner_loss(params, meta_params, batch)[0])

    def sum(self, tree: Any) -> Any:
        """Returns the sum over devices."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)


def update(
    optimizer: optax.GradientTransformation,
    grads: Any,
    opt_state: Any,
    params: Any,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array] | None,
) -> tuple[Any, Any]:
    """Returns the updates of an optimizer and its state, with the extra arguments that optax names.

    Raises:
      UserError: the optimizer asks for other arguments (a Hessian's, as sophia).
    """
    extra: dict[str, Any] = {"value": value, "grad": grads}
    if value_fn is not None:
        extra["value_fn"] = value_fn
    try:
        return optax.with_extra_args_support(optimizer).update(grads, opt_state, params, **extra)
    except AttributeError as error:
        raise UserError(
            f"The optimizer asks for parameters of another kind ({str(error).splitlines()[0]}), as "
            "optax.lookahead does: use one that takes any parameters."
        ) from error
    except (TypeError, ValueError) as error:
        if "argument" not in str(error) and "must be provided" not in str(error):
            raise
        raise UserError(
            "The optimizer asks for arguments that a bilevel step does not have "
            f"({str(error).splitlines()[0]}): use one that needs gradient and value alone."
        ) from error


def check_differentiable(optimizer: optax.GradientTransformation) -> None:
    """Differentiates five steps of the optimizer for their gradients, on two numbers.

    Raises:
      UserError: the derivative is NaN (as of radam, whose first steps select between branches one
        of which is not a number), or cannot be taken (a line search).
    """
    name = "hypergradient: the look-ahead needs the derivative of the optimizer's update, "
    where = np.array([0.5, -0.3], np.float32)

    @jax.jit
    def slopes() -> Any:
        def value_fn(params: Any) -> jax.Array:
            return jnp.sum(params**2)

        params, found = jnp.asarray(where), []
        state = optimizer.init(params)
        for i in range(5):
            grads = 2 * params + 0.01 * i

            def moved(grads: Any, state: Any = state, params: Any = params) -> Any:
                return update(optimizer, grads, state, params, value_fn(params), value_fn)

            updates, pull, state = jax.vjp(moved, grads, has_aux=True)
            found.append(pull(jnp.ones_like(updates))[0])
            params = params + updates
        return jnp.stack(found)

    try:
        # Compiled ahead of time: this may run while something else is traced.
        finite = bool(np.isfinite(np.asarray(slopes.lower().compile()())).all())
    except UserError:
        raise
    except Exception as error:  # Of an update for other parameters, or with side effects: no word.
        if "everse-mode" not in str(error):
            return
        raise UserError(
            name + "which cannot be taken (it holds a loop of unknown length, as a "
            "line search does): use sgd, momentum or adam."
        ) from error
    check(
        finite,
        name + "which is not a number in its first steps: use another optimizer, such "
        "as sgd, momentum or adam.",
    )


def keep(before: Any, after: Any, frozen: Frozen | None) -> Any:
    """Returns `before` where frozen and `after` elsewhere."""
    if frozen is None:
        return after

    def pick(path: Any, old: Any, new: Any) -> Any:
        return old if frozen(jax.tree_util.keystr(path, simple=True, separator="/")) else new

    return jax.tree_util.tree_map_with_path(pick, before, after)


def stop(params: Any, frozen: Frozen | None) -> Any:
    """Returns the parameters, without gradient where frozen."""
    return params if frozen is None else keep(jax.lax.stop_gradient(params), params, frozen)


class Hypergradient(NamedTuple):
    """What one look-ahead finds.

    Attributes:
      grads: d meta-loss / d meta_params, of the same structure.
      meta_loss: [], at `params`; with `first_order` at the parameters before the last step.
      inner_loss: [], of the first look-ahead step, before it.
      params: theta_K.
      aux: what the inner loss returned with its value in the first look-ahead step, or None.
    """

    grads: Any
    meta_loss: jax.Array
    inner_loss: jax.Array
    params: Any
    aux: Any


def hypergradient(
    inner_loss: Callable[[Any, Any, Any], Any],
    meta_loss: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    steps: int = 1,
    mode: str = "exact",
    frozen: Frozen | None = None,
    has_aux: bool = False,
    axis_name: str | None = None,
    per_step: bool = False,
    direct_term: bool = False,
) -> Callable[[Any, Any, Any, Any, Any], Hypergradient]:
    """Returns `compute(meta_params, params, opt_state, batch, meta_batch) -> Hypergradient`.

    Mode `exact` is reverse mode through everything; `first_order` and `finite_difference`
    approximate, see the functions of these names. The approximations differentiate the last of
    K steps only; the first K - 1 are just done.

    Args:
      inner_loss: `(params, meta_params, batch) -> loss []`, or `-> (loss, aux)` with `has_aux`.
      meta_loss: `(params, meta_batch) -> loss []`; with `direct_term`
        `(params, meta_batch, meta_params) -> loss []`.
      has_aux: whether the inner loss returns (loss, aux).
      optimizer: any optax optimizer; its state is read and not changed. Gradients that are
        exactly zero are nudged, see `LookAhead.move`: at zero Adam has no derivative.
      steps: K, all on the same batch unless `per_step`. More than three are compiled as a scan: on
        CPU, XLA computes convolutions within one slowly.
      mode: exact, first_order or finite_difference.
      frozen: predicate on parameter paths ("stage1/conv/kernel"); where true, the look-ahead
        neither updates nor differentiates the parameter. None: no parameter is frozen.
      axis_name: of a `pmap` over shards of both batches. The losses are then each device's share
        of the total: summed over devices they give the loss.
      per_step: every leaf of `batch` has a leading axis of K: a batch for each look-ahead step.
      direct_term: the meta-loss reads the meta-parameters itself; the gradient has that term too.

    Raises:
      UserError: unknown mode, fewer than one step; when traced: no path leads from the
        meta-parameters to the meta-loss, so that the gradient would be zero for ever.

    Example:
      >>> def inner(w, phi, batch): return phi * w**2 / 2      # w' = w - 0.1 phi w = 0.9
      >>> compute = hypergradient(inner, lambda w, batch: w**2 / 2, optax.sgd(0.1))
      >>> found = compute(1.0, 1.0, optax.sgd(0.1).init(1.0), None, None)
      >>> round(float(found.grads), 6)                         # w' * (-0.1 w)
      -0.09
    """
    by_mode = {"exact": exact, "first_order": first_order, "finite_difference": finite_difference}
    choose("hypergradient mode", mode, by_mode)
    check(steps >= 1, f"hypergradient: steps must be at least 1, not {steps}.")

    def loss_and_aux(params: Any, meta_params: Any, batch: Any) -> Any:
        found = inner_loss(params, meta_params, batch)
        return found if has_aux else (found, None)

    def outer_loss(params: Any, meta_batch: Any, meta_params: Any) -> jax.Array:
        return meta_loss(params, meta_batch, *((meta_params,) if direct_term else ()))

    ahead = LookAhead(loss_and_aux, outer_loss, optimizer, frozen, axis_name, per_step, direct_term)
    undifferentiated = 0 if mode == "exact" else steps - 1

    def compute(
        meta_params: Any, params: Any, opt_state: Any, batch: Any, meta_batch: Any
    ) -> Hypergradient:
        _check_axis(axis_name, batch)
        if mode != "first_order":
            check_differentiable(optimizer)
        if mode != "exact":  # An approximation may hide that nothing leads to the meta-loss.
            last = jax.tree.map(lambda leaf: leaf[-1:], batch) if per_step else batch
            given = (params, opt_state, last, meta_batch)
            jax.eval_shape(lambda phi: exact(ahead, 1, phi, *given)[0], meta_params)
        before = None
        if undifferentiated:
            params, opt_state, before = ahead.run(
                undifferentiated, meta_params, params, opt_state, batch
            )
            if per_step:
                batch = jax.tree.map(lambda leaf: leaf[undifferentiated:], batch)
        (grads, value), params, first = by_mode[mode](
            ahead, steps - undifferentiated, meta_params, params, opt_state, batch, meta_batch
        )
        inner, aux = before or first
        grads, value, inner = ahead.sum((grads, value, inner))
        return Hypergradient(grads, value, inner, params, aux)

    return compute


def _check_axis(axis_name: str | None, batch: Any) -> None:
    """Refuses `jax.shard_map` with its `check_vma=True`, under which JAX sums gradients itself."""

    def axes(leaf: Any) -> Any:
        kind = jax.typeof(leaf)  # Newer versions of JAX keep the axes one level deeper.
        return getattr(getattr(kind, "manual_axis_type", kind), "varying", getattr(kind, "vma", ()))

    leaves = [] if axis_name is None else jax.tree.leaves(batch)
    varying = any(axis_name in axes(leaf) for leaf in leaves)
    check(
        not varying,
        f"axis_name={axis_name!r}: under jax.shard_map pass check_vma=False; with "
        "check_vma=True JAX sums the gradients over devices a second time.",
    )


def exact(
    ahead: LookAhead,
    steps: int,
    meta_params: Any,
    params: Any,
    opt_state: Any,
    batch: Any,
    meta_batch: Any,
) -> Found:
    """d M(theta_K) / d phi by reverse mode through the look-ahead.

    Returns:
      (this device's part of the gradient, M), theta_K, (loss, aux) of the first step.
    """

    def meta_loss(meta_params: Any) -> Any:
        moved, _, first = ahead.run(steps, meta_params, params, opt_state, batch)
        return ahead.meta_loss(moved, meta_batch, meta_params), (moved, first)

    (value, (moved, first)), grads = connected_value_and_grad(meta_loss, meta_params)
    return (grads, value), moved, first


def first_order(
    ahead: LookAhead,
    steps: int,
    meta_params: Any,
    params: Any,
    opt_state: Any,
    batch: Any,
    meta_batch: Any,
) -> Found:
    """d/dphi of M's tangent at theta, M(theta) + <grad M(theta), theta_1 - theta>.

    Right up to a relative error of the order of the learning rate. Where the optimizer is linear
    in the gradient, as SGD with momentum, nothing needs the look-ahead's backward pass: it falls
    away when compiled. Returns as `exact`.
    """
    value, v, direct = ahead.meta_gradient(params, meta_batch, meta_params)
    devices = ahead.sum(1)  # Each of them holds the whole tangent, and takes its share.

    def tangent(meta_params: Any) -> Any:
        moved, _, first = ahead.run(steps, meta_params, params, opt_state, batch)
        return optax.tree.vdot(v, moved) / devices, (moved, first)

    (_, (moved, first)), grads = connected_value_and_grad(tangent, meta_params)
    return (_plus(grads, direct), value), moved, first


def finite_difference(
    ahead: LookAhead,
    steps: int,
    meta_params: Any,
    params: Any,
    opt_state: Any,
    batch: Any,
    meta_batch: Any,
) -> Found:
    """The mixed derivative as a central difference of two first ones.

    With v = grad M(theta_1) and u = (dU/dg)^T v, exactly d M / d phi = d/dphi <grad_theta L, u>;
    approximately (grad_phi L(theta + e u) - grad_phi L(theta - e u)) / 2e. No second derivative
    is taken; the error is of order e^2, with e |u| = twice the cube root of the machine's
    precision: 0.01 in float32. Returns as `exact`.

    Source: DARTS, Liu et al. 2019, arXiv 1806.09055, equation 8; here for any optimizer.
    """
    if ahead.per_step:
        batch = jax.tree.map(lambda leaf: leaf[0], batch)
    first, g = ahead.gradient(params, meta_params, batch)
    extra = (ahead.sum(first[0]), ahead.value_fn(meta_params, batch))
    moved, pull = jax.vjp(lambda g: ahead.move(g, opt_state, params, *extra)[0], g)
    value, v, direct = ahead.meta_gradient(moved, meta_batch, meta_params)
    u = keep(jax.tree.map(jnp.zeros_like, params), pull(v)[0], ahead.frozen)
    size = optax.tree.norm(u)
    e = 2 * jnp.cbrt(jnp.finfo(size.dtype).eps) / jnp.where(size > 0, size, 1)

    def slope(e: jax.Array) -> Any:
        at = jax.tree.map(lambda p, d: p + (e * d).astype(p.dtype), params, u)
        return jax.grad(ahead.inner_loss, argnums=1, has_aux=True)(at, meta_params, batch)[0]

    grads = jax.tree.map(lambda a, b: (a - b) / (2 * e), slope(e), slope(-e))
    return (_plus(grads, direct), value), moved, first


def _plus(grads: Any, direct: Any | None) -> Any:
    return grads if direct is None else jax.tree.map(jnp.add, grads, direct)


def connected_value_and_grad(
    function: Callable[[Any], tuple[jax.Array, Any]], meta_params: Any
) -> tuple[Any, Any]:
    """`jax.value_and_grad(function, has_aux=True)(meta_params)`, if there is a gradient at all.

    JAX calls the derivative rule of `watch` only if a tangent arrives: a symbolic zero does not.

    Raises:
      UserError: none arrived, so that the gradient is zero whatever the numbers.
    """
    arrived = []
    watch = jax.custom_jvp(lambda x: x)

    @watch.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        arrived.append(True)
        return primals[0], tangents[0]

    def watched(meta_params: Any) -> Any:
        value, aux = function(meta_params)
        return watch(value), aux

    found = jax.value_and_grad(watched, has_aux=True)(meta_params)
    check(
        bool(arrived),
        "The meta-gradient is zero: nothing leads from the meta-parameters through the look-ahead "
        "to the meta-loss. Check that the objective's loss depends on both its parameters and the "
        "logits (no stop_gradient, argmax or rounding on the way), that the look-ahead moves some "
        "parameter (skip, frozen), that the optimizer's update depends on the gradient's size, and "
        "that the meta-loss depends on the network.",
    )
    return found
