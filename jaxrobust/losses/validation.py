"""What every loss does first (check, promote, mask) and last (mask again, reduce).

Reduction to a mean happens in `mean` and nowhere else in the package.
"""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxrobust.errors import check

Scalar = float | jax.Array
"""A hyper-parameter: a number, or an array [], perhaps traced."""


def prepare(logits, labels, where=None) -> tuple[jax.Array, jax.Array]:
    """Returns logits and label distributions, both `[..., K]`, ready to compute with.

    Half precision is promoted to float32. Class indices become one-hot rows, so an index and
    its one-hot distribution go the same way; an index outside 0…K-1 becomes a row of NaN, so
    that the loss says so at once. Rows that `where` leaves out are replaced by
    harmless ones *before* anything is computed: a NaN there reaches neither value nor gradient.

    Args:
      logits: floating `[..., K]`, K >= 2.
      labels: integer `[...]` or floating `[..., K]`.
      where: None or bool `[...]`.

    Raises:
      UserError: shapes or dtypes do not fit; the message holds both shapes.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check(
        logits.ndim >= 1 and logits.shape[-1] >= 2 and jnp.issubdtype(logits.dtype, jnp.floating),
        f"logits must be floating [..., K] with K >= 2; got {logits.dtype}{list(logits.shape)}.",
    )
    classes = logits.shape[-1]
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if jnp.issubdtype(labels.dtype, jnp.integer):
        same_shape("integer labels", labels, logits.shape[:-1], "logits", logits.shape)
        known = (labels >= 0) & (labels < classes)
        one_hot = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
        targets = jnp.where(known[..., None], one_hot, jnp.nan)
    else:
        check(
            jnp.issubdtype(labels.dtype, jnp.floating),
            f"labels must be integers [...] or floats [..., K]; got {labels.dtype}.",
        )
        same_shape("label distributions", labels, logits.shape, "logits", logits.shape)
        targets = labels.astype(logits.dtype)
    if where is None:
        return logits, targets
    where = jnp.asarray(where)
    same_shape("where", where, logits.shape[:-1], "logits", logits.shape)
    check(where.dtype == jnp.bool_, f"where must be bool; got {where.dtype}.")
    logits = jnp.where(where[..., None], logits, 0)
    return logits, jnp.where(where[..., None], targets, 1 / classes)


def masked(loss: jax.Array, where=None) -> jax.Array:
    """Returns `loss` with zeros where `where` is False."""
    return loss if where is None else jnp.where(jnp.asarray(where), loss, 0)


def same_shape(name: str, array, shape: tuple, other: str, other_shape: tuple) -> None:
    """Raises `UserError` unless `array` has `shape`, which follows from `other`."""
    check(
        tuple(array.shape) == tuple(shape),
        f"{name} must have shape {list(shape)} to go with {other} {list(other_shape)};"
        f" got {list(array.shape)}.",
    )


def number(name: str, value, like: jax.Array, *, at_least=None, above=None, below=None):
    """Returns the hyper-parameter `value` as a scalar of the dtype of `like`.

    The bounds are checked for plain numbers only: a traced value is not known yet.
    """
    if isinstance(value, (numbers.Number, np.generic)):
        fits = (
            (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (below is None or value < below)
        )
        bounds = [("at least", at_least), ("above", above), ("below", below)]
        wanted = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
        check(fits, f"{name} must be {wanted}; got {value}.")
    scalar = jnp.asarray(value, like.dtype)
    check(scalar.ndim == 0, f"{name} must be one number; got shape {list(scalar.shape)}.")
    return scalar


def present_counts(class_counts, like: jax.Array) -> jax.Array:
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


def _like(name: str, array, losses):
    if array is not None:
        array = jnp.asarray(array)
        same_shape(name, array, losses.shape, "losses", losses.shape)
    return array
