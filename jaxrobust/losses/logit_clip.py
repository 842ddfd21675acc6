"""Logit clipping: an upper bound on the norm of the logits, around any loss.

Source: Wei et al. 2023, "Mitigating memorization of noisy labels by clipping the network
prediction", arXiv 2212.04055.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.losses.validation import LOWEST, Scalar, number, prepare

_NUDGE = 1e-7  # added to the norm, as in the program


def clip_logits(
    loss: Callable[..., jax.Array],
    tau: Scalar = 1.0,
    *,
    p: Scalar = 2.0,
    threshold: Scalar | None = None,
) -> Callable[..., jax.Array]:
    """Returns the loss of z' = τ z / ‖z‖_p where the norm exceeds the threshold, else of z.

    A bounded norm bounds the loss of every example, that of a mislabeled one as well. The
    gradient passes through the norm. Classes that are ruled out (logits of -inf) do not count.

    The program compares the norm with T and sets longer logits to the norm 1/T: `tau=1/T,
    threshold=T`. The two forms agree where no norm lies between T and 1/T.

    Source: Wei et al. 2023, arXiv 2212.04055.

    Args:
      loss: `loss(logits [..., K], labels, *, where=None, ...) -> [...]`, see `jaxrobust.losses`.
      tau: τ, above 0: the norm's bound; 1 as released.
      p: order of the norm, at least 1; 2 as released.
      threshold: None for τ, as in the paper, or the norm above which logits are clipped.

    Returns:
      A loss with the arguments of `loss`.

    Raises:
      UserError: a number out of range; called, what `loss` raises.

    Example:
      >>> from jaxrobust import losses
      >>> clipped = clip_logits(losses.cross_entropy, tau=1.0)
      >>> print(clipped(jnp.array([30.0, 40.0]), 1).round(4))  # as of [0.6, 0.8]
      0.5981
    """

    @functools.wraps(loss)
    def clipped(
        logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None, **hyper: object
    ) -> jax.Array:
        z, t = prepare(logits, labels, where)
        bound = number("tau", tau, z, above=0)
        above = bound if threshold is None else number("threshold", threshold, z, above=0)
        norm = _norm(jnp.where(z > LOWEST, z, 0), number("p", p, z, at_least=1)) + _NUDGE
        short = jnp.where(norm > above, z * (bound / norm), z)
        return loss(jnp.where(z > LOWEST, short, LOWEST), t, where=where, **hyper)

    return clipped


def clipped_loss(base: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns `base` with the keywords `tau`, `p` and `threshold` of `clip_logits` added."""

    def loss(
        logits: Any,
        labels: Any,
        *,
        tau: Scalar = 1.0,
        p: Scalar = 2.0,
        threshold: Any = None,
        **hyper: Any,
    ) -> jax.Array:
        return clip_logits(base, tau, p=p, threshold=threshold)(logits, labels, **hyper)

    own = [q for q in inspect.signature(loss).parameters.values() if q.kind is q.KEYWORD_ONLY]
    first, second, *rest = inspect.signature(base).parameters.values()
    loss.__signature__ = inspect.Signature([first, second, *own, *rest])
    loss.__doc__ = f"`{base.__name__}` of clipped logits, see `clip_logits`."
    return loss


def _norm(z: jax.Array, p: jax.Array) -> jax.Array:
    """‖z‖_p, `[..., 1]`; no gradient where all logits are zero."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1, keepdims=True))
    size = jnp.where(size > 0, size, 1)
    power = jnp.sum(jnp.abs(z / size) ** p, axis=-1, keepdims=True)
    return jnp.where(power > 0, size * jnp.where(power > 0, power, 1) ** (1 / p), 0)
