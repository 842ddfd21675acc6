"""The dynamics-aware loss, and schedules of hyper-parameters over the epochs."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.errors import check
from jaxrobust.losses.box_cox import box_cox
from jaxrobust.losses.validation import Scalar, expect, masked, number, prepare


def dynamics_aware(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    q: Scalar = 0.6,
    lamb: Scalar = 0.0,
    hard: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """GCE_q(z, y) + λ · BS(z) / (q · log K), with bootstrapping BS(z) = −Σₖ pₖ log pₖ.

    `dal_schedule` moves (q, λ) from fitting (q < 1, λ = 0) to robustness (q > 1, λ > 0). At
    q = 0 the second term, defined for q > 0 only, is left out.

    Source: Li et al. 2023, arXiv 2303.11562. The program's first upload bootstrapped hard.

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      q, lamb: the defaults are those of the released schedule's first epoch.
      hard: bootstrap with −maxₖ log pₖ, cross-entropy to the arg-max, instead of the entropy.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
    """
    z, t = prepare(logits, labels, where)
    q, lamb = number("q", q, z, at_least=0), number("lamb", lamb, z, at_least=0)
    log_p = jax.nn.log_softmax(z)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    bootstrap = jnp.where(hard, -jnp.max(log_p, axis=-1), entropy)
    share = jnp.where(q > 0, lamb / jnp.where(q > 0, q, 1), 0)
    fit = -expect(log_p, t, lambda v: box_cox(v, q))
    return masked(fit + share * bootstrap / math.log(z.shape[-1]), where)


def dal_schedule(
    epoch: Scalar, epochs: Scalar, *, q_start: Scalar = 0.6, q_end: Scalar = 1.5
) -> tuple[Scalar, jax.Array]:
    """(q, λ) of epoch i of E: q rises linearly, λ from where q passes 1.

    q = q_s + (q_e − q_s) i/E;  λ = max(0, (i − i₀)/(E − i₀)),  i₀ = (1 − q_s) E/(q_e − q_s).

    Args:
      epoch: i, shape [], 0…E-1; may be traced.
      epochs: E, of the whole training.
      q_start, q_end: (0.6, 1.5) as released for CIFAR, (0.4, 1.5) for WebVision.

    Returns: the pair (q, lamb).

    Raises:
      UserError: not 0 <= q_start < 1 < q_end (plain numbers only).

    Example:
      >>> q, lamb = dal_schedule(100, 150, q_start=0.6, q_end=1.5)
      >>> print(round(float(q), 3), round(float(lamb), 3))
      1.2 0.4
    """
    if isinstance(q_start, (int, float)) and isinstance(q_end, (int, float)):
        check(
            0 <= q_start < 1 < q_end,
            f"dal needs 0 <= q_start < 1 < q_end; got q_start {q_start} and q_end {q_end}.",
        )
    q = q_start + (q_end - q_start) * (epoch / epochs)
    turn = (1 - q_start) * epochs / (q_end - q_start)
    return q, jnp.maximum(0.0, (epoch - turn) / (epochs - turn))


def ce_sr_schedule(epoch: Scalar, *, lamb: Scalar = 8.0, rho: Scalar = 1.02) -> Scalar:
    """λ of epoch i for sparse regularization: λ ρⁱ.

    Source: Zhou et al. 2021, arXiv 2108.00192.

    Args:
      epoch: i, shape [], from 0; may be traced.
      lamb: λ in the first epoch.
      rho: ρ, the factor per epoch.

    Returns:
      λ ρⁱ, shape [].

    Example:
      >>> print(ce_sr_schedule(2, lamb=2.0, rho=3.0))
      18.0
    """
    return lamb * rho**epoch


def dal_keywords(
    epoch: Scalar,
    epochs: Scalar,
    *,
    q_start: Scalar = 0.6,
    q_end: Scalar = 1.5,
    hard: bool = False,
) -> dict[str, Any]:
    """Keyword arguments of `dynamics_aware` in an epoch, see `dal_schedule`; scalars `[]`."""
    q, lamb = dal_schedule(epoch, epochs, q_start=q_start, q_end=q_end)
    return {"q": q, "lamb": lamb, "hard": hard}


def ce_sr_keywords(
    epoch: Scalar,
    epochs: Scalar,
    *,
    tau: Scalar = 0.5,
    p: Scalar = 0.01,
    lamb: Scalar = 8.0,
    rho: Scalar = 1.02,
) -> dict[str, Any]:
    """Keyword arguments of `sparse_regularized_cross_entropy` in an epoch; scalars `[]`."""
    del epochs
    return {"tau": tau, "p": p, "lamb": ce_sr_schedule(epoch, lamb=lamb, rho=rho)}
