"""Trace-time validation of a loss's inputs, masks, and the mean over examples.

Every loss starts with `prepare` and ends with `masked`. Reduction to a mean happens in `mean` and
nowhere else in the package.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxrobust.errors import UserError, check

Scalar = float | jax.Array
"""A hyper-parameter: a number, or an array [], perhaps traced."""


LOWEST = -1e15
"""Logits at or below this, -inf among them, rule their class out; its square is finite."""

_TOLERANCE = 1e-2  # of the sum of a label distribution, which may be in half precision


def prepare(
    logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns logits and labels, checked and ready to compute with.

    Half precision is promoted to float32; logits below `LOWEST` are raised to it. Rows that `where`
    leaves out are replaced by harmless ones *before* anything is computed: a NaN there reaches
    neither value nor gradient.

    Args:
      logits: floating `[..., K]`, K >= 2.
      labels: integer `[...]` or floating `[..., K]`.
      where: None or bool `[...]`.

    Returns:
      Logits `[..., K]`, and labels: indices int32 `[...]`, K for one outside 0…K-1, or
      distributions `[..., K]`. `expect` takes both.

    Raises:
      UserError: shapes or dtypes do not fit (the message holds both shapes); or the labels are
        concrete, and an index is outside 0…K-1 or a distribution does not sum to one.
    """
    given = labels, where
    logits, labels = _array("logits", logits), _array("labels", labels)
    swapped = logits.ndim < labels.ndim or (not _floating(logits) and _floating(labels))
    hint = " Are logits and labels swapped?" if swapped else ""
    check(
        logits.ndim >= 1 and logits.shape[-1] >= 2 and _floating(logits),
        f"logits must be floating [..., K] with K >= 2; got {logits.dtype}{list(logits.shape)}."
        + hint,
    )
    classes = logits.shape[-1]
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    whole = jnp.issubdtype(labels.dtype, jnp.integer)
    if whole:
        same_shape("integer labels", labels, logits.shape[:-1], "logits", logits.shape)
    else:
        check(
            _floating(labels),
            f"labels must be integers [...] or floats [..., K]; got {labels.dtype}.",
        )
        same_shape("label distributions", labels, logits.shape, "logits", logits.shape)
    if where is not None:
        where = jnp.asarray(where)
        same_shape("where", where, logits.shape[:-1], "logits", logits.shape)
        check(where.dtype == jnp.bool_, f"where must be bool; got {where.dtype}.")
    _check_values(*given, classes)
    logits = jnp.maximum(logits, LOWEST)
    if whole:
        # Small types cannot hold K: they are widened before anything is compared.
        labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
        labels = jnp.where((labels >= 0) & (labels < classes), labels, classes).astype(jnp.int32)
    else:
        labels = labels.astype(logits.dtype)
    if where is None:
        return logits, labels
    harmless = jnp.zeros((), jnp.int32) if whole else jnp.asarray(1 / classes, logits.dtype)
    kept = where if whole else where[..., None]
    return jnp.where(where[..., None], logits, 0), jnp.where(kept, labels, harmless)


def _array(name: str, value: ArrayLike) -> jax.Array:
    """Returns a JAX array. Raises `UserError` for texts, None and other objects."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        kind = getattr(value, "dtype", type(value).__name__)
        raise UserError(f"{name} must be an array of numbers; got {kind}.") from None


def _floating(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _check_values(labels: ArrayLike, where: ArrayLike | None, classes: int) -> None:
    """Raises `UserError` for labels that no example can have, where they are concrete."""
    if isinstance(labels, Tracer) or isinstance(where, Tracer):
        return
    labels = np.asarray(labels)
    kept = np.ones((), bool) if where is None else np.asarray(where)
    if np.issubdtype(labels.dtype, np.integer):
        wrong = ((labels < 0) | (labels >= classes)) & kept
        if wrong.any():
            row, value = _first(wrong, labels)
            raise UserError(
                f"labels must be in 0…{classes - 1}, as logits have {classes} classes; {row} is"
                f" {value}. Pass where= to leave rows out."
            )
    else:
        total = labels.astype(np.float64).sum(-1)
        wrong = (np.abs(total - 1) > _TOLERANCE) & kept
        if wrong.any():
            row, value = _first(wrong, total)
            raise UserError(
                f"label distributions must sum to 1; {row} sums to {value:.4g}."
                " Are logits and labels swapped?"
            )
        wrong = (labels.min(-1, initial=0) < -_TOLERANCE) & kept
        if wrong.any():
            row, _ = _first(wrong, total)
            raise UserError(f"label distributions must not be negative; {row} is.")


def _first(wrong: np.ndarray, values: np.ndarray) -> tuple[str, np.generic]:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"row {', '.join(map(str, index))}" if index else "the one given", values[index]


def expect(
    values: jax.Array, labels: jax.Array, function: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """Returns the label's expectation Σₖ tₖ f(vₖ): f(v_y) for an index y.

    Args:
      values: v, `[..., K]`.
      labels: as `prepare` returns them, `[...]` or `[..., K]`; an index K gives NaN, in value and
        gradient.
      function: f, elementwise; None is the identity. For an index it is computed for one class.

    Returns:
      `[...]`.
    """
    if labels.ndim == values.ndim:
        return jnp.sum(labels * (values if function is None else function(values)), axis=-1)
    value = pick(values, labels)
    return value if function is None else function(value)


def expect_log_p(
    logits: jax.Array, labels: jax.Array, function: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """Returns Σₖ tₖ f(log pₖ) with p = softmax(z): f(log p_y) for an index y.

    For an index one log-probability per example is computed, not K of them, and its gradient is
    in one pass over the logits.

    Args:
      logits: z, `[..., K]`, as `prepare` returns them.
      labels: as `expect`.
      function: f, elementwise; None is the identity.

    Returns:
      `[...]`.
    """
    if labels.ndim == logits.ndim:
        return expect(jax.nn.log_softmax(logits), labels, function)
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_p = pick(shifted, labels) - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    return log_p if function is None else function(log_p)


def pick(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the label's entry `[...]` of `values` `[..., K]`, for indices from `prepare`."""
    # A comparison and a sum fuse with what computes the values; a gather does not.
    value = jnp.sum(jnp.where(hits(labels, values.shape[-1]), values, 0), axis=-1)
    return value * jnp.where(labels < values.shape[-1], 1, jnp.nan).astype(values.dtype)


def hits(labels: jax.Array, classes: int) -> jax.Array:
    """Returns bool `[..., K]`: the entry is the label's, for indices `[...]` from `prepare`."""
    return jax.nn.one_hot(labels, classes, dtype=jnp.bool_)


def distribution(labels: jax.Array, like: jax.Array) -> jax.Array:
    """Returns labels from `prepare` as distributions `[..., K]`; NaN for an index K."""
    if labels.ndim == like.ndim:
        return labels
    one_hot = hits(labels, like.shape[-1]).astype(like.dtype)
    return jnp.where(labels[..., None] < like.shape[-1], one_hot, jnp.nan)


def total(values: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the sum `[...]` of `values` `[..., K]` over the classes that are not ruled out."""
    return jnp.sum(jnp.where(logits > LOWEST, values, 0), axis=-1)


def quotient(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Returns part / whole, `[...]`, of two sums of log-probabilities; both zero give zero.

    The whole is zero where all classes but one are ruled out.
    """
    return part / jnp.minimum(whole, -(jnp.finfo(whole.dtype).eps ** 2))


def masked(loss: jax.Array, where: ArrayLike | None = None) -> jax.Array:
    """Returns `loss` with zeros where `where` is False."""
    return loss if where is None else jnp.where(jnp.asarray(where), loss, 0)


def same_shape(name: str, array: jax.Array, shape: tuple, other: str, other_shape: tuple) -> None:
    """Raises `UserError` unless `array` has `shape`, which follows from `other`."""
    check(
        tuple(array.shape) == tuple(shape),
        f"{name} must have shape {list(shape)} to go with {other} {list(other_shape)};"
        f" got {list(array.shape)}.",
    )


def number(
    name: str,
    value: Scalar,
    like: jax.Array,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> jax.Array:
    """Returns the hyper-parameter `value` as a scalar of the dtype of `like`.

    The bounds are checked for plain numbers only: a traced value is not known yet.
    """
    if isinstance(value, (numbers.Number, np.generic)):
        fits = (
            (at_least is None or value >= at_least)
            and (at_most is None or value <= at_most)
            and (above is None or value > above)
            and (below is None or value < below)
        )
        bounds = [
            ("at least", at_least),
            ("at most", at_most),
            ("above", above),
            ("below", below),
        ]
        wanted = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
        check(fits, f"{name} must be {wanted}; got {value}.")
    scalar = jnp.asarray(value, like.dtype)
    check(scalar.ndim == 0, f"{name} must be one number; got shape {list(scalar.shape)}.")
    return scalar


def present_counts(class_counts: ArrayLike, like: jax.Array) -> jax.Array:
    """Returns class sizes `[K]` without zeros, for logits `like` `[..., K]`.

    A class absent from training is treated like the rarest class that is present: no logarithm
    or quotient of zero, and the margins of the others are the same as without it.
    """
    counts = jnp.asarray(class_counts, like.dtype)
    same_shape("class_counts", counts, like.shape[-1:], "logits", like.shape)
    rarest = jnp.min(jnp.where(counts > 0, counts, jnp.inf))
    return jnp.maximum(counts, jnp.where(jnp.isfinite(rarest), rarest, 1))


def mean(
    losses: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    divisor: ArrayLike | None = None,
) -> jax.Array:
    """Mean of per-example losses: Σ wᵢ ℓᵢ / divisor.

    Weights enter the sum only. Without `divisor` it is the number of examples that `where`
    keeps (all of them if it is None, one if it keeps none), *not* the sum of the weights: so
    does CurveNet's released program. Pass `divisor=weights.sum()` for a weighted average, or
    the global batch size when the batch is spread over devices.

    Args:
      losses: `[...]`.
      weights: None or `[...]`, the same shape.
      where: None or bool `[...]`, the same shape; what is left out may be NaN.
      divisor: None or a scalar.

    Returns:
      A scalar.

    Raises:
      UserError: the shapes differ (`[B]` against `[B, 1]` is an error, not `[B, B]`).

    Example:
      >>> print(mean(jnp.array([1.0, 3.0]), weights=jnp.array([0.5, 0.5])))
      1.0
    """
    losses = jnp.asarray(losses)
    where, weights = _like("where", where, losses), _like("weights", weights, losses)
    total = masked(losses, where)
    if weights is not None:
        total = total * masked(weights, where)
    if divisor is None:
        divisor = losses.size if where is None else jnp.maximum(jnp.sum(where), 1)
    return jnp.sum(total) / divisor


def _like(name: str, array: ArrayLike | None, losses: jax.Array) -> Any:
    if array is not None:
        array = jnp.asarray(array)
        same_shape(name, array, losses.shape, "losses", losses.shape)
    return array
