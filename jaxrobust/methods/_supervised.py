"""Supervised training with any loss: one stage, one pass, one gradient a step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.augment.views import mix, mixup_pairs
from jaxrobust.data import batches
from jaxrobust.data.batches import Batch
from jaxrobust.errors import check
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState, View
from jaxrobust.methods.updates import mean_loss, plain_start, plain_update, put_rows
from jaxrobust.networks import Network

_ROWS = 64
_MIX = 2  # folded into a step's key for mixup; its own two halves are of the view and of the loss

LossOfEpoch = Callable[..., jax.Array]
"""`loss(logits, labels, *, epoch, key, where) -> [B]`; one with a memory takes `rows` as well."""


class RowMemory(NamedTuple):
    """A loss's state per example, see `jaxrobust.losses.Memory`, its hyper-parameters bound.

    Attributes:
      init: `init() -> rows [N or more, ...]`.
      update: `update(rows [B, ...], logits [B, K], *, epoch) -> rows [B, ...]`.
    """

    init: Callable[[], jax.Array]
    update: Callable[..., jax.Array]


def make_memory(
    name: str, hyper: dict[str, Any], labels: jax.Array, num_classes: int
) -> RowMemory | None:
    """Returns the memory that a loss asks for, or None.

    Args:
      name: short name of the loss.
      hyper: as for `make_loss`.
      labels: int [N], given labels of the training data.
      num_classes: K.
    """
    if name not in losses.MEMORY_LOSSES:
        return None
    memory = losses.MEMORY_LOSSES[name]

    def init() -> Any:
        rows = memory.init(labels, num_classes)
        padding = -len(rows) % _ROWS  # for any usual number of devices to share them
        return jnp.pad(rows, [(0, padding)] + [(0, 0)] * (rows.ndim - 1))

    return RowMemory(init, functools.partial(memory.update, **hyper))


def make_loss(
    name: str,
    hyper: dict[str, Any],
    *,
    epochs: int,
    class_counts: jax.Array,
    reweight_from: int | None = None,
    reweight_beta: float = 0.9999,
    logit_clip: float | None = None,
) -> LossOfEpoch:
    """Binds a loss to its hyper-parameters, to the class sizes, and to its schedule.

    A loss asks by keyword for what training supplies: `key`, `class_counts`. With
    `reweight_from` the loss of an example is multiplied, from that epoch on, by its given
    class's effective-number weight (Cui et al. 2019; deferred as in Cao et al. 2019).

    Args:
      name: short name of the loss.
      hyper: the user's hyper-parameters; those left out take the loss's own defaults.
      epochs: for the schedule of losses that change while training.
      class_counts: int [K], given labels in the training data.
      reweight_from: epoch from which examples are weighted by class; None: never.
      reweight_beta: beta of the effective number, see `losses.effective_number_weights`.
      logit_clip: None, or the bound on the norm of the logits, see `losses.clip_logits`.

    Returns:
      The loss, see `LossOfEpoch`.

    Raises:
      UserError: a hyper-parameter that the loss does not take.

    Example:
      >>> loss = make_loss("gce", {"q": 1.0}, epochs=10, class_counts=jnp.array([5, 5]))
      >>> print(loss(jnp.zeros((1, 2)), jnp.array([0]), epoch=0, key=None))
      [0.5]
    """
    takes, remembers = losses.settings(name), name in losses.MEMORY_LOSSES
    function = losses.MEMORY_LOSSES[name].loss if remembers else losses.get(name)
    needs = () if remembers else losses.needs(name)
    if logit_clip is not None:
        function = losses.clip_logits(function, logit_clip)
    for key in hyper:
        check(key in takes, f"Loss {name!r} has no {key!r}; it has: {', '.join(takes) or 'none'}.")
    fixed = {"class_counts": class_counts} if "class_counts" in needs else {}
    class_weights = losses.effective_number_weights(class_counts, beta=reweight_beta)

    def loss(
        logits: jax.Array,
        labels: jax.Array,
        *,
        epoch: jax.Array,
        key: jax.Array,
        where: jax.Array | None = None,
        rows: jax.Array | None = None,
    ) -> jax.Array:
        check(
            not remembers or rows is not None,
            f"Loss {name!r} has a memory per example, which method.name=supervised keeps.",
        )
        drawn = {"key": key} if "key" in needs else {}
        drawn |= {"rows": rows, "epoch": epoch} if remembers else {}
        now = losses.at_epoch(name, hyper, epoch, epochs)
        value = function(logits, labels, **now, **fixed, **drawn, where=where)
        if reweight_from is not None:
            weights = losses.deferred_weights(epoch, reweight_from, class_weights)
            hard = labels.ndim < logits.ndim
            value = value * (jnp.take(weights, labels) if hard else labels @ weights)
        return value

    return loss


def supervised(
    network: Network,
    loss: LossOfEpoch,
    optimizer: optax.GradientTransformation,
    view: View,
    *,
    example: jax.Array,
    num_examples: int,
    batch_size: int,
    epochs: int,
    drop_last: bool = False,
    memory: RowMemory | None = None,
    mixup_alpha: float | None = None,
) -> Method:
    """Returns plain training: every epoch meets every example once.

    With mixup (Zhang et al. 2018, arXiv 1710.09412) each image is s x + (1 - s) x', x' that of a
    partner within the batch, and its loss s loss(z, y) + (1 - s) loss(z, y'): for cross-entropy the
    loss of the mixed labels, and defined for every loss. A loss's memory is then moved by the
    logits of the images as they are, which takes a forward pass more, and the loss is given
    s t + (1 - s) t' of the moved rows, as in ELR+ (Liu et al. 2020). s is at least 1/2, see
    `augment.views.mixup_pairs`.

    Args:
      network: see `jaxrobust.networks`.
      loss: see `make_loss`.
      optimizer: any optax optimizer.
      view: `view(key, x) -> x`, augmentation and normalization.
      example: one batch of raw examples [B, ...], for its shape.
      num_examples: rows 0 ... num_examples-1 of the data are trained on.
      batch_size: examples per step.
      epochs: passes over the data.
      drop_last: whether the last, short batch of an epoch is left out.
      memory: of a loss that has one; its rows are moved with every batch's logits, by index, and
        the loss is given the moved ones.
      mixup_alpha: of Beta(alpha, alpha), from which s comes; None: no mixup.

    Raises:
      UserError: the batch is larger than the data.
    """
    check(batch_size <= num_examples, f"batch_size={batch_size} exceeds {num_examples} examples.")

    def init(key: jax.Array) -> Any:
        state = plain_start(network, optimizer, view, example, key)
        return state if memory is None else state._replace(memory={"rows": memory.init()})

    def moved_rows(
        state: TrainState, batch: Batch, logits: jax.Array, epoch: jax.Array
    ) -> jax.Array | None:
        """The batch's rows of the memory, moved with its logits; None without a memory."""
        if memory is None:
            return None
        return memory.update(state.memory["rows"][batch["index"]], logits, epoch=epoch)

    def kept_rows(state: TrainState, batch: Batch, rows: jax.Array | None) -> TrainState:
        if memory is None:
            return state
        return state._replace(memory={"rows": put_rows(state.memory["rows"], batch, rows)})

    def value_of(
        logits: jax.Array,
        labels: jax.Array,
        rows: jax.Array | None,
        batch: Batch,
        key: jax.Array,
        epoch: jax.Array,
    ) -> jax.Array:
        known = {} if rows is None else {"rows": rows}
        return loss(logits, labels, epoch=epoch, key=key, where=batch["where"], **known)

    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        del meta_batch
        view_key, loss_key = jax.random.split(key)
        x = view(view_key, batch["x"])

        def objective(logits: jax.Array) -> jax.Array:
            rows = moved_rows(state, batch, logits, epoch)
            return mean_loss(value_of(logits, batch["labels"], rows, batch, loss_key, epoch), batch)

        after, value, logits = plain_update(network, optimizer, state, x, objective)
        rows = moved_rows(state, batch, logits, epoch)
        return kept_rows(after, batch, rows), StepInfo(logits, {"loss": value})

    def mixed_step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        del meta_batch
        view_key, loss_key = jax.random.split(key)
        x, seen, rows = view(view_key, batch["x"]), None, None
        partner, share = mixup_pairs(jax.random.fold_in(key, _MIX), x.shape[0], mixup_alpha)
        if memory is not None:
            seen, _ = network.apply(state.params, state.network_state, x, True)
            rows = moved_rows(state, batch, seen, epoch)
        mixed_rows = None if rows is None else mix(rows, partner, share)

        def objective(logits: jax.Array) -> jax.Array:
            labels = batch["labels"]
            own = value_of(logits, labels, mixed_rows, batch, loss_key, epoch)
            other = value_of(logits, labels[partner], mixed_rows, batch, loss_key, epoch)
            return mean_loss(share * own + (1 - share) * other, batch)

        x = mix(x, partner, share)
        after, value, logits = plain_update(network, optimizer, state, x, objective)
        logits = logits if seen is None else seen
        return kept_rows(after, batch, rows), StepInfo(logits, {"loss": value})

    def order(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
        del state, epoch
        rows = jnp.arange(num_examples, dtype=jnp.int32)
        return batches.shuffled(key, rows, batch_size, drop_last)

    one = Pass("train", step if mixup_alpha is None else mixed_step, order)
    return Method(init, (Stage("train", epochs, (one,)),), spread=("rows",))
