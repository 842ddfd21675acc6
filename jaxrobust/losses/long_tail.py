"""Losses and weights for classes of unequal size.

`class_counts` `[K]` are the training examples of each given class; a class with none is treated
like the rarest class present (see `validation.present_counts`). A label distribution t enters the
cross-entropy of the adjusted logits as it is.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.errors import check
from jaxrobust.losses.validation import (
    Scalar,
    distribution,
    expect_log_p,
    masked,
    number,
    prepare,
    present_counts,
)


def label_distribution_aware_margin(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_counts: ArrayLike,
    max_margin: Scalar = 0.5,
    scale: Scalar = 30.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy of s · (z − t ⊙ Δ), margins Δₖ = C / nₖ^¼ with C such that max Δ = max_margin.

    Meant for normalized logits (cosines of features and class weights).
    Source: Cao et al. 2019 (LDAM), arXiv 1906.07413.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      class_counts: `[K]`, training examples of each given class.
      max_margin, scale: 0.5 and 30 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    max_margin, scale = number("max_margin", max_margin, z), number("scale", scale, z, above=0)
    counts = present_counts(class_counts, z)
    margins = max_margin * (jnp.min(counts) / counts) ** 0.25
    shifted = scale * (z - distribution(t, z) * jnp.broadcast_to(margins, z.shape))
    return masked(-expect_log_p(shifted, t), where)


def logit_adjusted(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_counts: ArrayLike,
    tau: Scalar = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy of z + τ log π, π the class frequencies.

    Source: Menon et al. 2021, arXiv 2007.07314.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      class_counts: `[K]`, training examples of each given class.
      tau: 1, for which the loss is consistent for the balanced error.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    tau = number("tau", tau, z)
    counts = present_counts(class_counts, z)
    shift = tau * jnp.log(counts / jnp.sum(counts))
    return masked(-expect_log_p(z + jnp.broadcast_to(shift, z.shape), t), where)


def balanced_softmax(
    logits: ArrayLike, labels: ArrayLike, *, class_counts: ArrayLike, where: ArrayLike | None = None
) -> jax.Array:
    """Cross-entropy of the softmax weighted by class size, nₖ exp(zₖ) / Σⱼ nⱼ exp(zⱼ).

    Equal to `logit_adjusted` with τ = 1. Source: Ren et al. 2020, arXiv 2007.10740.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      class_counts: `[K]`, training examples of each given class.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    return logit_adjusted(logits, labels, class_counts=class_counts, tau=1.0, where=where)


def effective_number_weights(class_counts: ArrayLike, beta: Scalar = 0.9999) -> jax.Array:
    """Class weights (1 − β)/(1 − β^nₖ), normalized to sum K.

    Source: Cui et al. 2019, arXiv 1901.05555.

    Args:
      class_counts: `[K]`.
      beta: at least 0 and below 1; 0 gives equal weights, β → 1 the inverse of the class size.

    Returns:
      `[K]`, at least float32.

    Raises:
      UserError: `class_counts` is not `[K]`, or beta is out of range.

    Example:
      >>> print(effective_number_weights(jnp.array([100, 100]), beta=0.99))
      [1. 1.]
    """
    counts = jnp.asarray(class_counts)
    check(counts.ndim == 1, f"class_counts must be [K]; got shape {list(counts.shape)}.")
    like = jnp.zeros(counts.shape, jnp.promote_types(counts.dtype, jnp.float32))
    counts = present_counts(counts, like)
    if not isinstance(beta, jax.Array):  # in double precision: 1 − β is small
        number("beta", beta, like, at_least=0, below=1)
        log_beta = math.log(max(beta, 1e-30))
    else:
        log_beta = jnp.log(jnp.maximum(beta, 1e-30))
    weights = -1 / jnp.expm1(counts * log_beta)  # (1 − β) cancels in the next line
    return weights * counts.size / jnp.sum(weights)


def deferred_weights(epoch: Scalar, start_epoch: Scalar, class_weights: ArrayLike) -> jax.Array:
    """Deferred re-weighting (DRW): ones before `start_epoch`, then `class_weights` `[K]`.

    Source: Cao et al. 2019, arXiv 1906.07413.

    Args:
      epoch: shape [], from 0; may be traced.
      start_epoch: the first epoch with weights.
      class_weights: `[K]`, see `effective_number_weights`.

    Returns:
      `[K]`.

    Example:
      >>> print(deferred_weights(79, 80, jnp.array([0.5, 1.5])))
      [1. 1.]
    """
    class_weights = jnp.asarray(class_weights)
    return jnp.where(epoch >= start_epoch, class_weights, jnp.ones_like(class_weights))
