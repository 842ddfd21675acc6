"""ε-softmax: losses of predictions relaxed towards a one-hot vector.

s = max((p + m e_j) / (1 + m), ε), p = softmax(z), e_j the unit vector of j = argmax p: within
1/(1 + m) of one-hot, so that any loss of s is nearly symmetric. No gradient passes the arg-max.
Source of both: Wang et al. 2024, "ε-softmax: approximating one-hot vectors for mitigating label
noise", NeurIPS.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.losses.validation import Scalar, expect, hits, masked, number, prepare


def eps_softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    m: Scalar = 1e5,
    alpha: Scalar = 0.01,
    beta: Scalar = 5.0,
    eps: Scalar = 1e-8,
    where: ArrayLike | None = None,
) -> jax.Array:
    """−α log s_y + 2 β (1 − p_y): cross-entropy of the ε-softmax s plus mean absolute error of p.

    Source: Wang et al. 2024, "ε-softmax: approximating one-hot vectors for mitigating label noise",
    NeurIPS.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      m: at least 0; 0 is the plain softmax.
      alpha: weight of the cross-entropy of s.
      beta: weight of the mean absolute error. (α, β, m) CIFAR-10: symmetric noise (0.01, 5, 1e5),
        asymmetric (0.02, 5, 1e3), instance-dependent (0.045, 10, 1e5); CIFAR-100, symmetric 0.4
        (0.03, 1, 1e4); WebVision (0.015, 0.3, 1e3); Clothing1M (0.012, 0.1, 1e3).
      eps: ε, above 0, part of the definition: below it s has no gradient; 1e-8 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    alpha, beta = number("alpha", alpha, z), number("beta", beta, z)
    log_p = jax.nn.log_softmax(z)
    log_s, _ = _relaxed(z, log_p, m, eps)
    return masked(-alpha * expect(log_s, t) - 2 * beta * expect(log_p, t, jnp.expm1), where)


def eps_softmax_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    m: Scalar = 1e5,
    alpha: Scalar = 0.01,
    beta: Scalar = 5.0,
    gamma: Scalar = 0.1,
    eps: Scalar = 1e-8,
    where: ArrayLike | None = None,
) -> jax.Array:
    """−α (1 − s_y)^γ log s_y + 2 β (1 − p_y): focal loss of the ε-softmax s plus MAE of p.

    The focal factor is a constant for the gradient with respect to the logits, as in the program.

    Source: Wang et al. 2024, "ε-softmax: approximating one-hot vectors for mitigating label noise",
    NeurIPS.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      m: at least 0; 0 is the plain softmax.
      alpha: weight of the focal loss of s.
      beta: weight of the mean absolute error; (α, β, m) as for `eps_softmax_cross_entropy`.
      gamma: focal exponent, at least 0; 0.1 as released.
      eps: ε, above 0, part of the definition; 1e-8 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    alpha, beta = number("alpha", alpha, z), number("beta", beta, z)
    gamma = number("gamma", gamma, z, at_least=0)
    log_p = jax.nn.log_softmax(z)
    log_s, miss = _relaxed(z, log_p, m, eps)
    value = expect(jax.lax.stop_gradient(miss) ** gamma * log_s, t)
    return masked(-alpha * value - 2 * beta * expect(log_p, t, jnp.expm1), where)


def _relaxed(z: jax.Array, log_p: jax.Array, m: Scalar, eps: Scalar) -> tuple[jax.Array, jax.Array]:
    """Returns log s and 1 − s, both `[..., K]`, without cancellation where s is nearly one."""
    m, eps = number("m", m, z, at_least=0), number("eps", eps, z, above=0, below=1)
    top = hits(jnp.argmax(z, axis=-1), z.shape[-1])
    miss = -jnp.expm1(log_p) / (1 + m)  # 1 − s at the arg-max
    share = jnp.exp(log_p) / (1 + m)  # s elsewhere
    log_s = jnp.where(top, jnp.log1p(-jnp.where(top, miss, 0)), jnp.log(jnp.maximum(share, eps)))
    return log_s, jnp.where(top, miss, 1 - jnp.maximum(share, eps))
