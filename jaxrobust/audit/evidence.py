"""Label evidence from predictions, loss curves and weights.

Evidence is a number per example, larger where the given label is more suspect, and the classes that
the label may be instead.

Symbols: N examples, K classes, T points of a curve, P beginnings of a training, A alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ALTERNATIVES = 3  # kept of each example
FLOOR = 0.01  # added to probabilities: below it differences say nothing
EQUALISED = 0.5  # power of a class's mean probability that its probabilities are divided by
_CHUNK = 1 << 20  # entries of an [n, K] block

Moments = tuple[float, float]
"""Mean and variance."""


class Evidence(NamedTuple):
    """What one source says.

    Attributes:
      value: float64 [N], larger where the label is more suspect, above zero where the source, on
        its own, speaks against it; NaN where it says nothing.
      right, wrong: what the value would be had every label been right, or wrong.
      classes: int32 [N, A], the likeliest classes other than the given one; or None.
      belief: float32 [N, A], how far each of them is believed, summing to one; or None.
    """

    value: np.ndarray
    right: Moments
    wrong: Moments
    classes: np.ndarray | None = None
    belief: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Evidence:
        """Returns the evidence of some examples."""
        some = (None if a is None else a[rows] for a in (self.classes, self.belief))
        return Evidence(self.value[rows], self.right, self.wrong, *some)


def from_probabilities(p: np.ndarray, labels: np.ndarray) -> Evidence:
    """Evidence of predictions p [N, K]: the log-ratio of the best other class to the given one.

    Classes that are predicted less than others, as those of few examples are while they are not
    yet learned, are first brought nearer to them: p_k / mean(p_k)^EQUALISED. Had a label been that
    of the best class, the ratio would be that of the second to the best; had it been that of the
    second, the inverse. Rows that are NaN say nothing.
    """
    n, k = p.shape
    count = min(ALTERNATIVES, k - 1)
    factor = (np.nan_to_num(_mean(p)) + 1e-3) ** -EQUALISED
    value, gap = np.empty(n), np.empty(n)
    classes, belief = np.empty((n, count), np.int32), np.empty((n, count), np.float32)
    for rows in _chunks(n, k):
        block = p[rows] * factor.astype(np.float32)
        block /= np.maximum(block.sum(1, keepdims=True), 1e-12)
        own = (np.arange(len(block)), labels[rows])
        given = block[own]
        block[own] = -1
        best, others = _largest(block, count)
        given, others = np.maximum(given, 0), np.maximum(others, 0)
        margin = np.log((others[:, 0] + FLOOR) / (given + FLOOR))
        runner_up = given if count == 1 else np.maximum(given, others[:, 1])
        value[rows] = margin
        gap[rows] = np.where(
            margin > 0, np.log((others[:, 0] + FLOOR) / (runner_up + FLOOR)), -margin
        )
        others += 1e-6
        classes[rows], belief[rows] = best, others / others.sum(1, keepdims=True)
    classes, belief = np.maximum(classes, 0), np.nan_to_num(belief)
    mean, variance = _moments(gap)
    return Evidence(value, (-mean, variance), (mean, variance), classes, belief)


def _mean(p: np.ndarray) -> np.ndarray:
    """Returns float64 [K], the mean of the rows of p that are known."""
    total, known = np.zeros(p.shape[1]), 0
    for rows in _chunks(*p.shape):
        block = p[rows]
        seen = np.isfinite(block[:, 0])
        total += (block if seen.all() else block[seen]).sum(0, dtype=np.float64)
        known += int(seen.sum())
    return total / max(known, 1)


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(1, _CHUNK // k)
    yield from (slice(i, i + size) for i in range(0, n, size))


def _largest(block: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns columns and values of the `count` largest entries, largest first; spoils `block`."""
    rows = np.arange(len(block))
    columns = np.empty((len(block), count), np.int32)
    values = np.empty((len(block), count), block.dtype)
    for i in range(count):
        columns[:, i] = block.argmax(1)
        values[:, i] = block[rows, columns[:, i]]
        block[rows, columns[:, i]] = -2
    return columns, values


def _moments(x: np.ndarray) -> Moments:
    x = x[np.isfinite(x)]
    return (float(x.mean()), float(x.var())) if len(x) else (0.0, 1.0)


def from_training(p: np.ndarray, labels: np.ndarray) -> list[Evidence]:
    """Evidence of predictions [N, P, K] averaged over P ever longer beginnings of a training.

    A network learns right labels first and wrong ones, if at all, later; how much later depends on
    the loss and the schedule. So there are P answers, of which to take the one that tells most.
    """
    beginnings = (np.ascontiguousarray(p[:, i], np.float32) for i in range(p.shape[1]))
    return [from_probabilities(beginning, labels) for beginning in beginnings]


def from_curves(curves: np.ndarray, k: int) -> list[Evidence]:
    """Evidence of loss curves [N, T]: the mean over the first sixteenth, eighth, ... of them.

    Compared with the loss log K of a network that knows nothing: a right label would have none,
    a wrong one twice as much.
    """
    n, t = curves.shape
    total, count, start, answers = np.zeros(n), np.zeros(n), 0, []
    for end in sorted({max(1, round(t * sixteenths / 16)) for sixteenths in (1, 2, 4, 8, 16)}):
        part = np.asarray(curves[:, start:end])
        total += np.nansum(part, axis=1)
        count += np.isfinite(part).sum(1)
        start = end
        with np.errstate(invalid="ignore"):
            answers.append(Evidence(total / count / np.log(k) - 1, (-1.0, 0.25), (1.0, 0.25)))
    return answers


def from_weights(weights: np.ndarray) -> Evidence:
    """Evidence of weights [N] between 0 and their largest: the log-odds of not being trusted."""
    w = np.clip(weights / max(float(weights.max()), 1e-12), FLOOR, 1 - FLOOR)
    end = float(np.log(FLOOR / (1 - FLOOR)))
    return Evidence(np.log((1 - w) / w), (end, 1.0), (-end, 1.0))
