"""Sources of evidence: what each says of every label, in one form.

Predictions (out of sample, of annotators, averaged over a training) go through one decision, see
`decision`; loss curves and weights, numbers that name no class, through a mixture, see `mixture`.

Symbols: N examples, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrobust.audit import decision, mixture, noise_model
from jaxrobust.audit import evidence as ev
from jaxrobust.audit.evidence import Evidence
from jaxrobust.audit.validation import Given

WEAK = 0.6  # fraction of contradicted labels
DIFFER = 0.05  # of the two rates
CONFIDENT = 0.12  # by which the mean confidence exceeds the agreement with the given labels
FEW = 10  # examples of a class
MEMORIZED = 0.995  # agreement from the beginning of a training
ORDER = 0.5  # agreement that another order of the columns must gain


class Source(NamedTuple):
    """What one source says.

    Attributes:
      odds: float64 [N], suspicion.
      rate, interval: fraction of wrong labels, with a 95 % interval.
      margin: float64 [N], above zero where it names another class as more probable; None where it
        names no class.
      best: int32 [N], the most probable class other than the given one, or None.
      joint: float64 [K, K], expected counts [true, given], or None.
      codes: of checks, see `checks.CHECKS`.
    """

    odds: np.ndarray
    rate: float
    interval: tuple[float, float]
    margin: np.ndarray | None = None
    best: np.ndarray | None = None
    joint: np.ndarray | None = None
    codes: tuple[str, ...] = ()


def read(given: Given, seed: int) -> dict[str, Source]:
    """Returns the sources by name, in the order of their importance."""
    labels, k = given.labels, len(given.class_names)
    found: dict[str, Source] = {}
    if given.training_probabilities is not None:
        found["dynamics"] = of_training(given.training_probabilities, labels, seed)
    elif given.curves is not None:
        candidates = ev.from_curves(given.curves, k)
        chosen = candidates[mixture.choose(candidates, labels, k, seed)]
        found["dynamics"] = of_numbers(chosen, labels, k, seed)
    if given.probabilities is not None:
        found["prediction"] = of_predictions(given.probabilities, labels, seed)
    if given.agreement is not None:
        found["annotators"] = of_annotators(given.agreement, labels)
    for name, values in given.weights.items():
        found[name] = of_numbers(ev.from_weights(values), labels, k, seed)
    return found


def of_numbers(evidence: Evidence, labels: np.ndarray, k: int, seed: int) -> Source:
    """Returns what numbers that name no class say, by a mixture."""
    odds = mixture.odds_of(evidence, labels, k, seed)
    rate = float(mixture.probability(odds).mean())
    return Source(odds, rate, mixture.interval(evidence, odds, labels, k, seed))


def of_predictions(p: np.ndarray, labels: np.ndarray, seed: int) -> Source:
    """Returns what predictions p [N, K] say, by the noise model."""
    n, k = p.shape
    if n > 2 and _constant(p[decision.sample(n, k, seed)]) and _constant(p):
        return Source(np.zeros(n), 0.0, (0.0, 1.0), np.full(n, -1.0), labels,
                      np.diag(np.bincount(labels, minlength=k)).astype(float), ("collapsed",))
    d = decision.decide(p, labels, seed)
    return Source(d.odds, d.rate, d.interval, d.margin, d.best, d.joint, _codes(d, p, labels))


def _constant(p: np.ndarray) -> bool:
    p = p[np.isfinite(p[:, 0])]
    return len(p) == 0 or float((p.max(0) - p.min(0)).max()) < 1e-4


def of_annotators(agreement: np.ndarray, labels: np.ndarray) -> Source:
    """Returns what the annotators' disagreement [N, K] says of their consensus."""
    n, k = agreement.shape
    p = np.clip(agreement, 1e-6, None)
    p = p / p.sum(1, keepdims=True)
    odds = noise_model.wrong_odds(p, labels)
    rate = float(1 - p[np.arange(n), labels].mean())
    spread = 2 * np.sqrt(rate * (1 - rate) / n)
    others = p.copy()
    others[np.arange(n), labels] = 0
    margin = np.log(np.maximum(others.max(1), 1e-12)) - np.log(p[np.arange(n), labels])
    return Source(odds, rate, (max(rate - spread, 0.0), min(rate + spread, 1.0)), margin,
                  others.argmax(1).astype(np.int32), noise_model.soft_counts(p, labels))


def of_training(p: np.ndarray, labels: np.ndarray, seed: int) -> Source:
    """Returns what predictions [N, P, K], averaged over P growing beginnings of a training, say.

    A network learns right labels first and wrong ones, if at all, later; how much later depends on
    the loss and the schedule. So one of the P is chosen (`mixture.choose`). The predictions are of
    a network that has seen the labels: what it has memorized does not show, so the interval extends
    to the rate of the mixture and to all labels that were contradicted.
    """
    k = p.shape[2]
    candidates = ev.from_training(p, labels)
    i = mixture.choose(candidates, labels, k, seed)
    chosen = np.ascontiguousarray(p[:, i])
    source = of_predictions(chosen, labels, seed)
    odds = mixture.odds_of(candidates[i], labels, k, seed)
    known = np.isfinite(chosen[:, 0])
    contradicted = float((source.margin[known] > 0).mean())
    low, high = mixture.interval(candidates[i], odds, labels, k, seed)
    low, high = min(low, source.interval[0]), max(high, source.interval[1], contradicted)
    first = p[np.isfinite(p[:, 0, 0]), 0]
    agree = float((first.argmax(1) == labels[np.isfinite(p[:, 0, 0])]).mean()) if len(first) else 0
    if agree > MEMORIZED and p.shape[1] > 1:
        return source._replace(interval=(low, max(high, 0.5)),
                               codes=(*source.codes, "memorized"))
    return source._replace(interval=(low, high))


def _codes(d: decision.Decision, p: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """Returns the codes of what makes predictions doubtful."""
    rows = np.flatnonzero(np.isfinite(p[:, 0]))
    rows = rows[decision.sample(len(rows), p.shape[1], 0)]
    block, given = p[rows], labels[rows]
    named, contradicted = block.argmax(1), float(d.contradicted[rows].mean())
    codes = []
    if contradicted > WEAK:
        k = p.shape[1]
        table = np.bincount(named.astype(np.int64) * k + given, minlength=k * k).reshape(k, k)
        other = table.max(1).sum() / max(table.sum(), 1)
        codes.append("column_order" if other - (1 - contradicted) > ORDER else "weak_model")
    if float(block.max(1).mean()) - (1 - contradicted) > CONFIDENT + 1 / np.sqrt(len(rows)):
        codes.append("overconfident")
    if abs(d.free - d.held) > DIFFER:
        codes.append("two_fits_differ")
    count = np.bincount(labels, minlength=p.shape[1])
    if count[count > 0].min() < FEW:
        codes.append("few_examples")
    return tuple(codes)
