"""Losses with a memory: a row per training example that moves with the predictions.

The functions are pure. In one's own loop, with `targets` `[N, K]` and a batch's `index` `[B]`:

    rows = losses.elr_update(targets[index], logits)
    targets = targets.at[index].set(rows)
    value = losses.elr(logits, labels, targets=rows)

`jaxrobust.methods.supervised` does the same for any loss that declares its memory as a `Memory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.losses.validation import Scalar, expect, masked, number, prepare, same_shape

_CLIP = 1e-4  # of ELR's probabilities, in targets and loss; part of the program, and visible


class InitRows(Protocol):
    """`init(labels, num_classes)`: the rows before training."""

    def __call__(self, labels: jax.Array, num_classes: int) -> jax.Array:
        """Returns rows `[N, ...]` for the given labels, integers `[N]`."""
        ...


class UpdateRows(Protocol):
    """`update(rows, logits, epoch=, **hyper)`: the rows of a batch after its forward pass."""

    def __call__(
        self, rows: jax.Array, logits: jax.Array, *, epoch: Scalar, **hyper: Any
    ) -> jax.Array:
        """Returns rows `[B, ...]` for rows `[B, ...]`, logits `[B, K]`, epoch `[]` from 0."""
        ...


class RowsLoss(Protocol):
    """`loss(logits, labels, rows=, epoch=, where=, **hyper)`: the loss with the updated rows."""

    def __call__(
        self,
        logits: jax.Array,
        labels: jax.Array,
        *,
        rows: jax.Array,
        epoch: Scalar,
        where: jax.Array | None = None,
        **hyper: Any,
    ) -> jax.Array:
        """Returns `[B]` for logits `[B, K]`, labels `[B]` or `[B, K]`, rows `[B, ...]`."""
        ...


class Memory(NamedTuple):
    """A loss with a row per training example: an entry of `MEMORY_LOSSES`.

    Attributes:
      init: see `InitRows`; once, before training.
      update: see `UpdateRows`; in every step, for the batch's examples, by index.
      loss: see `RowsLoss`; with the rows after `update`, as constants.
      defaults: hyper-parameters that a user may set, passed to `update` and `loss` by keyword.
    """

    init: InitRows
    update: UpdateRows
    loss: RowsLoss
    defaults: Mapping[str, Any]


def elr(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    targets: ArrayLike,
    lamb: Scalar = 3.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Early-learning regularization (ELR): −l_y + λ log(1 − Σₖ tₖ cₖ), c = clip(p, 1e-4, 1 − 1e-4).

    The second term pulls the prediction towards the running average t of earlier ones, and so
    keeps it from following a wrong label later. λ = 0 is cross-entropy.

    Source: Liu et al. 2020, arXiv 2007.00151, equation 6.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      targets: t `[..., K]`, after `elr_update` with these logits; constants.
      lamb: λ, at least 0; (β, λ): CIFAR-10 symmetric (0.7, 3), asymmetric (0.9, 1),
        CIFAR-100 (0.9, 7).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`; `targets` of another shape than the logits.

    Example:
      >>> z, before = jnp.array([[2.0, 0.0]]), jnp.zeros((1, 2))
      >>> print(f"{elr(z, jnp.array([0]), targets=elr_update(before, z))[0]:.3f}")
      -0.685
    """
    z, y = prepare(logits, labels, where)
    t = _constants(targets, z, where)
    lamb = number("lamb", lamb, z, at_least=0)
    log_p = jax.nn.log_softmax(z)
    agreement = jnp.sum(t * jnp.clip(jnp.exp(log_p), _CLIP, 1 - _CLIP), axis=-1)
    return masked(lamb * jnp.log1p(-agreement) - expect(log_p, y), where)


def elr_update(targets: ArrayLike, logits: ArrayLike, *, beta: Scalar = 0.7) -> jax.Array:
    """ELR's moving targets: t ← β t + (1 − β) c / Σₖ cₖ, c = clip(softmax(z), 1e-4, 1 − 1e-4).

    They start from zeros, without a correction of the bias.

    Source: Liu et al. 2020, arXiv 2007.00151, equation 9.

    Args:
      targets: t `[..., K]` of these examples.
      logits: z `[..., K]` of this step; no gradient passes.
      beta: β, at least 0 and at most 1; see `elr`.

    Returns:
      `[..., K]`.

    Raises:
      UserError: the shapes differ, or beta is out of range.
    """
    t, p = _rows_and_prediction(targets, logits)
    beta = _fraction("beta", beta, t)
    c = jnp.clip(p, _CLIP, 1 - _CLIP)
    return beta * t + (1 - beta) * c / jnp.sum(c, axis=-1, keepdims=True)


def selc(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    targets: ArrayLike,
    corrected: ArrayLike = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Self-ensemble label correction (SELC): −Σₖ tₖ lₖ with soft labels t; before, cross-entropy.

    Source: Lu & He 2022, arXiv 2205.01156.

    Args:
      logits: `[..., K]` floating.
      labels: integers `[...]` or distributions `[..., K]`.
      targets: t `[..., K]`, after `selc_update` with these logits; constants.
      corrected: bool `[]`, may be traced: False gives the cross-entropy of `labels`, as in the
        program's first epochs (CIFAR-10: 30 to 40, CIFAR-100: 20 to 40).
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: as `cross_entropy`; `targets` of another shape than the logits.
    """
    z, y = prepare(logits, labels, where)
    t = _constants(targets, z, where)
    log_p = jax.nn.log_softmax(z)
    return masked(-jnp.where(corrected, expect(log_p, t), expect(log_p, y)), where)


def selc_update(targets: ArrayLike, logits: ArrayLike, *, momentum: Scalar = 0.9) -> jax.Array:
    """SELC's soft labels: t ← μ t + (1 − μ) softmax(z), starting from one-hot given labels.

    Source: Lu & He 2022, arXiv 2205.01156, equation 5.

    Args:
      targets: t `[..., K]` of these examples.
      logits: z `[..., K]` of this step; no gradient passes.
      momentum: μ, at least 0 and at most 1; 0.9 as released, 0.8 for Clothing1M.

    Returns:
      `[..., K]`.

    Raises:
      UserError: the shapes differ, or momentum is out of range.
    """
    t, p = _rows_and_prediction(targets, logits)
    momentum = _fraction("momentum", momentum, t)
    return momentum * t + (1 - momentum) * p


def _zeros(labels: jax.Array, num_classes: int) -> jax.Array:
    return jnp.zeros((*labels.shape, num_classes))


def _update_elr(
    rows: jax.Array, logits: Any, *, epoch: jax.Array, beta: float = 0.7, lamb: float = 3.0
) -> jax.Array:
    del epoch, lamb
    return elr_update(rows, logits, beta=beta)


def _elr(
    logits: Any,
    labels: Any,
    *,
    rows: jax.Array,
    epoch: jax.Array,
    where: Any = None,
    beta: float = 0.7,
    lamb: float = 3.0,
) -> jax.Array:
    del epoch, beta
    return elr(logits, labels, targets=rows, lamb=lamb, where=where)


def _update_selc(
    rows: jax.Array, logits: Any, *, epoch: jax.Array, momentum: float = 0.9, es: int = 40
) -> jax.Array:
    moved = selc_update(rows, logits, momentum=momentum)
    return jnp.where(epoch >= es, moved, rows)


def _selc(
    logits: Any,
    labels: Any,
    *,
    rows: jax.Array,
    epoch: jax.Array,
    where: Any = None,
    momentum: float = 0.9,
    es: int = 40,
) -> jax.Array:
    del momentum
    return selc(logits, labels, targets=rows, corrected=epoch >= es, where=where)


ELR = Memory(_zeros, _update_elr, _elr, {"lamb": 3.0, "beta": 0.7})
SELC = Memory(jax.nn.one_hot, _update_selc, _selc, {"momentum": 0.9, "es": 40})


def _constants(targets: ArrayLike, z: jax.Array, where: ArrayLike | None) -> jax.Array:
    t = jnp.asarray(targets).astype(z.dtype)
    same_shape("targets", t, z.shape, "logits", z.shape)
    t = jax.lax.stop_gradient(t)
    return t if where is None else jnp.where(jnp.asarray(where)[..., None], t, 0)


def _rows_and_prediction(targets: ArrayLike, logits: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Returns the targets and softmax(logits), `[..., K]`, in the type to compute with."""
    z = jax.lax.stop_gradient(jnp.asarray(logits))
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    t = jnp.asarray(targets).astype(z.dtype)
    same_shape("targets", t, z.shape, "logits", z.shape)
    return t, jax.nn.softmax(z)


def _fraction(name: str, value: Scalar, like: jax.Array) -> jax.Array:
    return number(name, value, like, at_least=0, at_most=1)
