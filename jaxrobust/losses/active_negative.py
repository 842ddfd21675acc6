"""Active negative loss (ANL): a normalized loss plus a normalized negative one.

Symbols as in `cross_entropies`: z logits `[..., K]`, p = softmax(z), l = log p, y the label. Source
of both: Ye et al. 2023, "Active negative loss functions for learning with noisy labels", NeurIPS.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.losses.asymmetric import focal_factor, normalized_focal
from jaxrobust.losses.validation import Scalar, expect, masked, number, prepare, quotient, total


def normalized_and_negative_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 5.0,
    beta: Scalar = 5.0,
    min_prob: Scalar = 1e-7,
    where: ArrayLike | None = None,
) -> jax.Array:
    """ANL-CE: α l_y / Σₖ lₖ + β (1 − (c_y + A) / Σₖ (cₖ + A)), A = −log ε, c = max(l, −A).

    ε = `min_prob` is part of the definition; a class below it gives the second term no gradient.

    Source: Ye et al. 2023, "Active negative loss functions for learning with noisy labels",
    NeurIPS. The program adds an L1 penalty on the parameters: `optimizer.l1`.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      alpha: weight of normalized cross-entropy.
      beta: weight of the negative loss. (α, β): CIFAR-10 (5, 5), CIFAR-100 (10, 1),
        WebVision (20, 1), MNIST (1, 1).
      min_prob: ε, above 0 and below 1; 1e-7 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    alpha, beta = number("alpha", alpha, z), number("beta", beta, z)
    lowest = jnp.log(number("min_prob", min_prob, z, above=0, below=1))
    log_p = jax.nn.log_softmax(z)
    active = quotient(expect(log_p, t), total(log_p, z))
    margin = jnp.maximum(log_p, lowest) - lowest
    passive = 1 - expect(margin, t) / jnp.sum(margin, axis=-1)
    return masked(alpha * active + beta * passive, where)


def normalized_and_negative_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar = 5.0,
    beta: Scalar = 5.0,
    gamma: Scalar = 0.5,
    min_prob: Scalar = 1e-7,
    where: ArrayLike | None = None,
) -> jax.Array:
    """ANL-FL: α w_y l_y / Σₖ wₖ lₖ + β (1 − (A − f_y) / Σₖ (A − fₖ)), focal in both terms.

    wₖ = (1 − pₖ)^γ, A = −(1 − ε)^γ log ε, c = max(l, log ε), fₖ = −(1 − exp cₖ)^γ cₖ. The focal
    factors are constants for the gradient with respect to the logits, as in the program.

    Source: Ye et al. 2023, "Active negative loss functions for learning with noisy labels",
    NeurIPS.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      alpha: weight of the normalized focal loss.
      beta: weight of the negative loss; (α, β) as for ANL-CE.
      gamma: focal exponent, at least 0; 0.5 as released.
      min_prob: ε, above 0 and below 1; 1e-7 as released.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`.
    """
    z, t = prepare(logits, labels, where)
    alpha, beta = number("alpha", alpha, z), number("beta", beta, z)
    gamma = number("gamma", gamma, z, at_least=0)
    min_prob = number("min_prob", min_prob, z, above=0, below=1)
    log_p = jax.nn.log_softmax(z)
    bounded = jnp.maximum(log_p, jnp.log(min_prob))
    largest = -((1 - min_prob) ** gamma) * jnp.log(min_prob)
    margin = largest + focal_factor(bounded, gamma) * bounded
    passive = 1 - expect(margin, t) / jnp.sum(margin, axis=-1)
    return masked(alpha * normalized_focal(z, log_p, t, gamma) + beta * passive, where)
