"""Losses between the prediction and the label as distributions, and sparse regularisation.

Symbols as in `cross_entropies`: z logits `[..., K]`, p = softmax(z), t label distribution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.errors import check
from jaxrobust.losses.box_cox import box_cox, log_tempered_exp
from jaxrobust.losses.cross_entropies import cross_entropy
from jaxrobust.losses.validation import Scalar, masked, number, prepare

# Logits shorter than this are not stretched to unit length: the direction of (nearly) zero
# logits, such as a zero-initialised head gives, is not worth an unbounded gradient.
_SHORTEST = 1e-3


def jensen_shannon(
    logits: ArrayLike, labels: ArrayLike, *, pi: Scalar = 0.5, where: ArrayLike | None = None
) -> jax.Array:
    """Weighted Jensen-Shannon divergence of label and prediction, scaled.

    (π KL(t‖m) + (1 − π) KL(p‖m)) / (−(1 − π) log(1 − π)),  m = π t + (1 − π) p.
    π → 0 gives KL(t‖p), cross-entropy for an index; π → 1, slowly, half the L1 distance, 1 − p_y.

    Source: Englesson & Azizpour 2021, arXiv 2105.04522.

    Shapes and errors: those of `cross_entropy`; logits `[..., K]`, returns `[...]`.

    Args:
      pi: strictly between 0 and 1. 0.5 as released; CIFAR-10: symmetric noise of 20–40 % 0.7,
        60–80 % 0.9, asymmetric 0.3; CIFAR-100: symmetric 0.1 to 0.5, asymmetric 0.5;
        WebVision 0.1.
    """
    z, t = prepare(logits, labels, where)
    pi = number("pi", pi, z, above=0, below=1)
    log_p, log_t = jax.nn.log_softmax(z), _safe_log(t)
    log_m = jnp.logaddexp(jnp.log(pi) + log_t, jnp.log1p(-pi) + log_p)
    label_part = jnp.sum(t * (log_t - log_m), axis=-1)
    prediction_part = jnp.sum(jnp.exp(log_p) * (log_p - log_m), axis=-1)
    scale = -(1 - pi) * jnp.log1p(-pi)
    return masked((pi * label_part + (1 - pi) * prediction_part) / scale, where)


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

    Shapes and errors: those of `cross_entropy`; logits `[..., K]`, returns `[...]`.

    Args:
      t1: at least 0 and below 2; 0.7 as released.
      t2: at least 1; 1.5 as released.
      num_iters: fixed-point iterations for the normaliser (static), differentiated through;
        5 as released, after which p̂ sums to 1 within about 1e-3 (4e-2 for sharp logits).
    """
    z, t = prepare(logits, labels, where)
    t1 = number("t1", t1, z, at_least=0, below=2)
    t2 = number("t2", t2, z, at_least=1)
    log_p = _log_tempered_softmax(z, t2, num_iters)
    log_t = _safe_log(t)
    gap = t * (box_cox(log_t, 1 - t1) - box_cox(log_p, 1 - t1))
    volume = (jnp.exp((2 - t1) * log_t) - jnp.exp((2 - t1) * log_p)) / (2 - t1)
    return masked(jnp.sum(gap - volume, axis=-1), where)


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

    Shapes and errors: those of `cross_entropy`; logits `[..., K]`, returns `[...]`.

    Args:
      tau, p, lamb: (0.5, 0.01, 8) as released, λ times ρ = 1.02 every epoch
        (`ce_sr_schedule`). (τ, p, λ, ρ): CIFAR-10 (0.5, 0.1, 1.2, 1.03),
        CIFAR-100 (0.5, 0.01, 4 or 10, 1.02), WebVision (0.5, 0.01, 2, 1.02).
    """
    z, t = prepare(logits, labels, where)
    tau, p = number("tau", tau, z, above=0), number("p", p, z, above=0)
    lamb = number("lamb", lamb, z, at_least=0)
    squared = jnp.sum(z * z, axis=-1, keepdims=True)
    z = z * jax.lax.rsqrt(jnp.maximum(squared, _SHORTEST**2)) / tau
    sparsity = jnp.sum(jnp.exp(p * jax.nn.log_softmax(z)), axis=-1)
    return masked(cross_entropy(z, t) + lamb * sparsity, where)


def _log_tempered_softmax(z, t, num_iters):
    check(
        isinstance(num_iters, int) and num_iters >= 1,
        f"num_iters must be a whole number of at least 1, known at compile time; got {num_iters}.",
    )
    top = jnp.max(z, axis=-1, keepdims=True)
    shifted = z - top
    scaled = shifted
    for _ in range(num_iters):
        scaled = shifted * jnp.exp((1 - t) * _log_total(scaled, t))
    norm = -box_cox(-_log_total(scaled, t), 1 - t)  # −log_t(1/Z)
    return log_tempered_exp(shifted - norm, 1 - t)


def _log_total(x, t):
    return jnp.log(jnp.sum(jnp.exp(log_tempered_exp(x, 1 - t)), axis=-1, keepdims=True))


def _safe_log(x):
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
