"""Training dynamics: what every step of any method shows of the examples it meets, kept cheaply.

A wrongly labelled example is learned late, and until then the network names another class for it
(Pleiss et al. 2020, arXiv 2001.10528; Liu et al. 2020, arXiv 2007.00151). `recorded` wraps a
method so that its state also carries sums over the steps, updated by scatter from the logits that
the step computes anyway; being state, they are saved and resumed with everything else.

Symbols: N examples, K classes; S, number of equal parts of the training; P, number of parts that
double: an eighth, another eighth, a quarter, a half. Early on, when wrong labels begin to be
learned, they are the shortest.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.data.batches import Batch
from jaxrobust.methods.method import Method, Pass, Stage, TrainState

CURVE_PARTS, PREDICTION_PARTS = 32, 4  # at most
SMALL, LARGE = 1 << 23, 1 << 26  # entries: of an array in parts, of any array, at most


class Dynamics(NamedTuple):
    """What was seen of each training example, averaged.

    Attributes:
      curves: float32 [N, S], mean cross-entropy to the given label in each part of the training;
        NaN where an example was not met.
      probabilities: float32 [N, P, K], mean predicted distribution up to the end of each of P
        parts, NaN likewise; or None where that would be too large to keep.
    """

    curves: np.ndarray
    probabilities: np.ndarray | None


def parts(num_examples: int, num_classes: int, epochs: int) -> tuple[int, int]:
    """Returns S and P; parts of P are made of those of S, so that counts serve both."""
    wanted = SMALL // (num_examples * num_classes)
    p = next(p for p in (4, 2, 1) if p <= max(wanted, 1) and p <= epochs)
    s = max(min(epochs, CURVE_PARTS, 2 * SMALL // num_examples) // p, 1) * p
    return s, p if num_examples * num_classes <= LARGE else 0


def ends(s: int, p: int) -> np.ndarray:
    """Returns int [P], where each of P parts ends, counted in the S equal ones."""
    return np.array([max(i + 1, s * 2 ** (i + 1) // 2**p) for i in range(p)])


def recorded(method: Method, *, num_examples: int, num_classes: int) -> Method:
    """Returns `method` with a state that also carries what `gathered` reads.

    The logits are those of the training step: before its update, on the augmented example, batch
    norm in training mode. A step costs one softmax of [B, K] and scatters of B rows more.
    """
    epochs = method.epochs
    s, p = parts(num_examples, num_classes, epochs)

    def empty():
        sums = {name: jnp.zeros((num_examples, s), jnp.float32) for name in ("count", "loss")}
        if p:
            sums["probability"] = jnp.zeros((num_examples, p, num_classes), jnp.float32)
        return sums

    def init(key):
        return _outer(method.init(key), empty())

    def wrap(pass_: Pass) -> Pass:
        def step(state, batch, meta_batch, key, epoch):
            after, info = pass_.step(_inner(state), batch, meta_batch, key, epoch)
            part = epoch * s // epochs
            return _outer(after, add(state.memory["dynamics"], batch, info.logits, part)), info

        def prepare(state, logits, key, epoch):
            after = pass_.prepare(_inner(state), logits, key, epoch)
            return _outer(after, state.memory["dynamics"])

        def order(state, key, epoch):
            return pass_.order(_inner(state), key, epoch)

        return pass_._replace(
            step=step, order=order, prepare=None if pass_.prepare is None else prepare
        )

    def wrap_stage(stage: Stage) -> Stage:
        def start(state, key):
            return _outer(stage.start(_inner(state), key), state.memory["dynamics"])

        passes = tuple(map(wrap, stage.passes))
        return stage._replace(passes=passes, start=None if stage.start is None else start)

    stages = tuple(map(wrap_stage, method.stages))
    report = method.report
    return method._replace(
        init=init, stages=stages, report=report and (lambda state: report(_inner(state)))
    )


def _inner(state: TrainState) -> TrainState:
    return state._replace(memory=state.memory["method"])


def _outer(state: TrainState, sums: dict[str, jax.Array]) -> TrainState:
    return state._replace(memory={"method": state.memory, "dynamics": sums})


def add(
    sums: dict[str, jax.Array], batch: Batch, logits: jax.Array, part: jax.Array
) -> dict[str, jax.Array]:
    """Adds a batch, `logits` [B, K], to the sums; rows that only fill it up count nothing."""
    index, met = batch["index"], batch["where"].astype(jnp.float32)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.take_along_axis(log_p, batch["labels"][:, None], axis=1)[:, 0]
    sums = dict(sums)
    sums["count"] = sums["count"].at[index, part].add(met)
    sums["loss"] = sums["loss"].at[index, part].add(met * loss)
    if "probability" in sums:
        last = ends(sums["count"].shape[1], sums["probability"].shape[1])
        part = jnp.searchsorted(jnp.asarray(last), part, side="right")
        predicted = met[:, None] * jnp.exp(log_p)
        sums["probability"] = sums["probability"].at[index, part].add(predicted)
    return sums


def gathered(state: TrainState) -> Dynamics:
    """Returns, on the host, what the state of a recorded method has gathered so far."""
    sums = {name: np.asarray(value) for name, value in state.memory["dynamics"].items()}
    count, mean = sums["count"], sums.get("probability")
    with np.errstate(invalid="ignore"):
        curves = sums["loss"] / count
        if mean is not None:
            last = ends(count.shape[1], mean.shape[1])
            mean = np.cumsum(mean, axis=1) / np.cumsum(count, axis=1)[:, last - 1, None]
    return Dynamics(curves, mean)
