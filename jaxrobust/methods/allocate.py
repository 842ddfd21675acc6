"""Learning a weight for every example with a look-ahead at metadata, then training with it.

What CurveNet, Meta-Weight-Net and learning to reweight share. Symbols: N training examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.bilevel import Bilevel
from jaxrobust.data import batches, sampling
from jaxrobust.methods.metadata import Metadata
from jaxrobust.methods.method import Pass, Stage, StepInfo, TrainState
from jaxrobust.methods.steps import bilevel_update, plain_update, put_rows, scalars_of
from jaxrobust.networks import Network

Memory = dict[str, Any]


class Base(NamedTuple):
    """What is weighted.

    Attributes:
      objective: an `Objective`, perhaps with more fields; its batch holds, beside the data,
        "epoch" (of the allocation, from 0) and "key".
      num_ranks: R, if it reads "rank" (the dynamic loss); else None.
    """

    objective: Any
    num_ranks: int | None = None


class Allocation(NamedTuple):
    """A fresh start and two passes.

    The state's memory holds "phi" and "meta_opt_state"; "weights" float32 [N], the last that each
    example got, 1 before the first; "rank" int32 [N] if the base wants it; and the metadata's own.

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

    def stages(self, epochs: int, learn_epochs: int) -> tuple[Stage, ...]:
        """Returns `epochs` in all, the first `learn_epochs` of which learn."""
        return (
            Stage("allocate", learn_epochs, (self.learn,)),
            Stage("keep_weights", epochs - learn_epochs, (self.keep,)),
        )


def allocation(
    network: Network,
    bilevel: Bilevel,
    base: Base,
    optimizer: optax.GradientTransformation,
    view: Callable[[jax.Array, jax.Array], jax.Array],
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
      metadata: see `methods.metadata`.
      first_epoch: at which the allocation begins; the base counts epochs from it.
      meta_every: look-ahead and meta-step every so many epochs.
      attributes: `attributes(memory, batch) -> batch`, adds what the weigher reads.
      scores: `scores(memory) -> [N]`, what metadata are chosen by if they are; the lower the
        better. None: the network's loss at the start of the epoch.
    """
    n, rows = len(labels), jnp.arange(len(labels), dtype=jnp.int32)

    def init(key):
        net_key, meta_key, view_key = jax.random.split(key, 3)
        x = jax.eval_shape(view, view_key, example)
        params, stats = network.init(net_key, jnp.zeros(x.shape, x.dtype))
        state = bilevel.init(meta_key, params, stats)
        memory = {
            "phi": state.meta_params,
            "meta_opt_state": state.meta_opt_state,
            "weights": jnp.ones((n,), jnp.float32),
        } | metadata.memory
        if base.num_ranks is not None:
            memory["rank"] = jnp.zeros((n,), jnp.int32)
        return TrainState(state.step, params, stats, state.opt_state, memory)

    def read(memory, batch, key, epoch):
        """Adds what weigher and base read to a batch."""
        batch = batch | {"epoch": epoch - first_epoch, "key": key}
        if base.num_ranks is not None:
            batch["rank"] = jnp.take(memory["rank"], batch["index"])
        return batch if attributes is None else attributes(memory, batch)

    def learn(state, batch, meta_batch, key, epoch):
        view_key, meta_key, draw_key, loss_key = jax.random.split(key, 4)
        batch = read(state.memory, batch, loss_key, epoch) | {"x": view(view_key, batch["x"])}
        # Smoothing is for the weights that train: the look-ahead learns from the new ones alone.
        batch["real_step"] = {"last_weight": jnp.take(state.memory["weights"], batch["index"])}
        meta_batch = meta_batch | {"x": view(meta_key, meta_batch["x"])}
        state, info = bilevel_update(
            bilevel, state, batch, meta_batch, draw_key, epoch - first_epoch, meta_every
        )
        weights = put_rows(state.memory["weights"], batch, info.weights)
        state = state._replace(memory=state.memory | {"weights": weights})
        return state, StepInfo(info.logits, scalars_of(info))

    def keep(state, batch, meta_batch, key, epoch):
        del meta_batch
        view_key, draw_key, loss_key = jax.random.split(key, 3)
        phi = state.memory["phi"]["base"]
        batch = read(state.memory, batch, loss_key, epoch)
        weights = jnp.take(state.memory["weights"], batch["index"])

        def loss(logits):
            seen = batch
            if base.objective.observe is not None:
                seen = base.objective.observe(draw_key, jax.lax.stop_gradient(logits), batch)
            value = base.objective.loss(phi, logits, seen)
            return losses.mean(weights * value, where=batch["where"])

        x = view(view_key, batch["x"])
        state, value, logits = plain_update(network, optimizer, state, x, loss)
        return state, StepInfo(logits, {"loss": value})

    @jax.jit
    def refresh(memory, loss, key):
        if base.num_ranks is not None:
            rank = sampling.ranks_by_class(loss, labels, num_classes, base.num_ranks)
            memory = memory | {"rank": rank}
        if metadata.choose is not None:
            values = loss if scores is None else scores(memory)
            memory = metadata.choose(memory, values, key)
        return memory

    needs_loss = base.num_ranks is not None or (metadata.choose is not None and scores is None)

    @jax.jit
    def loss_of(logits):
        return losses.cross_entropy(logits[:n], labels)

    def prepare(state, forward, key, epoch):
        del epoch
        loss = loss_of(forward(state)) if needs_loss else None
        return state._replace(memory=refresh(state.memory, loss, key))

    def shuffled(state, key, epoch):
        del state, epoch
        return batches.shuffled(key, rows, batch_size)

    def with_metadata(state, key, epoch):
        train_key, meta_key = jax.random.split(key)
        train = shuffled(state, train_key, epoch)
        steps = train.index.shape[0]
        meta = batches.cycled(meta_key, metadata.rows(state.memory), steps, meta_batch_size)
        return train._replace(meta_index=meta)

    def report(state):
        memory = state.memory
        found = {"weights": memory["weights"]}
        if metadata.choose is not None:
            found["metadata"] = memory["meta_rows"]
        if base.num_ranks is not None:
            phi = memory["phi"]["base"]
            found |= {
                "rank": memory["rank"],
                "rank_weights": base.objective.rank_weights(phi),
                "margins": base.objective.margins(phi),
            }
        return found

    prepares = needs_loss or metadata.choose is not None
    return Allocation(
        init,
        Pass("train", learn, with_metadata, prepare if prepares else None),
        Pass("train", keep, shuffled, prepare if base.num_ranks is not None else None),
        report,
    )
