"""Training dynamics: loss and prediction of each example as the steps meet it, kept cheaply.

A wrongly labeled example is learned late, and until then the network names another class for it
(Pleiss et al. 2020, arXiv 2001.10528; Liu et al. 2020, arXiv 2007.00151). The loop adds
the logits that every step computes anyway to sums over the steps, by scatter; being state
(`TrainState.dynamics`), they are saved and resumed with everything else.

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
from jaxrobust.methods.method import TrainState

CURVE_PARTS, PREDICTION_PARTS = 32, 4  # at most
SMALL, LARGE = 1 << 23, 1 << 26  # entries: of an array in parts, of any array, at most


class Dynamics(NamedTuple):
    """Averages of what was seen of each training example.

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


def empty(
    num_examples: int, num_classes: int, epochs: int, predicted: bool = False
) -> dict[str, jax.Array]:
    """Returns sums of nothing yet: `TrainState.dynamics` before the first step.

    "count" and "loss" float32 [N, S]; "probability" float32 [N, P, K] where that is not too large;
    if `predicted`, "predicted" int32 [N], the class when an example was last met, -1 before.
    """
    s, p = parts(num_examples, num_classes, epochs)
    sums = {name: jnp.zeros((num_examples, s), jnp.float32) for name in ("count", "loss")}
    if p:
        sums["probability"] = jnp.zeros((num_examples, p, num_classes), jnp.float32)
    if predicted:
        sums["predicted"] = jnp.full((num_examples,), -1, jnp.int32)
    return sums


def record(
    sums: dict[str, jax.Array], batch: Batch, logits: jax.Array, epoch: jax.Array, epochs: int
) -> dict[str, jax.Array]:
    """Adds a step of `epoch` of `epochs` to the sums; nothing if nothing is recorded.

    The logits [B, K] are those of the training step: before its update, on the augmented example,
    batch norm in training mode. A step costs one softmax of [B, K] and scatters of B rows more.
    """
    return add(sums, batch, logits, epoch * sums["count"].shape[1] // epochs) if sums else sums


def add(
    sums: dict[str, jax.Array], batch: Batch, logits: jax.Array, part: jax.Array
) -> dict[str, jax.Array]:
    """Adds a batch, `logits` [B, K], to the sums; padding rows count nothing."""
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
    if "predicted" in sums:
        rows = jnp.where(batch["where"], index, len(sums["predicted"]))
        now = jnp.argmax(logits, -1).astype(jnp.int32)
        sums["predicted"] = sums["predicted"].at[rows].set(now, mode="drop")
    return sums


def gathered(state: TrainState) -> Dynamics:
    """Returns, on the host, the averages of what `record` has added to a state so far."""
    sums = {name: np.asarray(value) for name, value in state.dynamics.items()}
    count, mean = sums["count"], sums.get("probability")
    with np.errstate(invalid="ignore"):
        curves = sums["loss"] / count
        if mean is not None:
            last = ends(count.shape[1], mean.shape[1])
            mean = np.cumsum(mean, axis=1) / np.cumsum(count, axis=1)[:, last - 1, None]
    return Dynamics(curves, mean)
