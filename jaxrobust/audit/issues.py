"""`find_label_issues`: one calibrated score per example, from whatever evidence there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.audit import evidence as ev
from jaxrobust.audit import mixture, validation
from jaxrobust.audit.evidence import Evidence
from jaxrobust.errors import check

# How much the sources' log-odds count in the combination. A network that has not seen a label makes
# mistakes of its own, which look like wrong labels; dynamics show how the label itself was learned.
RELIANCE = {"dynamics": 3.0}  # others 1
NO_GAIN = 0.01  # nats an example
GREAT_GAIN = 0.05  # above which most labels may be wrong though the network learned them all
NONE_BELOW = 0.002  # a noise rate that is as good as none
LIMIT = 12.0  # that a source's log-odds approach: none is surer than that
RESAMPLES, RESAMPLED = 20, 4000  # of the bootstrap, and examples in each at most


@dataclasses.dataclass(frozen=True)
class LabelIssues:
    """What was found, for N examples of K classes; columns are named as cleanlab names them.

    Attributes:
      index: int64 [N], row of each example.
      paths: N names (files, ids), or None.
      given_label: int32 [N].
      predicted_label: int32 [N], the given label, or where that is probably wrong the class
        suggested in its place; -1 where no prediction was given to take one from.
      label_score: float64 [N], probability that the given label is right.
      is_label_issue: bool [N].
      weight: float64 [N], a weight for training: the learned one where there is one, else the
        score.
      rank: int64 [N], 1 for the most suspect example.
      class_names: K names.
      scores: by source of evidence, what the score would be from it alone, float64 [N] each.
      noise_matrix: float64 [K, K], estimated T[true, given], rows sum to one: the transpose of
        cleanlab's; that of a class which is neither given nor suggested is one on the diagonal.
        None without predictions.
      noise_rate, noise_rate_interval: estimated share of wrong labels, with a 95 % interval.
      notes: lines to tell the user.
    """

    index: np.ndarray
    paths: tuple[str, ...] | None
    given_label: np.ndarray
    predicted_label: np.ndarray
    label_score: np.ndarray
    is_label_issue: np.ndarray
    weight: np.ndarray
    rank: np.ndarray
    class_names: tuple[str, ...]
    scores: dict[str, np.ndarray]
    noise_matrix: np.ndarray | None
    noise_rate: float
    noise_rate_interval: tuple[float, float]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label_score)

    @property
    def indices(self) -> np.ndarray:
        """Rows of the examples whose label is probably wrong, the most suspect first."""
        order = np.argsort(self.rank)
        return self.index[order[self.is_label_issue[order]]]

    @property
    def num_issues(self) -> int:
        return int(self.is_label_issue.sum())

    @property
    def num_issues_interval(self) -> tuple[int, int]:
        """95 % interval of the number of wrong labels."""
        low, high = self.noise_rate_interval
        return round(low * len(self)), round(high * len(self))

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the table with names of classes, most suspect first; ready for pandas."""
        order = np.argsort(self.rank)
        names = np.array([*self.class_names, ""], object)
        where = {"index": self.index[order]}
        if self.paths is not None:
            where["path"] = np.array(self.paths, object)[order]
        return where | {
            "given_label": names[self.given_label[order]],
            "predicted_label": names[self.predicted_label[order]],
            "label_score": self.label_score[order],
            "is_label_issue": self.is_label_issue[order],
            "weight": self.weight[order],
            "rank": self.rank[order],
        }


def find_label_issues(
    labels: Any,
    *,
    probabilities: Any = None,
    training_probabilities: Any = None,
    curves: Any = None,
    weights: Any = None,
    class_names: Sequence[str] | None = None,
    paths: Sequence[str] | None = None,
    index: Any = None,
    seed: int = 0,
) -> LabelIssues:
    """Says which labels are probably wrong.

    Give at least one kind of evidence; each has its own score, and all together give the score.
    Nothing is known or asked about how many labels are wrong.

    Args:
      labels: [N] class numbers, or class names.
      probabilities: [N, K] predictions of networks that have not been trained on the example
        (cross-validation); rows sum to one.
      training_probabilities: [N, K] or [N, P, K], predictions averaged over the epochs of a
        training on these labels, or over P ever longer beginnings of it (an eighth, a quarter, a
        half, all); NaN where unknown.
      curves: [N, T], losses to the given label over the epochs of a training; NaN where unknown.
      weights: [N], how far a method trusted each label (not negative), or a mapping from names to
        such arrays.
      class_names: K names; default: the distinct labels if these are names, else the numbers.
      paths: N names of the examples.
      index: int [N], their rows elsewhere; default 0 ... N-1.
      seed: of the samples and of the bootstrap.

    Returns:
      See `LabelIssues`.

    Raises:
      UserError: no evidence; lengths that differ; labels outside the classes; predictions that do
        not sum to one; fewer than two classes.

    Example:
      >>> true = np.arange(200) % 4
      >>> labels = np.where(np.arange(200) < 20, (true + 1) % 4, true)  # the first 20 are wrong
      >>> found = find_label_issues(labels, probabilities=0.8 * np.eye(4)[true] + 0.05)
      >>> sorted(found.indices.tolist()) == list(range(20))
      True
    """
    given = validation.read(labels, probabilities, training_probabilities, curves, weights,
                        class_names, paths, index)
    codes, k = given.labels, len(given.class_names)
    parts = {name: _fit(found, codes, k, seed) for name, found in _sources(given).items()}
    odds = combine({name: part.odds for name, part in parts.items()})
    score = 1 - mixture.probability(odds)
    rate = float(1 - score.mean())
    rank = np.empty(len(score), np.int64)
    rank[np.lexsort((np.arange(len(score)), -odds))] = np.arange(1, len(score) + 1)
    predicted, matrix = _suggest(parts, score, codes, k)
    return LabelIssues(
        index=given.index, paths=given.paths, given_label=codes, predicted_label=predicted,
        label_score=score, is_label_issue=(score < 0.5) & (rank <= round(rate * len(score))),
        weight=next(iter(given.weights.values()), score), rank=rank,
        class_names=given.class_names,
        scores={name: 1 - mixture.probability(limited(part.odds)) for name, part in parts.items()},
        noise_matrix=matrix, noise_rate=rate, noise_rate_interval=_interval(parts, codes, k, seed),
        notes=_notes(rate, parts),
    )


class _Part(NamedTuple):
    """A source: its evidence, the mixture fitted to it, log-odds [N] of a wrong label."""

    evidence: Evidence
    fitted: mixture.Mixture
    odds: np.ndarray


def _sources(given: validation.Given) -> dict[str, list[Evidence]]:
    """Returns each source's answers, of which the one that tells most is to be taken."""
    sources: dict[str, list[Evidence]] = {}
    if given.training_probabilities is not None:
        sources["dynamics"] = ev.from_training(given.training_probabilities, given.labels)
    elif given.curves is not None:
        sources["dynamics"] = ev.from_curves(given.curves, len(given.class_names))
    if given.probabilities is not None:
        sources["prediction"] = [ev.from_probabilities(given.probabilities, given.labels)]
    for name, values in given.weights.items():
        sources[name] = [ev.from_weights(values)]
    check(bool(sources), "Give predictions, curves or weights: there is no evidence to go by.")
    return sources


def _fit(answers: list[Evidence], labels: np.ndarray, k: int, seed: int) -> _Part:
    """Fits each answer and takes the one in which two kinds explain most; where in none they
    explain more than one kind, that in which they stand farthest apart, the earlier the rather.

    An earlier answer than the last is better only once wrong labels are being learned: when more
    given labels are named than are right. One in which most labels look wrong, but few in the end,
    was too early: the network had learned nothing yet.

    The odds are those of one rate of wrong labels for all classes: with a rate for each, classes
    that are learned badly pass for mislabelled ones.
    """
    rows = mixture.sample(len(labels), k, seed)
    fits = [mixture.fit(found.take(rows), labels[rows], k) for found in answers]
    rates = [f.rate[labels[rows]].mean() for f in fits]
    begun = [
        i for i, f in enumerate(fits) if f.gain > GREAT_GAIN or not rates[i] > 0.5 > rates[-1]
    ]
    gains = [f.gain if f.gain > NO_GAIN else 0.0 for f in fits]
    apart = [f.distance * 0.9**i for i, f in enumerate(fits)]
    best = max(begun, key=lambda i: (gains[i], apart[i]))

    def part_of(i: int) -> _Part:
        fitted = mixture.fit(answers[i].take(rows), labels[rows], k, common=True)
        return _Part(answers[i], fitted, mixture.log_odds(fitted, answers[i], labels))

    part = part_of(best)
    known = answers[-1].value[np.isfinite(answers[-1].value)]
    learned = (known < 0).mean() if len(known) else 1.0
    if best < len(fits) - 1 and learned + mixture.probability(part.odds).mean() < 1:
        return part_of(len(fits) - 1)
    return part


def combine(odds: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the weighted mean of the sources' log-odds [N].

    A mean, not a sum: the sources tell of the same examples, learned by the same kind of network.
    """
    weights = {name: RELIANCE.get(name, 1.0) for name in odds}
    total = sum(weights.values())
    parts = (w / total * limited(odds[name]) for name, w in weights.items())
    return np.asarray(sum(parts))


def limited(odds: np.ndarray) -> np.ndarray:
    """Returns log-odds within `LIMIT`, in the same order."""
    return LIMIT * np.tanh(odds / LIMIT)


def _suggest(parts: dict[str, _Part], score, labels, k) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the suggested labels [N] and the noise matrix [K, K] of the combined score."""
    naming = [p for p in parts.values() if p.evidence.classes is not None]
    if not naming:
        return np.full(len(score), -1, np.int32), None
    found, fitted, _ = max(naming, key=lambda p: p.fitted.gain)
    share = found.belief.astype(np.float64)
    if fitted.named is not None:
        share = share * fitted.named[found.classes, labels[:, None]]
    share /= np.maximum(share.sum(1, keepdims=True), 1e-30)
    best = found.classes[np.arange(len(labels)), share.argmax(1)]
    place = found.classes.astype(np.int64) * k + labels[:, None]
    joint = np.bincount(place.ravel(), (share * (1 - score)[:, None]).ravel(), k * k).reshape(k, k)
    joint[np.arange(k), np.arange(k)] += np.bincount(labels, score, k)
    total = joint.sum(1, keepdims=True)
    predicted = np.where(score < 0.5, best, labels).astype(np.int32)
    there = np.bincount(np.concatenate([labels, predicted]), minlength=k)[:, None] > 0
    return predicted, np.where(there, joint / np.maximum(total, 1e-12), np.eye(k))


def _notes(rate: float, parts: dict[str, _Part]) -> tuple[str, ...]:
    lines = []
    if rate < NONE_BELOW:
        lines.append("No label is found to be wrong.")
    if all(part.evidence.classes is None for part in parts.values()):
        lines.append("No predictions were given: no other label is suggested.")
    return tuple(lines)


def _interval(parts: dict[str, _Part], labels, k: int, seed: int) -> tuple[float, float]:
    """Returns a 95 % interval of the noise rate: bootstrap over the examples, each source fitted
    anew, and the uncertainty of each label. Errors of the model itself are not in it."""
    rng, n = np.random.default_rng(seed), len(labels)
    size, rates = min(n, RESAMPLED), []
    for _ in range(RESAMPLES):
        rows, odds = rng.integers(0, n, size), {}
        for name, part in parts.items():
            found, start = part.evidence.take(rows), mixture.probability(part.odds[rows])
            fitted = mixture.fit(found, labels[rows], k, start=start, steps=3, common=True)
            odds[name] = mixture.log_odds(fitted, found, labels[rows])
        rates.append(mixture.probability(combine(odds)).mean())
    p = mixture.probability(combine({name: part.odds for name, part in parts.items()}))
    variance = np.var(rates, ddof=1) * size / n + (p * (1 - p)).sum() / n**2
    low, high = p.mean() + 1.96 * np.sqrt(variance) * np.array([-1, 1])
    return float(max(low, 0)), float(min(high, 1))
