"""Joint asymmetric loss (JAL): a normalized loss plus the asymmetric mean error.

Symbols as in `cross_entropies`: z logits `[..., K]`, p = softmax(z), l = log p, y the label. Source
of all three: Wang et al. 2025, "Joint asymmetric loss for learning with noisy labels", ICCV.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.losses.validation import Scalar, expect, masked, number, prepare, quotient, total


def asymmetric_mean_error(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    a: Scalar = 30.0,
    q: Scalar = 2.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Asymmetric mean error (AME): Σₖ |pₖ − a·1[k = y]|^q / K, the mean square error for a = 1.

    The larger a, the more nearly linear in p_y: the slope is about −q a^(q−1) / K. The division by
    K is the program's, which averages over classes as over examples.

    Source: Wang et al. 2025, "Joint asymmetric loss for learning with noisy labels", ICCV.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      a: the label's target; 30 as released for CIFAR-10 and WebVision, 20 for CIFAR-100.
      q: exponent, at least 1; 2 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    return masked(_ame(jax.nn.log_softmax(z), t, a, q), where)


def joint_asymmetric(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    a: Scalar = 30.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """JAL-CE: α l_y / Σₖ lₖ + β · AME, normalized cross-entropy plus the asymmetric mean square.

    Source: Wang et al. 2025, "Joint asymmetric loss for learning with noisy labels", ICCV. The
    program adds an L1 penalty on the parameters: `optimizer.l1`.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      alpha: weight of normalized cross-entropy.
      beta: weight of the asymmetric mean square error.
      a: see `asymmetric_mean_error`. (α, β, a): CIFAR-10 (1, 1, 30), CIFAR-100 (5, 1, 20),
        WebVision (50, 1, 30), Clothing1M (5, 0.1, 5).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    alpha, beta = number("alpha", alpha, z), number("beta", beta, z)
    log_p = jax.nn.log_softmax(z)
    active = quotient(expect(log_p, t), total(log_p, z))
    return masked(alpha * active + beta * _ame(log_p, t, a, 2.0), where)


def joint_asymmetric_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    a: Scalar = 30.0,
    gamma: Scalar = 0.5,
    where: ArrayLike | None = None,
) -> jax.Array:
    """JAL-FL: α w_y l_y / Σₖ wₖ lₖ + β · AME with focal factors wₖ = (1 − pₖ)^γ.

    The factors are constants for the gradient with respect to the logits, as in the program.

    Source: Wang et al. 2025, "Joint asymmetric loss for learning with noisy labels", ICCV.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      alpha: weight of the normalized focal loss.
      beta: weight of the asymmetric mean square error.
      a: see `joint_asymmetric`.
      gamma: focal exponent, at least 0; 0.5 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    alpha, beta = number("alpha", alpha, z), number("beta", beta, z)
    log_p = jax.nn.log_softmax(z)
    active = normalized_focal(z, log_p, t, number("gamma", gamma, z, at_least=0))
    return masked(alpha * active + beta * _ame(log_p, t, a, 2.0), where)


def normalized_focal(z: jax.Array, log_p: jax.Array, t: jax.Array, gamma: jax.Array) -> jax.Array:
    """Returns w_y l_y / Σₖ wₖ lₖ, shape `[...]`; z and l `[..., K]`, t as from `prepare`."""
    weighted = focal_factor(log_p, gamma) * log_p
    return quotient(expect(weighted, t), total(weighted, z))


def focal_factor(log_p: jax.Array, gamma: jax.Array) -> jax.Array:
    """Returns (1 − p)^γ, a constant for the gradient with respect to log p `[..., K]`."""
    return (-jnp.expm1(jax.lax.stop_gradient(log_p))) ** gamma


def _ame(log_p: jax.Array, t: jax.Array, a: Scalar, q: Scalar) -> jax.Array:
    a, q = number("a", a, log_p, at_least=0), number("q", q, log_p, at_least=1)

    def of_label(log_p: jax.Array) -> jax.Array:  # What a label's own class adds to Σ p^q.
        return jnp.abs(jnp.exp(log_p) - a) ** q - jnp.exp(q * log_p)

    rest = jnp.sum(jnp.exp(q * log_p), axis=-1)
    return (rest + expect(log_p, t, of_label)) / log_p.shape[-1]
