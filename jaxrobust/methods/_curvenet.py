"""CurveNet: probe, allocate, train on.

A first training records every example's loss curve; a second, of a fresh network, learns to turn
the curve into the example's weight, until the learning rate first drops; then the weights stay.
Source: Jiang et al. 2022 (AAAI), arXiv 2201.00849; defaults are those of the released program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import losses
from jaxrobust.data import batches
from jaxrobust.data.batches import Batch
from jaxrobust.errors import present
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState, View
from jaxrobust.methods.reweighting import Allocation
from jaxrobust.methods.updates import mean_loss, plain_update, put_rows
from jaxrobust.networks import Network

SHARES = 64  # Rows of the curves are filled up to a multiple: as many devices can share them.


class Probe(NamedTuple):
    """How long is probed, and with which batches.

    Attributes:
      epochs: T.
      batch_size: before the cycles.
      cycle_batch_size: while the learning rate cycles.
    """

    epochs: int
    batch_size: int
    cycle_batch_size: int

    @property
    def cycle(self) -> tuple[int, int]:
        """The epoch from which the learning rate cycles, and how many epochs each rate lasts.

        Those of the released program, 120 and 15 of 300, in proportion.

        >>> Probe(epochs=40, batch_size=32, cycle_batch_size=16).cycle
        (16, 2)
        """
        return round(self.epochs * 2 / 5), max(1, round(self.epochs / 20))

    def steps(self, num_examples: int) -> tuple[tuple[int, int], ...]:
        """Returns the stages as pairs (epochs, steps an epoch), for a learning-rate schedule."""
        first, _ = self.cycle
        return (
            (first, batches.num_steps(num_examples, self.batch_size)),
            (self.epochs - first, batches.num_steps(num_examples, self.cycle_batch_size)),
        )


def empty_curves(num_examples: int, epochs: int, dtype: str) -> jax.Array:
    """Returns zeros [N, T], N filled up to a multiple of `SHARES`."""
    return jnp.zeros((-(-num_examples // SHARES) * SHARES, epochs), dtype)


def record(curves: jax.Array, batch: batches.Batch, loss: jax.Array, epoch: jax.Array) -> jax.Array:
    """Writes the losses [B] of a batch into column `epoch` of the curves [N, T]."""
    largest = jnp.asarray(jnp.finfo(curves.dtype).max, loss.dtype)
    return put_rows(curves, batch, jnp.minimum(loss, largest), epoch)


def probe_stages(
    network: Network,
    optimizer: optax.GradientTransformation,
    view: View,
    probe: Probe,
    num_examples: int,
) -> tuple[Stage, ...]:
    """Returns stages of cross-entropy that write memory["curves"] [N, T] as examples are met.

    Args:
      optimizer: with the schedule of `probe.cycle` over the stages `probe.steps(num_examples)`.
      view: of the training examples.
    """
    rows = jnp.arange(num_examples, dtype=jnp.int32)

    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        del meta_batch
        labels, where = batch["labels"], batch["where"]

        def loss(logits: jax.Array) -> jax.Array:
            return mean_loss(losses.cross_entropy(logits, labels, where=where), batch)

        x = view(key, batch["x"])
        state, value, logits = plain_update(network, optimizer, state, x, loss)
        each = losses.cross_entropy(logits, labels, where=where)
        curves = record(state.memory["curves"], batch, each, epoch)
        state = state._replace(memory=state.memory | {"curves": curves})
        return state, StepInfo(logits, {"loss": value})

    def stage(name: str, epochs: int, batch_size: int, leaves: tuple[str, ...] = ()) -> Stage:
        def order(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
            del state, epoch
            return batches.shuffled(key, rows, batch_size)

        return Stage(name, epochs, (Pass("train", step, order),), result=False, leaves=leaves)

    first, _ = probe.cycle
    return (
        stage("probe", first, probe.batch_size),
        stage("probe_cycles", probe.epochs - first, probe.cycle_batch_size, ("curves",)),
    )


def class_means(curves: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns float32 [K, T], the mean curve of each given class; epoch by epoch, to save memory.

    Args:
      curves: [N or more, T].
      labels: int32 [N].
    """
    n = labels.shape[0]
    counts = jnp.maximum(jnp.bincount(labels, length=num_classes), 1)

    def at_epoch(t: jax.Array) -> jax.Array:
        column = jax.lax.dynamic_index_in_dim(curves, t, 1, keepdims=False)[:n]
        return jax.ops.segment_sum(column.astype(jnp.float32), labels, num_classes) / counts

    return jax.lax.map(at_epoch, jnp.arange(curves.shape[1])).T


def curve_slice(length: int, start: int | None = None, end: int | None = None) -> tuple[int, int]:
    """Returns the epochs [start, end) of a curve that CurveNet reads.

    Those of the released program, 5 to 298 of 300, in proportion, where not given.
    """
    return length // 60 if start is None else start, length - length // 300 if end is None else end


def curves_of(start: int, end: int) -> Callable[..., dict]:
    """Returns `attributes(memory, batch) -> batch` that adds "curve" [B, end - start].

    Less the mean curve of the given class: what `objectives.class_centred` does to all at once.
    """

    def attributes(memory: dict[str, Any], batch: Batch) -> Batch:
        curve = jnp.take(memory["curves"], batch["index"], axis=0).astype(jnp.float32)
        curve = curve - jnp.take(memory["class_means"], batch["labels"], axis=0)
        return batch | {"curve": curve[:, start:end]}

    return attributes


def mean_of_curves(num_examples: int, start: int, end: int) -> Callable[..., jax.Array]:
    """Returns `scores(memory) -> float32 [N]`, the mean loss over a curve; low where clean."""

    def scores(memory: dict[str, Any]) -> jax.Array:
        return jnp.mean(memory["curves"][:num_examples, start:end], 1, dtype=jnp.float32)

    return scores


def curvenet(
    network: Network,
    allocate: Allocation,
    view: View,
    *,
    labels: jax.Array,
    num_classes: int,
    epochs: int,
    learn_epochs: int,
    probe: Probe | None = None,
    probe_optimizer: optax.GradientTransformation | None = None,
    curves: np.ndarray | None = None,
    curves_dtype: str = "float16",
) -> Method:
    """Returns probing, allocation, and training with the weights found.

    Source: Jiang et al. 2022, arXiv 2201.00849.

    Args:
      network: of the probe, see `jaxrobust.networks`.
      allocate: whose `first_epoch` is the number of epochs of the probe, with `curves_of`.
      view: of the training examples.
      labels: int32 [N], given.
      num_classes: K.
      epochs: of the second training; `learn_epochs` of them learn the weights.
      probe, probe_optimizer: of the first training; the latter's state must be of the same
        structure as the allocation's. None: there are `curves`.
      curves: [N, T], of another training.
      curves_dtype: float16 or float32.

    Raises:
      UserError: the objective has no weights, or its curves do not fit.
    """
    n, probing = len(labels), ()
    if curves is not None:
        length = curves.shape[1]
    else:
        message = "curvenet: give a probe with its optimizer, or curves."
        probe, probe_optimizer = present(probe, message), present(probe_optimizer, message)
        length, probing = probe.epochs, probe_stages(network, probe_optimizer, view, probe, n)

    def init(key: jax.Array) -> TrainState:
        state = allocate.init(key)
        memory = state.memory | {
            "curves": empty_curves(n, length, curves_dtype),
            "class_means": jnp.zeros((num_classes, length), jnp.float32),
        }
        return state._replace(memory=memory)

    def begin(state: TrainState, key: jax.Array) -> TrainState:
        """The fresh network, optimizer and objective; the curves and their mean by class."""
        fresh, found = allocate.init(key), state.memory["curves"]
        if curves is not None:
            external = jnp.asarray(curves)
            largest = jnp.finfo(found.dtype).max.astype(external.dtype)
            found = found.at[:n].set(jnp.minimum(external, largest).astype(found.dtype))
        memory = fresh.memory | {
            "curves": found,
            "class_means": class_means(found, labels, num_classes),
        }
        return fresh._replace(step=state.step, memory=memory)

    def report(state: TrainState) -> dict[str, Any]:
        return allocate.report(state) | {"curves": state.memory["curves"]}  # Uncut: no copy.

    stages = probing + allocate.stages(epochs, learn_epochs, start=begin)
    return Method(init, stages, report, spread=("curves",))
