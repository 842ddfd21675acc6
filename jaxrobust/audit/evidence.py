"""From predictions, loss curves and weights to evidence: numbers that are larger where the given
label is more suspect, and the classes that would stand in its place.

Symbols: N examples, K classes, T points of a curve, P parts of a training, A alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ALTERNATIVES = 3  # kept of each example
FLOOR = 0.01  # added to probabilities: below it differences say nothing
_CHUNK = 1 << 22  # entries of an [n, K] block


class Evidence(NamedTuple):
    """What one source says.

    Attributes:
      columns: float64 [N, S], larger where the label is more suspect; NaN where nothing is known.
      classes: int32 [N, A], the likeliest classes other than the given one; or None.
      belief: float32 [N, A], how far each of them is believed, summing to one; or None.
    """

    columns: np.ndarray
    classes: np.ndarray | None = None
    belief: np.ndarray | None = None


def chunks(n: int, k: int) -> Iterator[slice]:
    """Yields slices of rows such that a block [rows, k] stays small."""
    size = max(1, _CHUNK // max(k, 1))
    yield from (slice(i, min(i + size, n)) for i in range(0, n, size))


def from_probabilities(p: np.ndarray, labels: np.ndarray) -> Evidence:
    """Evidence of predictions p [N, K]: the log-ratio of the best other class to the given one."""
    n, k = p.shape
    count = min(ALTERNATIVES, k - 1)
    margin = np.empty(n)
    classes, belief = np.empty((n, count), np.int32), np.empty((n, count), np.float32)
    for rows in chunks(n, k):
        block = np.array(p[rows], np.float32)
        own = (np.arange(len(block)), labels[rows])
        given = block[own]
        block[own] = -1
        best = _largest(block, count)
        others = np.maximum(np.take_along_axis(block, best, 1), 0)
        margin[rows] = np.log((others[:, 0] + FLOOR) / (np.maximum(given, 0) + FLOOR))
        others += 1e-6
        classes[rows], belief[rows] = best, others / others.sum(1, keepdims=True)
    return Evidence(margin[:, None], classes, belief)


def _largest(block: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest entries of each row, largest first; changes `block`."""
    rows, found = np.arange(len(block)), np.empty((len(block), count), np.int32)
    values = np.empty(len(block), block.dtype)
    kept = []
    for i in range(count):
        found[:, i] = block.argmax(1)
        values = block[rows, found[:, i]]
        kept.append(values)
        block[rows, found[:, i]] = -2
    for i in range(count):
        block[rows, found[:, i]] = kept[i]
    return found


def from_training(p: np.ndarray, labels: np.ndarray) -> Evidence:
    """Evidence of predictions [N, P, K] averaged over consecutive parts of the training.

    A network learns right labels first and wrong ones, if at all, later; how much later depends on
    the loss and the schedule. So of the means over the first 1 ... P parts that one is taken in
    which suspect and unsuspect examples stand farthest apart (`separation`).
    """
    best, total = None, np.zeros((len(p), p.shape[2]), np.float32)
    for parts in range(p.shape[1]):
        total += np.nan_to_num(p[:, parts])
        mass = total.sum(1, keepdims=True)
        found = from_probabilities(total / np.maximum(mass, 1e-12), labels)
        found.columns[mass[:, 0] == 0] = np.nan
        value = separation(found.columns[:, 0])
        if best is None or value > best[0]:
            best = (value, found)
    return best[1]


def from_curves(curves: np.ndarray) -> Evidence:
    """Evidence of loss curves [N, T]: the mean over the first part of the training (as above)."""
    n, t = curves.shape
    ends = sorted({max(1, round(t * sixteenths / 16)) for sixteenths in (1, 2, 3, 4, 6, 8, 12, 16)})
    total, count, start, best = np.zeros(n), np.zeros(n), 0, None
    for end in ends:
        part = np.asarray(curves[:, start:end], np.float32)
        total += np.nansum(part, axis=1)
        count += np.isfinite(part).sum(1)
        start = end
        with np.errstate(invalid="ignore"):
            mean = total / count
        value = separation(mean)
        if best is None or value > best[0]:
            best = (value, mean)
    return Evidence(best[1][:, None])


def from_weights(weights: np.ndarray) -> Evidence:
    """Evidence of weights [N] in [0, max]: the log-odds that an example was not trusted."""
    w = np.clip(weights / max(float(weights.max()), 1e-12), FLOOR, 1 - FLOOR)
    return Evidence(np.log((1 - w) / w)[:, None])


def separation(x: np.ndarray) -> float:
    """How far two groups of a sample stand apart: the largest share, over all places to cut it,
    of its variance that lies between the two parts (Otsu 1979)."""
    return otsu(x)[0]


def otsu(x: np.ndarray, bins: int = 512) -> tuple[float, float]:
    """Returns the share of variance between the two parts of `x` at the best cut, and the cut."""
    x = x[np.isfinite(x)]
    if len(x) < 2 or np.ptp(x) == 0:
        return 0.0, float(x[0]) if len(x) else 0.0
    low, high = np.quantile(x, [0.001, 0.999])
    if low == high:
        low, high = x.min(), x.max()
    count, edges = np.histogram(np.clip(x, low, high), bins, (low, high))
    centre = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count) / len(x)
    sums = np.cumsum(count * centre) / len(x)
    mean = sums[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (mean * below - sums) ** 2 / (below * (1 - below))
    between = np.nan_to_num(between[:-1], posinf=0.0)
    cut = int(between.argmax())
    variance = float((count * (centre - mean) ** 2).sum() / len(x))
    return float(between[cut] / variance) if variance > 0 else 0.0, float(edges[cut + 1])
