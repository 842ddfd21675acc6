"""Sources of evidence: what each says of every label, in one form.

Predictions (out of sample, of annotators, averaged over a training) go through one decision, see
`decision`; loss curves and weights, numbers that name no class, through a mixture, see `mixture`.

Symbols: N examples, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrobust.audit import decision, mixture, neighbors, noise_model
from jaxrobust.audit import evidence as ev
from jaxrobust.audit.evidence import Evidence
from jaxrobust.audit.validation import Given

LIMIT = 12.0  # that a source's log-odds approach: none is surer than that
SCORED = 20_000  # examples that the scores' shift is found from
WEAK = 0.6  # fraction of contradicted labels
DIFFER = 0.05  # of the two rates
CONFIDENT = 0.12  # by which the mean confidence exceeds the agreement with the given labels
FEW = 10  # examples of a class
TAIL = 20  # times the smallest class that the largest has
MEMORIZING = (1.2, 0.005)  # times and plus the rate: more was found in a shorter beginning
EARLIER = 2.0  # times the first two beginnings' difference: what came before
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
        return Source(
            np.zeros(n),
            0.0,
            (0.0, 1.0),
            np.full(n, -1.0),
            labels,
            np.diag(np.bincount(labels, minlength=k)).astype(float),
            ("collapsed",),
        )
    d = decision.decide(p, labels, seed)
    return Source(d.odds, d.rate, d.interval, d.margin, d.best, d.joint, _codes(d, p, labels))


def _constant(p: np.ndarray) -> bool:
    p = p[np.isfinite(p[:, 0])]
    return len(p) == 0 or float((p.max(0) - p.min(0)).max()) < 1e-4


def of_two_rounds(given: np.ndarray, true: np.ndarray, labels: np.ndarray, seed: int) -> Source:
    """Returns what predictions [N, K] of the given and of the true label say together; see
    `models.study`.

    Suspicion is the margin of their product. The rate lies halfway between that of the noise model
    of the first, which calls what may be overlap overlap, and the fraction of labels that the
    product contradicts, which calls it wrong; the interval holds both.
    """
    n, k = given.shape
    source = of_predictions(given, labels, seed)
    rows, floor = np.arange(n), noise_model.floor(k)
    logits = np.log(np.maximum(given, floor)) + np.log(np.maximum(true, floor))
    own = logits[rows, labels].copy()
    logits[rows, labels] = -np.inf
    best = logits.argmax(1).astype(np.int32)
    margin = logits[rows, best] - own
    if "collapsed" in source.codes:
        return source
    against = float((margin > 0).mean())
    low, high = source.interval
    return source._replace(
        odds=margin,
        margin=margin,
        best=best,
        rate=(source.rate + against) / 2,
        interval=(min(low, against), max(high, against)),
    )


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
    return Source(
        odds,
        rate,
        (max(rate - spread, 0.0), min(rate + spread, 1.0)),
        margin,
        others.argmax(1).astype(np.int32),
        noise_model.soft_counts(p, labels),
    )


def of_features(
    features: np.ndarray, labels: np.ndarray, k: int, seed: int
) -> tuple[Source, neighbors.Duplicates]:
    """Returns what the labels of the nearest neighbors say, and the duplicates among the examples.

    Where there are more than `neighbors.REFERENCES` examples, neighbors and near duplicates are
    sought among a random sample of so many; exact duplicates among all.
    """
    nearest = neighbors.nearest(features, seed=seed)
    p = neighbors.label_probabilities(nearest, labels, k)
    pairs = neighbors.duplicates(features, labels, nearest)
    source = of_predictions(p, labels, seed)
    codes = source.codes
    x = neighbors.unit(features)
    if float((x.max(0) - x.min(0)).max(initial=0)) < 1e-6:
        even = np.full((len(labels), k), 1 / k)
        return of_predictions(even, labels, seed), pairs
    if pairs.conflict.any():
        codes = (*codes, "duplicates_in_conflict")
    if nearest.references < len(labels):
        codes = (*codes, "sampled_neighbors")
    return source._replace(codes=codes), pairs


def of_training(p: np.ndarray, labels: np.ndarray, seed: int) -> Source:
    """Returns what predictions [N, P, K], averaged over P growing beginnings of a training, say.

    A network learns right labels first and wrong ones, if at all, later; how much later depends on
    the loss and the schedule. So one of the P is chosen (`mixture.choose`), unless the noise model
    finds more wrong labels in a shorter beginning: then the network has come to agree with them,
    and that beginning is taken. The network has seen the labels: what it begins to memorize looks
    right to the noise model, but not yet to the mixture, which compares examples with each other.
    So both count: the suspicion is the mean of their log-odds; the rate is the mean of the noise
    model's and of the mixture's, bounded by what is contradicted, and no less than the former; and
    the interval holds both and all that the earliest predictions contradict, or would have
    contradicted still earlier, if their number fell as fast before as it does after.
    """
    n, k = len(labels), p.shape[2]
    candidates = ev.from_training(p, labels)
    i, codes = mixture.choose(candidates, labels, k, seed), ()
    against = [_contradicted(p[:, j], labels) for j in range(p.shape[1])]
    rates = _rates(p, labels, against, seed)
    if max(rates) > MEMORIZING[0] * rates[i] + MEMORIZING[1]:
        i, codes = int(np.argmax(rates)), ("memorizing",)
    source = of_predictions(np.ascontiguousarray(p[:, i]), labels, seed)
    mixed = mixture.odds_of(candidates[i], labels, k, seed)
    bounded = min(float(mixture.probability(mixed).mean()), against[i])
    rate = max(source.rate, (source.rate + bounded) / 2)
    odds = (limited(mixed) + limited(source.odds)) / 2
    low, high = source.interval[0], max(source.interval[1], _earlier(against, n), rate)
    if against[0] < 1 - MEMORIZED and p.shape[1] > 1:
        high, codes = max(high, 0.5), ("memorized",)
    wrong = 1 - score_of(odds, rate)
    joint = np.bincount(np.asarray(source.best, np.int64) * k + labels, wrong, k * k).reshape(k, k)
    joint[np.arange(k), np.arange(k)] += np.bincount(labels, 1 - wrong, k)
    return source._replace(
        odds=odds,
        rate=rate,
        interval=(float(min(low, rate)), float(min(high, 1.0))),
        joint=joint,
        codes=(*source.codes, *codes),
    )


def _rates(p: np.ndarray, labels: np.ndarray, against: list[float], seed: int) -> list[float]:
    """Returns the lesser of the noise model's counts in each of the P beginnings [N, P, K], of a
    sample; 0 where most labels are contradicted, since the network had learned too little."""
    rows = np.flatnonzero(np.isfinite(p[:, :, 0]).all(1))
    rows = rows[decision.sample(len(rows), p.shape[2], seed)]
    rates = []
    for j in range(p.shape[1]):
        some = np.ascontiguousarray(p[rows, j])
        if len(rows) < 2 or against[j] > 0.5 or _constant(some):
            rates.append(0.0)
            continue
        d = decision.decide(some, labels[rows], seed)
        rates.append(min(d.free, d.held))
    return rates


def _earlier(against: list[float], n: int) -> float:
    """Returns what a still shorter beginning may have contradicted, with two standard errors."""
    first = against[0]
    if len(against) > 1:
        first += EARLIER * max(first - against[1], 0.0)
    first = min(first, 1.0)
    return first + 2 * np.sqrt(max(first, 1 / n) * (1 - min(first, 1 - 1 / n)) / n)


def _contradicted(p: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of labels than which the prediction [N, K] names another class."""
    known = np.isfinite(p[:, 0])
    return float((p[known].argmax(1) != labels[known]).mean()) if known.any() else 0.0


def limited(odds: np.ndarray) -> np.ndarray:
    """Returns log-odds within `LIMIT`, in the same order."""
    return LIMIT * np.tanh(odds / LIMIT)


def score_of(odds: np.ndarray, rate: float) -> np.ndarray:
    """Returns scores [N]: the logistic function of the negative suspicion, shifted so that their
    mean is 1 - rate."""
    low, high = -40.0, 40.0
    some = odds
    if len(odds) > SCORED:
        some = np.random.default_rng(0).choice(odds, SCORED)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _logistic(some + middle).mean() < rate else (low, middle)
    return _logistic(-odds - (low + high) / 2)


def _logistic(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(a, -60, 60)))


def _exchanged(table: np.ndarray) -> bool:
    """Whether some classes agree with each other's predictions instead of their own.

    Args:
      table: int [K, K], counts [named, given].
    """
    total, most = table.sum(1), table.argmax(1)
    rows = np.arange(len(table))
    moved = (most != rows) & (total >= FEW)
    moved &= (table[rows, most] > 0.5 * total) & (np.diag(table) < 0.25 * total)
    return bool(moved.any()) and {*rows[moved]} == {*most[moved]}


def _codes(d: decision.Decision, p: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """Returns the codes of what makes predictions doubtful."""
    rows = np.flatnonzero(np.isfinite(p[:, 0]))
    rows = rows[decision.sample(len(rows), p.shape[1], 0)]
    block, given = p[rows], labels[rows]
    named, contradicted = block.argmax(1), float(d.contradicted[rows].mean())
    k = p.shape[1]
    table = np.bincount(named.astype(np.int64) * k + given, minlength=k * k).reshape(k, k)
    other = table.max(1).sum() / max(table.sum(), 1)
    codes = []
    if _exchanged(table) or (contradicted > WEAK and other - (1 - contradicted) > ORDER):
        codes.append("column_order")
    elif contradicted > WEAK:
        codes.append("weak_model")
    if float(block.max(1).mean()) - (1 - contradicted) > CONFIDENT + 1 / np.sqrt(len(rows)):
        codes.append("overconfident")
    if abs(d.free - d.held) > DIFFER:
        codes.append("two_fits_differ")
    count = np.bincount(labels, minlength=p.shape[1])
    if count[count > 0].min() < FEW:
        codes.append("few_examples")
    if count.max() > TAIL * count[count > 0].min():
        codes.append("long_tail")
    return tuple(codes)
