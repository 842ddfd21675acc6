"""Decision on predictions: suspicion of each label, number of wrong labels and its interval.

Two explanations of the same predictions are fitted (see `noise_model`). The *free* one lets EM find
the noise matrix from the noisiest start; it may say that classes overlap where labels are wrong.
The *held* one keeps T at the confident joint and recalibrates the prediction only; it may say that
labels are wrong where classes overlap. Predictions alone cannot tell which of the two is right, so
the two bracket what can be known: the suspicion of a label is the mean of both log-odds and of the
plain margin, and the interval holds both.

The rate is an average of order statistics of three counts: the free and the held one, and the
*bounded* one, in which the confident joint counts no more labels of a pair of classes as wrong than
the prediction contradicts. The held count is taken for no more than the bounded one, since weak
predictions of unequal classes make the confident joint too large; the median of the three guards
against the one that fails.

Symbols: N examples, K classes; free and held are `noise_model.Fit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxrobust.audit import noise_model as model
from jaxrobust.audit.noise_model import Fit

SAMPLE, PER_CLASS = 4000, 40  # rows that are fitted: at least so many, so many per class
ENTRIES, FEWEST = 1 << 21, 2000  # of many classes: rows x classes at most, and rows at least
MANY_CLASSES = 1000  # above: no inverse of T, no profile of the likelihood
HELD_ROUNDS = 12  # of EM with T held at the confident joint
HELD_SHARE = 0.75  # of the held explanation in the noise matrix
SOLID = 0.55  # smallest diagonal of T whose inverse is taken at its word
GAIN = 0.02  # nats per example that another inverse must gain
SCALES = (0.0, 0.3, 0.6, 1.0, 1.5, 2.2, 3.2)  # of T's off-diagonal in the profile
PROFILE_ROUNDS = 4
SLACK = (2.0, 0.005)  # log-likelihood that a scale may lose, per fit and per example
BEYOND = 1.05  # times the contradicted labels: the upper end of the interval
DOUBT = 0.5  # of the contradicted labels taken for the model's mistakes, by which the lower sinks
_CHUNK = 1 << 19  # entries of a block


class Fitted(NamedTuple):
    """What is fitted.

    Attributes:
      free, held: both explanations.
      inverse: of T, by which predictions are undone; or None.
      profile: least and greatest rate that the profile of the likelihood allows.
      bounded: rate by the bounded count.
    """

    free: Fit
    held: Fit
    inverse: np.ndarray | None
    profile: tuple[float, float]
    bounded: float


class Decision(NamedTuple):
    """What predictions say of each label.

    Attributes:
      odds: float64 [N], suspicion, in the order of which labels are wrong first.
      margin: float64 [N], log-ratio of the most probable other class to the given one.
      contradicted: bool [N], whether the prediction names another class as more probable.
      best: int32 [N], the most probable class other than the given one.
      joint: float64 [K, K], expected counts [true, given].
      rate: estimated fraction of wrong labels; `free` and `held`: of the two explanations.
      interval: 95 % interval of the rate.
    """

    odds: np.ndarray
    margin: np.ndarray
    contradicted: np.ndarray
    best: np.ndarray
    joint: np.ndarray
    rate: float
    free: float
    held: float
    interval: tuple[float, float]


def sample(n: int, k: int, seed: int) -> np.ndarray:
    """Returns the rows to fit to: all, or a random choice of `SAMPLE`, or `PER_CLASS` per class,
    bounded by `ENTRIES` where there are many classes."""
    most = min(max(SAMPLE, PER_CLASS * k), max(FEWEST, ENTRIES // k))
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def decide(p: np.ndarray, labels: np.ndarray, seed: int = 0) -> Decision:
    """Decides on the labels of predictions.

    Args:
      p: [N, K], probabilities; a row of NaN says nothing.
      labels: int [N].
      seed: of the rows that are fitted where there are many.
    """
    known = np.isfinite(p[:, 0])
    if not known.all():
        return _spread(decide(p[known], labels[known], seed), known)
    rows = sample(*p.shape, seed)
    return _pass(fit(np.asarray(p[rows], np.float32), labels[rows]), p, labels)


def _spread(d: Decision, known: np.ndarray) -> Decision:
    """Returns a decision on some examples as one on all; of the others nothing is said."""
    n = len(known)
    odds = np.full(n, np.log(max(d.rate, 1e-9)) - np.log(max(1 - d.rate, 1e-9)))
    margin, contradicted, best = np.zeros(n), np.zeros(n, bool), np.zeros(n, np.int32)
    odds[known], margin[known], best[known] = d.odds, d.margin, d.best
    contradicted[known] = d.contradicted
    return d._replace(odds=odds, margin=margin, contradicted=contradicted, best=best)


def fit(p: np.ndarray, labels: np.ndarray) -> Fitted:
    """Fits both explanations to predictions p [N, K]."""
    p = p / p.sum(1, keepdims=True)
    confident = model.confident_joint(p, labels)
    joint = model.stochastic(confident)
    z, inverse = model.log_predictions(p), None
    held = model.em(z, labels, joint, held=HELD_ROUNDS, free=0)
    undone = _inverse(joint)
    if undone is not None:
        z_undone = model.log_predictions(p, undone)
        other = model.em(z_undone, labels, joint, held=HELD_ROUNDS, free=0)
        gain = model.likelihood(other, z_undone, labels) - model.likelihood(held, z, labels)
        if gain > (0 if joint.diagonal().min() >= SOLID else GAIN):
            held, z, inverse = other, z_undone, undone
    free = model.em(z, labels, model.confident_matrix(p, labels))
    return Fitted(
        free, held, inverse, _profile(z, labels, free, held), _bounded(confident, p, labels)
    )


def _inverse(matrix: np.ndarray) -> np.ndarray | None:
    if len(matrix) > MANY_CLASSES:
        return None
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return None
    return inverse if np.isfinite(inverse).all() and np.abs(inverse).max() < 50 else None


def _profile(z, labels, free: Fit, held: Fit) -> tuple[float, float]:
    """Returns the least and greatest rate among noise matrices, T with its off-diagonal scaled,
    that explain the labels about as well as the best."""
    n, k = z.shape
    off = held.matrix * (1 - np.eye(k))
    found = [_rate(free, z, labels), _rate(held, z, labels)]
    for scale in SCALES if k <= MANY_CLASSES else ():
        scaled = off * np.minimum(scale, 0.9 / np.maximum(off.sum(1), 1e-9))[:, None]
        matrix = scaled + np.diag(1 - scaled.sum(1))
        fitted = model.em(z, labels, matrix, held=PROFILE_ROUNDS, free=0, start=held)
        found.append(_rate(fitted, z, labels))
    least = max(value for _, value in found) - (SLACK[0] / n + SLACK[1])
    kept = [rate for rate, value in found if value >= least]
    return min(kept), max(kept)


def _rate(fitted: Fit, z, labels) -> tuple[float, float]:
    r, value = model.posterior(fitted, z, labels)
    return float(1 - r[np.arange(len(z)), labels].mean()), float(value.mean())


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(1, _CHUNK // k)
    yield from (slice(i, i + size) for i in range(0, n, size))


def _pass(fitted: Fitted, p: np.ndarray, labels: np.ndarray) -> Decision:
    """Applies both explanations to every example, once."""
    n, k = p.shape
    odds, margins, best = np.zeros(n), np.zeros(n), np.zeros(n, np.int32)
    contradicted = np.zeros(n, bool)
    joints = np.zeros((2, k, k))
    for rows in _chunks(n, k):
        block, given = p[rows].astype(np.float32), labels[rows]
        own = (np.arange(len(block)), given)
        z = model.log_predictions(block)
        undone = z if fitted.inverse is None else model.log_predictions(block, fitted.inverse)
        total = 0.0
        for i, explanation in enumerate((fitted.free, fitted.held)):
            suspicion, counts = model.apply(explanation, undone, given)
            total = total + suspicion
            joints[i] += counts
        share = block[own].copy()
        block[own] = -1
        best[rows] = block.argmax(1)
        largest = block[own[0], best[rows]]
        contradicted[rows] = largest > share
        margins[rows] = _log_ratio(largest, share, model.floor(k))
        odds[rows] = (total + margins[rows] + 1e-4 * _log_ratio(largest, share, model.TINY)) / 3
    free, held = (float(1 - joint.trace() / n) for joint in joints)
    bounded = fitted.bounded
    rate = (min(held, bounded) + float(np.median([free, held, bounded]))) / 2
    joint = _scaled((1 - HELD_SHARE) * joints[0] + HELD_SHARE * joints[1], rate)
    interval = _interval((*fitted.profile, free, held, rate), contradicted.mean(), n)
    return Decision(odds, margins, contradicted, best, joint, rate, free, held, interval)


def _bounded(confident: np.ndarray, p: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of wrong labels by the confident joint (counts [true, given]), but of no
    pair of classes more than are contradicted by p [N, K]."""
    k = len(confident)
    named = p.argmax(1).astype(np.int64)
    against = np.bincount(named * k + labels, minlength=k * k).reshape(k, k)
    least = np.minimum(confident, against)
    return float((least.sum() - least.trace()) / len(labels))


def _scaled(joint: np.ndarray, rate: float) -> np.ndarray:
    """Returns counts [true, given] whose off-diagonal is scaled to a rate, columns sums kept."""
    off = joint * (1 - np.eye(len(joint)))
    off *= rate * joint.sum() / max(off.sum(), 1e-12)
    size = joint.sum(0)
    off *= np.minimum(1, size / np.maximum(off.sum(0), 1e-12))
    return off + np.diag(size - off.sum(0))


def _log_ratio(a: np.ndarray, b: np.ndarray, least: float) -> np.ndarray:
    return np.log(np.maximum(a, least, dtype=float)) - np.log(np.maximum(b, least, dtype=float))


def _interval(rates: tuple[float, ...], contradicted: float, n: int) -> tuple[float, float]:
    """Returns the interval that holds the rates and what the contradicted labels allow.

    A contradicted label is wrong, or the prediction is. The upper end reaches all of them and a
    little more, for wrong labels that the model has come to agree with; the lower end goes down by
    as much as half of those that the least rate takes for mistakes of the model: where these are
    many, the others may be, too. Both are widened by two binomial standard deviations.
    """
    low, high = min(rates), max(*rates, BEYOND * contradicted)
    low -= DOUBT * max(contradicted - low, 0)
    low -= 2 * np.sqrt(max(low, 0) * (1 - low) / n)
    high += 2 * np.sqrt(max(high, 1 / n) * (1 - min(high, 1 - 1 / n)) / n)
    return float(max(low, 0)), float(min(high, 1))
