"""`find_label_issues`: one calibrated score per example, from whatever evidence there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrobust.audit import evidence as ev
from jaxrobust.audit import inputs, mixture
from jaxrobust.audit.evidence import Evidence
from jaxrobust.errors import check


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
        cleanlab's; None without predictions.
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
        training on these labels, or over each of P consecutive parts of it; NaN where unknown.
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
      >>> issues = find_label_issues(labels, probabilities=p)   # doctest: +SKIP
      >>> issues.indices[:10], issues.noise_rate                # doctest: +SKIP
    """
    given = inputs.read(labels, probabilities, training_probabilities, curves, weights,
                        class_names, paths, index)
    codes, k = given.labels, len(given.class_names)
    sources = _sources(given)
    scores, combined = {}, []
    for name, found in sources.items():
        fitted = mixture.fit(found, codes, k, seed)
        scores[name] = 1 - mixture.probability(mixture.log_odds(fitted, found, codes))
        combined.append(found)
    together = _join(list(sources.values()))
    fitted = mixture.fit(together, codes, k, seed)
    odds = mixture.log_odds(fitted, together, codes)
    score = 1 - mixture.probability(odds)
    rank = np.empty(len(score), np.int64)
    rank[np.lexsort((np.arange(len(score)), -odds))] = np.arange(1, len(score) + 1)
    rate = float(1 - score.mean())
    issue = (score < 0.5) & (rank <= round(rate * len(score)))
    predicted = np.full(len(score), -1, np.int32)
    matrix = None
    if together.classes is not None:
        posterior = together.belief * fitted.wrong[together.classes, codes[:, None]]
        best = posterior.argmax(1)
        predicted = np.where(score < 0.5, together.classes[np.arange(len(codes)), best], codes)
        matrix = _noise_matrix(score, together.classes, posterior, codes, k)
    low, high = _interval(score, seed)
    return LabelIssues(
        index=given.index, paths=given.paths, given_label=codes,
        predicted_label=predicted.astype(np.int32), label_score=score, is_label_issue=issue,
        weight=next(iter(given.weights.values()), score), rank=rank,
        class_names=given.class_names, scores=scores, noise_matrix=matrix, noise_rate=rate,
        noise_rate_interval=(low, high),
    )


def _sources(given: inputs.Given) -> dict[str, Evidence]:
    sources: dict[str, Evidence] = {}
    dynamics = []
    if given.training_probabilities is not None:
        dynamics.append(ev.from_training(given.training_probabilities, given.labels))
    if given.curves is not None:
        dynamics.append(ev.from_curves(given.curves))
    if dynamics:
        sources["dynamics"] = _join(dynamics)
    if given.probabilities is not None:
        sources["prediction"] = ev.from_probabilities(given.probabilities, given.labels)
    for name, values in given.weights.items():
        sources[name] = ev.from_weights(values)
    check(bool(sources), "Give predictions, curves or weights: there is no evidence to go by.")
    return sources


def _join(parts: list[Evidence]) -> Evidence:
    """Puts columns side by side; alternatives are those of the first part that names some."""
    columns = np.concatenate([p.columns for p in parts], axis=1)
    naming = next((p for p in parts if p.classes is not None), Evidence(columns))
    return Evidence(columns, naming.classes, naming.belief)


def _noise_matrix(score, classes, posterior, labels, k) -> np.ndarray:
    share = posterior / np.maximum(posterior.sum(1, keepdims=True), 1e-30)
    place = classes.astype(np.int64) * k + labels[:, None]
    joint = np.bincount(place.ravel(), (share * (1 - score)[:, None]).ravel(), k * k)
    joint = joint.reshape(k, k)
    joint[np.arange(k), np.arange(k)] += np.bincount(labels, score, k)
    total = joint.sum(1, keepdims=True)
    return np.where(total > 0, joint / np.maximum(total, 1e-12), np.eye(k))


def _interval(score: np.ndarray, seed: int) -> tuple[float, float]:
    mean, n = 1 - score.mean(), len(score)
    spread = 1.96 * np.sqrt(max(mean * (1 - mean), 0) / n)
    return float(max(mean - spread, 0)), float(min(mean + spread, 1))
