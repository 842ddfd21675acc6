"""Losses between the prediction and the label as distributions, and sparse regularization.

Symbols as in `cross_entropies`: z logits `[..., K]`, p = softmax(z), t label distribution.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxrobust.errors import check
from jaxrobust.losses.box_cox import box_cox, log_tempered_exp
from jaxrobust.losses.validation import (
    LOWEST,
    Scalar,
    distribution,
    expect_log_p,
    masked,
    number,
    pick,
    prepare,
    total,
)

# Logits shorter than this are not stretched to unit length: the direction of (nearly) zero
# logits, such as a zero-initialized head gives, is not worth an unbounded gradient.
_SHORTEST = 1e-3


def jensen_shannon(
    logits: ArrayLike, labels: ArrayLike, *, pi: Scalar = 0.5, where: ArrayLike | None = None
) -> jax.Array:
    """Weighted Jensen-Shannon divergence of label and prediction, scaled.

    (π KL(t‖m) + (1 − π) KL(p‖m)) / (−(1 − π) log(1 − π)),  m = π t + (1 − π) p.
    π → 0 gives KL(t‖p), cross-entropy for an index; π → 1, slowly, half the L1 distance, 1 − p_y.

    Source: Englesson & Azizpour 2021, arXiv 2105.04522.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      pi: strictly between 0 and 1. 0.5 as released; CIFAR-10: symmetric noise of 20–40 % 0.7,
        60–80 % 0.9, asymmetric 0.3; CIFAR-100: symmetric 0.1 to 0.5, asymmetric 0.5;
        WebVision 0.1.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    pi = number("pi", pi, z, above=0, below=1)
    scale = -(1 - pi) * jnp.log1p(-pi)
    if t.ndim < z.ndim:  # m = (1 − π) p but for the label: two terms.
        log_p = expect_log_p(z, t)
        p, log_rest = jnp.exp(log_p), jnp.log1p(-pi)
        log_m = jnp.logaddexp(jnp.log(pi), log_rest + log_p)
        prediction_part = p * (log_p - log_m) + log_rest * jnp.expm1(log_p)
        return masked(((1 - pi) * prediction_part - pi * log_m) / scale, where)
    log_p, log_t = jax.nn.log_softmax(z), _safe_log(t)
    log_m = jnp.logaddexp(jnp.log(pi) + log_t, jnp.log1p(-pi) + log_p)
    label_part = jnp.sum(t * (log_t - log_m), axis=-1)
    prediction_part = jnp.sum(jnp.exp(log_p) * (log_p - log_m), axis=-1)
    return masked((pi * label_part + (1 - pi) * prediction_part) / scale, where)


def generalized_jensen_shannon(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    scaled: bool = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Jensen-Shannon divergence of a label and the predictions for M views of an example (GJS).

    scale · (w₀ KL(t‖m) + Σⱼ wⱼ KL(pʲ‖m)),  m = w₀ t + Σⱼ wⱼ pʲ,
    scale = −1 / ((1 − w₀) log(1 − w₀)). It wants the label to be predicted, and the views to be
    predicted alike. M = 1 is `jensen_shannon` with π = w₀.

    Source: Englesson & Azizpour 2021, arXiv 2105.04522.

    Args:
      logits: `[M, ..., K]` floating, one slice per view; all are differentiated.
      labels: integers `[...]` or distributions `[..., K]`.
      weights: None or `[M + 1]`, positive, of sum 1, the label's first; None is one half for the
        label, the views sharing the rest. Two views, w₀: CIFAR-10, symmetric noise 0, 20, 40, 60,
        80 %: 0.5, 0.3, 0.9, 0.1, 0.1, asymmetric 0.3; CIFAR-100: 0.3, 0.3, 0.5, 0.9, 0.1,
        asymmetric 20 % 0.5, 40 % 0.1; WebVision 0.1, not scaled.
      scaled: False leaves `scale` out.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`; or the weights do not fit.

    Example:
      >>> views = jnp.array([[2.0, 0.0], [0.0, 2.0]])
      >>> print(generalized_jensen_shannon(views, 0) > generalized_jensen_shannon(views[:1], 0))
      True
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check(logits.ndim >= 2, f"logits must be [M, ..., K]; got shape {list(logits.shape)}.")
    views, shape = logits.shape[0], logits.shape[1:]
    prepared = [prepare(z, labels, where) for z in logits]
    z, t = jnp.stack([z for z, _ in prepared]), distribution(prepared[0][1], prepared[0][0])
    w = _view_weights(weights, views, z.dtype)
    log_p, log_t = jax.nn.log_softmax(z), _safe_log(t)
    parts = jnp.concatenate([log_t[None], log_p])
    column = w.reshape(-1, *(1 for _ in shape))
    log_m = jax.nn.logsumexp(parts + jnp.log(column), axis=0)
    weight = column * jnp.concatenate([t[None], jnp.exp(log_p)])
    value = jnp.sum(weight * (parts - log_m[None]), axis=(0, -1))
    scale = -1 / ((1 - w[0]) * jnp.log1p(-w[0])) if scaled else 1.0
    return masked(scale * value, where)


def _view_weights(weights: ArrayLike | None, views: int, dtype: Any) -> jax.Array:
    if weights is None:
        return jnp.array([0.5, *[0.5 / views] * views], dtype)
    w = jnp.asarray(weights, dtype)
    check(
        w.shape == (views + 1,),
        f"weights must have shape [{views + 1}], the label's and {views} views';"
        f" got {list(w.shape)}.",
    )
    if not isinstance(w, Tracer):
        fits = bool((np.asarray(w) > 0).all()) and abs(float(np.sum(np.asarray(w))) - 1) < 1e-3
        check(fits, f"weights must be positive and sum to 1; got {np.asarray(w).tolist()}.")
    return w


def bi_tempered_logistic(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    t1: Scalar = 0.7,
    t2: Scalar = 1.5,
    num_iters: int = 5,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Bregman divergence of the tempered logarithm (t1) with the tempered softmax (t2).

    Σₖ tₖ (log_t1 tₖ − log_t1 p̂ₖ) − (tₖ^(2−t1) − p̂ₖ^(2−t1))/(2 − t1),  p̂ = exp_t2(z − norm(z)).
    t1 < 1 bounds the loss, t2 > 1 makes the tail heavy; t1 = t2 = 1 is KL(t‖p).

    Source: Amid et al. 2019, arXiv 1906.03361.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      t1: at least 0 and below 2; 0.7 as released.
      t2: at least 1; 1.5 as released.
      num_iters: fixed-point iterations for the normalizer (static), differentiated through;
        5 as released, after which p̂ sums to 1 within about 1e-3 (4e-2 for sharp logits).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    power = _whole_power(t2)
    t1 = number("t1", t1, z, at_least=0, below=2)
    t2 = number("t2", t2, z, at_least=1)
    log_p = _log_tempered_softmax(z, t2, num_iters, power)
    if t.ndim == z.ndim:
        log_t = _safe_log(t)
        entropy = jnp.sum(t * box_cox(log_t, 1 - t1), axis=-1)
        gap = entropy - jnp.sum(t * box_cox(log_p(None), 1 - t1), axis=-1)
        volume = jnp.sum(jnp.exp((2 - t1) * log_t), axis=-1) / (2 - t1)
    else:
        gap, volume = -box_cox(log_p(t), 1 - t1), 1 / (2 - t1)
    predicted = jnp.sum(jnp.exp((2 - t1) * log_p(None)), axis=-1) / (2 - t1)
    return masked(gap - volume + predicted, where)


def sparse_regularized_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    tau: Scalar = 0.5,
    p: Scalar = 0.01,
    lamb: Scalar = 8.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy plus λ Σₖ pₖ^p, with sharpened predictions p = softmax(z / (τ ‖z‖)) (CE+SR).

    Source: Zhou et al. 2021, arXiv 2108.00192. Logits shorter than 1e-3 count as that long.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      tau, p, lamb: (0.5, 0.01, 8) as released, λ times ρ = 1.02 every epoch
        (`ce_sr_schedule`). (τ, p, λ, ρ): CIFAR-10 (0.5, 0.1, 1.2, 1.03),
        CIFAR-100 (0.5, 0.01, 4 or 10, 1.02), WebVision (0.5, 0.01, 2, 1.02).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    tau, p = number("tau", tau, z, above=0), number("p", p, z, above=0)
    lamb = number("lamb", lamb, z, at_least=0)
    squared = total(z * z, z)[..., None]
    unit = z * jax.lax.rsqrt(jnp.maximum(squared, _SHORTEST**2)) / tau
    z = jnp.where(z > LOWEST, unit, LOWEST)
    sparsity = jnp.sum(jnp.exp(p * jax.nn.log_softmax(z)), axis=-1)
    return masked(lamb * sparsity - expect_log_p(z, t), where)


def _whole_power(t: Scalar) -> int | None:
    """Returns 1/(1 − t) where it is known and a whole number: exp_t(x) = (1 + (1 − t) x)^that."""
    if not isinstance(t, numbers.Real) or t <= 1:
        return None
    power = 1 / (1 - float(t))
    return round(power) if abs(power - round(power)) < 1e-9 and power >= -16 else None


def _log_tempered_softmax(
    z: jax.Array, t: jax.Array, num_iters: int, power: int | None
) -> Callable[[jax.Array | None], jax.Array]:
    """Returns `log_p`: of the label for indices `[...]`, of all classes `[..., K]` for None.

    With x = z − max z, the iteration x ← x Z(x)^(1−t) only ever rescales x, by one number s per
    example; in the end p̂ = exp_t(s x)/Z.
    """
    check(
        isinstance(num_iters, int) and num_iters >= 1,
        f"num_iters must be a whole number of at least 1, known at compile time; got {num_iters}.",
    )
    x, c = z - jnp.max(z, axis=-1, keepdims=True), 1 - t
    if power is None:
        scale = jnp.ones_like(x[..., :1])
        for _ in range(num_iters + 1):
            total = jnp.sum(jnp.exp(log_tempered_exp(scale * x, c)), axis=-1, keepdims=True)
            log_z = jnp.log(total)
            scale = jnp.exp(c * log_z)
    else:
        log_z = _log_normalizer(x, power, num_iters)
        scale = jnp.exp(log_z / power)

    def log_p(labels: Any) -> jax.Array:
        if labels is not None:
            return log_tempered_exp(scale[..., 0] * pick(x, labels), c) - log_z[..., 0]
        if power is None:
            return log_tempered_exp(scale * x, c) - log_z
        return power * jnp.log(1 + c * scale * x) - log_z

    return log_p


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _log_normalizer(x: jax.Array, power: int, num_iters: int) -> jax.Array:
    """Returns log Z `[..., 1]` after the iterations, for 1/(1 − t) = `power`."""
    return jnp.log(_totals(x, power, num_iters)[1][-1])


@_log_normalizer.defjvp
def _log_normalizer_jvp(power: int, num_iters: int, primals: Any, tangents: Any) -> Any:
    """Its derivative: one weight per logit, summed over the iterations in a single pass.

    dZᵢ = Σₖ wᵢₖ (sᵢ dxₖ + xₖ dsᵢ) with wᵢ = (1 + c sᵢ x)^(power − 1), and dsᵢ₊₁ = c sᵢ₊₁ dZᵢ/Zᵢ.
    """
    (x,), (dx,) = primals, tangents
    scales, totals = _totals(x, power, num_iters)
    weights = [jax.lax.integer_pow(1 + s * x / power, power - 1) for s in scales]
    factor = 1 / totals[-1]
    slope = factor * scales[-1] * weights[-1]
    for i in reversed(range(num_iters)):
        along = jnp.sum(weights[i + 1] * x, axis=-1, keepdims=True)
        factor = factor * along * scales[i + 1] / (power * totals[i])
        slope = slope + factor * scales[i] * weights[i]
    return _log_normalizer(x, power, num_iters), jnp.sum(slope * dx, axis=-1, keepdims=True)


def _totals(x: jax.Array, power: int, num_iters: int) -> Any:
    """Returns the scales s and the sums Z, each `[..., 1]`, of all iterations."""
    scales, totals = [jnp.ones_like(x[..., :1])], []
    for _ in range(num_iters + 1):
        terms = jax.lax.integer_pow(1 + scales[-1] * x / power, power)
        totals.append(jnp.sum(terms, axis=-1, keepdims=True))
        scales.append(jnp.exp(jnp.log(totals[-1]) / power))
    return scales[:-1], totals


def _safe_log(x: Any) -> jax.Array:
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
