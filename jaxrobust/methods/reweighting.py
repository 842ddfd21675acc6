"""Learning a weight for every example with a look-ahead at metadata, then training with it.

What CurveNet, Meta-Weight-Net and learning to reweight share. Symbols: N training examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.bilevel import Bilevel
from jaxrobust.data import batches
from jaxrobust.data.batches import Batch
from jaxrobust.methods.metadata import Metadata
from jaxrobust.methods.method import Pass, Stage, Start, Step, StepInfo, TrainState, View
from jaxrobust.methods.updates import (
    bilevel_start,
    due,
    plain_update,
    preparation,
    put_rows,
    scalars_of,
)
from jaxrobust.networks import Network

Memory = dict[str, Any]


class Base(NamedTuple):
    """What is weighted.

    Attributes:
      objective: an `Objective`, perhaps with more fields; its batch holds, in addition to the data,
        "epoch" (of the allocation, from 0) and "key".
      num_ranks: R, if it reads "rank" int32 [B] (the dynamic loss); else None.
    """

    objective: Any
    num_ranks: int | None = None


class Allocation(NamedTuple):
    """A fresh start and two passes.

    The state's memory holds "weights" float32 [N], the last that each example got, 1 before the
    first; "rank" int32 [N] if the base wants it; and the meta set's own.

    Attributes:
      init: `init(key) -> TrainState`.
      learn: look-ahead, meta-step and real step with every batch.
      keep: real steps with the weights as they are.
      report: see `Method`.
    """

    init: Callable[[jax.Array], TrainState]
    learn: Pass
    keep: Pass
    report: Callable[[TrainState], dict[str, jax.Array]]

    def stages(
        self, epochs: int, learn_epochs: int, start: Start | None = None
    ) -> tuple[Stage, ...]:
        """Returns `epochs` in all, the first `learn_epochs` of which learn; `start` see `Stage`."""
        return (
            Stage("allocate", learn_epochs, (self.learn,), start),
            Stage("keep_weights", epochs - learn_epochs, (self.keep,)),
        )


def allocation(
    network: Network,
    bilevel: Bilevel,
    base: Base,
    optimizer: optax.GradientTransformation,
    view: View,
    *,
    example: jax.Array,
    labels: jax.Array,
    num_classes: int,
    metadata: Metadata,
    batch_size: int,
    meta_batch_size: int,
    first_epoch: int = 0,
    meta_every: int = 1,
    attributes: Callable[[Memory, batches.Batch], batches.Batch] | None = None,
    scores: Callable[[Memory], jax.Array] | None = None,
) -> Allocation:
    """Returns the training with learned weights.

    Args:
      bilevel: of `network`, `optimizer` and `objectives.weighted(a weigher, base.objective)`.
      base: what is weighted, see `Base`.
      view: of training examples and metadata.
      example: one raw batch, for its shape.
      labels: int32 [N], given.
      num_classes: K.
      metadata: see `methods.metadata`.
      batch_size: examples per step.
      meta_batch_size: examples of the meta set per step.
      first_epoch: at which the allocation begins; the base counts epochs from it.
      meta_every: look-ahead and meta-step every so many epochs.
      attributes: `attributes(memory, batch) -> batch`, adds what the weigher reads.
      scores: `scores(memory) -> [N]`, what metadata are chosen by if they are; the lower the
        better. None: the network's loss at the start of the epoch.
    """
    n, rows = len(labels), jnp.arange(len(labels), dtype=jnp.int32)

    def init(key: jax.Array) -> TrainState:
        memory = {"weights": jnp.ones((n,), jnp.float32)} | metadata.memory
        if base.num_ranks is not None:
            memory["rank"] = jnp.zeros((n,), jnp.int32)
        return bilevel_start(network, bilevel, view, example, key, memory)

    def read(memory: dict[str, Any], batch: Batch, key: jax.Array, epoch: jax.Array) -> Batch:
        batch = batch | {"epoch": epoch - first_epoch, "key": key}
        if base.num_ranks is not None:
            batch["rank"] = jnp.take(memory["rank"], batch["index"])
        return batch if attributes is None else attributes(memory, batch)

    def shuffled(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
        return batches.shuffled(key, rows, batch_size)

    def with_metadata(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
        meta_rows = metadata.rows(state.memory)
        return batches.with_metadata(key, rows, meta_rows, batch_size, meta_batch_size)

    ranked = {"num_ranks": base.num_ranks}
    before = preparation(labels, num_classes, metadata=metadata, scores=scores, **ranked)
    learn = learn_step(bilevel, view, read, meta_every)
    keep = keep_step(network, optimizer, view, base.objective, read)
    return Allocation(
        init,
        Pass("train", learn, with_metadata, **before),
        Pass("train", keep, shuffled, **preparation(labels, num_classes, **ranked)),
        partial(_report, base, metadata),
    )


def _report(base: Base, metadata: Metadata, state: TrainState) -> dict[str, Any]:
    """What has been learned, see `Method`."""
    memory = state.memory
    found = {"weights": memory["weights"]}
    if metadata.choose is not None:
        found["metadata"] = memory["meta_rows"]
    if base.num_ranks is not None:
        phi = state.meta_params["base"]
        found |= {
            "rank": memory["rank"],
            "rank_weights": base.objective.rank_weights(phi),
            "margins": base.objective.margins(phi),
        }
    return found


def learn_step(bilevel: Bilevel, view: View, read: Any, meta_every: int) -> Step:
    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        view_key, meta_key, draw_key, loss_key = jax.random.split(key, 4)
        batch = read(state.memory, batch, loss_key, epoch) | {"x": view(view_key, batch["x"])}
        # Smoothing is for the weights that train: the look-ahead learns from the new ones alone.
        last = {"last_weight": jnp.take(state.memory["weights"], batch["index"])}
        assert meta_batch is not None
        meta_batch = meta_batch | {"x": view(meta_key, meta_batch["x"])}
        now = due(batch["epoch"], meta_every)
        state, info = bilevel.step(state, batch | last, meta_batch, draw_key, now, look_ahead=batch)
        weights = put_rows(state.memory["weights"], batch, info.weights)
        state = state._replace(memory=state.memory | {"weights": weights})
        return state, StepInfo(info.logits, scalars_of(info))

    return step


def keep_step(
    network: Network, optimizer: optax.GradientTransformation, view: View, objective: Any, read: Any
) -> Step:
    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        del meta_batch
        view_key, draw_key, loss_key = jax.random.split(key, 3)
        phi = state.meta_params["base"]
        batch = read(state.memory, batch, loss_key, epoch)
        weights = jnp.take(state.memory["weights"], batch["index"])

        def loss(logits: jax.Array) -> jax.Array:
            seen = batch
            if objective.observe is not None:
                seen = objective.observe(draw_key, jax.lax.stop_gradient(logits), batch)
            value = objective.loss(phi, logits, seen)
            return losses.mean(weights * value, where=batch["where"])

        x = view(view_key, batch["x"])
        state, value, logits = plain_update(network, optimizer, state, x, loss)
        return state, StepInfo(logits, {"loss": value})

    return step
