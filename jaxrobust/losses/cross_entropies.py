"""Cross-entropy and its robust relatives: functions of the probability of the given label.

Symbols, here and in the neighboring files: z logits `[..., K]`, p = softmax(z), t the label as a
distribution `[..., K]` (one-hot for an index y). A loss ℓ that is defined for an index only is
extended to distributions as the expectation Σₖ tₖ ℓ(z, k).
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.losses.box_cox import box_cox
from jaxrobust.losses.validation import (
    Scalar,
    expect,
    expect_log_p,
    masked,
    number,
    prepare,
    quotient,
    total,
)

_LOG_ZERO = 1e-4  # reverse cross-entropy: log 0 := log 1e-4, part of its definition
_UNROLLED = 64  # terms of a Taylor series up to which it is written out rather than looped over


def cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Cross-entropy −Σₖ tₖ log pₖ.

    Arguments, result and errors are those of every loss in this package.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` or distributions `[..., K]`. An index outside 0…K-1 gives NaN.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.

    Example:
      >>> print(round(float(cross_entropy(jnp.array([2.0, 0.0]), 0)), 4))
      0.1269
    """
    z, t = prepare(logits, labels, where)
    return masked(-expect_log_p(z, t), where)


def mean_absolute_error(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """½ Σₖ |pₖ − tₖ|, which is 1 − p_y for an index: half the L1 distance, as released.

    Symmetric: the sum over all labels is K − 1, whatever the logits.
    Source: Ghosh et al. 2017, arXiv 1712.09482 (there without the ½).

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    if t.ndim < z.ndim:
        return masked(-jnp.expm1(expect_log_p(z, t)), where)
    return masked(jnp.sum(jnp.abs(jax.nn.softmax(z) - t), axis=-1) / 2, where)


def reverse_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """−Σₖ pₖ log max(tₖ, 1e-4), which is −log(1e-4) · (1 − p_y) for an index.

    Symmetric. Source: Wang et al. 2019, arXiv 1908.06112.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    if t.ndim < z.ndim:
        miss = -jnp.expm1(expect_log_p(z, t))
        return masked(-math.log(_LOG_ZERO) * miss, where)
    return masked(-expect(jnp.log(jnp.maximum(t, _LOG_ZERO)), jax.nn.softmax(z)), where)


def normalized_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Σₖ tₖ log pₖ / Σₖ log pₖ, in [0, 1]: the sum over all labels is 1.

    Source: Ma et al. 2020, arXiv 2006.13554.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    log_p = jax.nn.log_softmax(z)
    return masked(quotient(expect(log_p, t), total(log_p, z)), where)


def generalized_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, q: Scalar = 0.7, where: ArrayLike | None = None
) -> jax.Array:
    """(1 − p_y^q)/q; q = 0 is cross-entropy (exactly, also when traced), q = 1 is 1 − p_y.

    Source: Zhang & Sabuncu 2018, arXiv 1805.07836.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      q: 0.7 (released; CIFAR-10 and CIFAR-100), 0.6 for WebVision.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.

    Example:
      >>> print(generalized_cross_entropy(jnp.zeros(4), 2, q=1.0))
      0.75
    """
    z, t = prepare(logits, labels, where)
    q = number("q", q, z, at_least=0)
    return masked(-expect_log_p(z, t, lambda v: box_cox(v, q)), where)


def symmetric_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 10.0,
    beta: Scalar = 0.1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """α · cross-entropy + β · reverse cross-entropy.

    Source: Wang et al. 2019, arXiv 1908.06112.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      alpha, beta: (10, 0.1) as released; CIFAR-10 (0.1, 1), CIFAR-100 (6, 0.1),
        WebVision (10, 1).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    active = cross_entropy(logits, labels, where=where)
    return _combine(alpha, active, beta, reverse_cross_entropy(logits, labels, where=where))


def taylor_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, order: Scalar = 18, where: ArrayLike | None = None
) -> jax.Array:
    """Σᵢ (1 − p_y)ⁱ / i for i = 1…order: order 1 is 1 − p_y, a high order cross-entropy.

    Source: Feng et al. 2020, "Can cross entropy loss be robust to label noise?", IJCAI.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      order: a whole number >= 1; 18 as released. May be traced (a float is rounded); it has no
        derivative.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    terms = jnp.round(number("order", order, z, at_least=1)).astype(jnp.int32)
    if isinstance(order, numbers.Real) and order <= _UNROLLED:
        return masked(expect_log_p(z, t, lambda v: _taylor_polynomial(v, round(order))), where)
    return masked(expect_log_p(z, t, lambda v: _taylor_series(v, terms)), where)


def asymmetric_generalized_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    a: Scalar = 3.0,
    q: Scalar = 0.7,
    where: ArrayLike | None = None,
) -> jax.Array:
    """((a + 1)^q − (a + p_y)^q)/q; at a = 0 the generalized cross-entropy.

    Source: Zhou et al. 2021, arXiv 2106.03110.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      a, q: (3, 0.7) as released; CIFAR (0.6, 0.6), WebVision (1e-5, 0.5).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    a, q = number("a", a, z, at_least=0), number("q", q, z, at_least=0)
    log_a = jnp.log(a + jnp.finfo(z.dtype).tiny)

    # With u = log((a + p)/(a + 1)): (a + 1)^q (1 − e^(qu))/q, right for every q and tiny p.
    def transform(log_p: jax.Array) -> jax.Array:
        return box_cox(jnp.logaddexp(log_a, log_p) - jnp.log1p(a), q)

    value = expect_log_p(z, t, transform)
    return masked(-jnp.exp(q * jnp.log1p(a)) * value, where)


def normalized_and_reverse_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 10.0,
    beta: Scalar = 0.1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """α · normalized + β · reverse cross-entropy (NCE+RCE), an active and a passive loss.

    Source: Ma et al. 2020, arXiv 2006.13554.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      alpha, beta: (10, 0.1) as released and for CIFAR-100; CIFAR-10 (1, 1), WebVision (50, 0.1).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    active = normalized_cross_entropy(logits, labels, where=where)
    return _combine(alpha, active, beta, reverse_cross_entropy(logits, labels, where=where))


def normalized_and_asymmetric_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 10.0,
    beta: Scalar = 0.1,
    a: Scalar = 3.0,
    q: Scalar = 0.7,
    where: ArrayLike | None = None,
) -> jax.Array:
    """α · normalized + β · asymmetric generalized cross-entropy (NCE+AGCE).

    Source: Zhou et al. 2021, arXiv 2106.03110.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      alpha, beta, a, q: (10, 0.1, 3, 0.7) as released; CIFAR-10 (1, 4, 6, 1.5),
        CIFAR-100 (10, 0.1, 1.8, 3), WebVision (50, 0.1, 2.5, 3).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    active = normalized_cross_entropy(logits, labels, where=where)
    passive = asymmetric_generalized_cross_entropy(logits, labels, a=a, q=q, where=where)
    return _combine(alpha, active, beta, passive)


def focal(
    logits: ArrayLike, labels: ArrayLike, *, gamma: Scalar = 2.0, where: ArrayLike | None = None
) -> jax.Array:
    """−(1 − p_y)^γ log p_y; γ = 0 is cross-entropy.

    Source: Lin et al. 2017, arXiv 1708.02002.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      gamma: 2 in the paper; long-tailed CIFAR is usually reported with 1.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    gamma = number("gamma", gamma, z, at_least=0)

    def value(log_p: jax.Array) -> jax.Array:
        # 1 − p is zero or at least about eps: the floor only keeps powers below one finite.
        miss = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(z.dtype).eps ** 2)
        return miss**gamma * log_p

    return masked(-expect_log_p(z, t, value), where)


def _combine(alpha: Scalar, active: jax.Array, beta: Scalar, passive: jax.Array) -> jax.Array:
    alpha, beta = number("alpha", alpha, active), number("beta", beta, active)
    return alpha * active + beta * passive


def _taylor_polynomial(log_p: jax.Array, order: int) -> jax.Array:
    """Σ (1 − p)ⁱ / i for i = 1…order, a number known at compile time: a multiply-add per term."""
    miss = -jnp.expm1(log_p)
    series = jnp.zeros_like(miss)
    for i in range(order, 0, -1):
        series = miss * (1 / i + series)
    return series


@jax.custom_jvp
def _taylor_series(log_p: jax.Array, order: int) -> jax.Array:
    """Σ (1 − p)ⁱ / i for i = 1…order. The loop's length is data, so its derivative is by hand."""
    miss = -jnp.expm1(log_p)

    def add(i: jax.Array, carry: Any) -> tuple[Any, Any]:
        power, total = carry
        power = power * miss
        return power, total + power / i

    start = (jnp.ones_like(miss), jnp.zeros_like(miss))
    return jax.lax.fori_loop(1, order + 1, add, start)[1]


@_taylor_series.defjvp
def _taylor_series_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # d/d log p = −p Σ (1 − p)^(i−1) = (1 − p)^order − 1.
    log_p, order = primals
    p = jnp.minimum(jnp.exp(log_p), 1 - jnp.finfo(log_p.dtype).eps)
    slope = jnp.expm1(order.astype(log_p.dtype) * jnp.log1p(-p))
    return _taylor_series(log_p, order), slope * tangents[0]
