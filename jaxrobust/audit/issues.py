"""`find_label_issues`: a suspicion per label and their number, from whatever evidence there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxrobust.audit import checks, collapse, neighbors, sources, validation
from jaxrobust.audit.cross_validation import out_of_sample
from jaxrobust.audit.neighbors import Duplicates
from jaxrobust.audit.recorder import Recorder
from jaxrobust.audit.sources import Source, limited, score_of
from jaxrobust.data import crowd as crowds
from jaxrobust.data.class_labels import similar
from jaxrobust.errors import check

# How much a source counts in the combination. A network that has not seen a label makes mistakes of
# its own, which look like wrong labels; dynamics show how the label itself was learned.
RELIANCE = {"dynamics": 3.0}  # others 1
METHOD = "dawid_skene"  # of the consensus of annotators


@dataclasses.dataclass(frozen=True, eq=False)
class LabelIssues:
    """Label issues of N examples of K classes; columns are named as cleanlab names them.

    Attributes:
      index: int64 [N], row of each example.
      paths: N names (files, ids), or None.
      given_label: int32 [N].
      predicted_label: int32 [N], the given label, or where that is probably wrong the class
        suggested in its place; -1 where no prediction was given to take one from.
      label_score: float64 [N], in [0, 1], smaller where the label is more suspect; its mean is the
        estimated fraction of right labels. Roughly the probability that the label is right: its
        expected calibration error is about .05 in the mean over the cells of
        `python -m benchmarks.audit_battery`, more where labels are wrong where classes are alike.
      is_label_issue: bool [N].
      weight: float64 [N], a weight for training: the learned one where there is one, else the
        score.
      rank: int64 [N], 1 for the most suspect example.
      class_names: K names.
      scores: by source of evidence, what the score would be from it alone, float64 [N] each.
      noise_matrix: float64 [K, K], estimated T[true, given], rows sum to one: the transpose of
        cleanlab's; that of a class which is neither given nor suggested is one on the diagonal.
        None without predictions.
      noise_rate, noise_rate_interval: estimated fraction of wrong labels, with a 95 % interval.
      codes: codes of the checks that something was found by, see `checks.CHECKS`.
      notes: the same in words, a line each: cause, remedy, code.
      duplicates: pairs of examples with the same features, where features were given; see
        `neighbors.Duplicates`. Where their labels differ, one of the two is certainly wrong.
      test_in_train: int64 [L, 2], rows of test examples and of the training examples that they
        repeat, exactly or nearly, where `test_features` were given.
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
    duplicates: Duplicates | None = None
    test_in_train: np.ndarray | None = None
    codes: tuple[str, ...] = ()

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

    def take(self, rows: np.ndarray) -> LabelIssues:
        """Returns the issues of the examples `rows`; ranks stay those among all."""
        names = (
            "index",
            "given_label",
            "predicted_label",
            "label_score",
            "is_label_issue",
            "weight",
            "rank",
        )
        parts = {name: getattr(self, name)[rows] for name in names}
        paths = None if self.paths is None else tuple(self.paths[i] for i in rows)
        scores = {name: score[rows] for name, score in self.scores.items()}
        return dataclasses.replace(self, paths=paths, scores=scores, **parts)

    def joined(self, other: LabelIssues) -> LabelIssues:
        """Returns these issues and those of other examples, ranked by score together; a score is
        NaN where its source of evidence is only the others'."""
        names = (
            "index",
            "given_label",
            "predicted_label",
            "label_score",
            "is_label_issue",
            "weight",
        )
        parts = {n: np.concatenate([getattr(self, n), getattr(other, n)]) for n in names}
        order = np.lexsort((parts["label_score"], ~parts["is_label_issue"]))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(1, len(order) + 1)
        paths = None
        if self.paths is not None and other.paths is not None:
            paths = (*self.paths, *other.paths)
        none = {"self": np.full(len(self), np.nan), "other": np.full(len(other), np.nan)}
        scores = {
            n: np.concatenate(
                [self.scores.get(n, none["self"]), other.scores.get(n, none["other"])]
            )
            for n in {**self.scores, **other.scores}
        }
        return dataclasses.replace(self, paths=paths, scores=scores, rank=rank, **parts)

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
    pred_probs: Any = None,
    *,
    probabilities: Any = None,
    true_probabilities: Any = None,
    model: Any = None,
    x: Any = None,
    folds: int = 5,
    groups: Any = None,
    recorder: Recorder | None = None,
    features: Any = None,
    test_features: Any = None,
    training_probabilities: Any = None,
    curves: Any = None,
    weights: Any = None,
    crowd: Literal["dawid_skene", "majority"] | None = None,
    votes: Any = None,
    class_names: Sequence[str] | None = None,
    paths: Sequence[str] | None = None,
    index: Any = None,
    seed: int = 0,
) -> LabelIssues:
    """Finds out which labels are probably wrong, and how many.

    Give at least one kind of evidence; each has its own score, and all together give the score.
    Nothing is known or asked about how many labels are wrong.

    Args:
      labels: [N] class numbers, or class names; or [N, A] of A annotators, NaN or None where one
        gave no label: their consensus is the given label, their disagreement is evidence.
      pred_probs: [N, K] predictions of models that have not been trained on the example
        (cross-validation); rows sum to one. An array of any library, or a DataFrame, whose columns
        are aligned with the classes by name.
      probabilities: the same as `pred_probs`, by another name.
      true_probabilities: [N, K] predictions of the true label, by models that have not been fitted
        to the example and to others as corrected by a first round, whose predictions are
        `pred_probs`; see `models.study`.
      model: a scikit-learn classifier (or `RobustClassifier`) to make such predictions with, by
        cross-validation on `x`; it is cloned.
      x: the N examples, for `model`.
      folds: number of folds, stratified by class, for `model`.
      groups: N groups (patients, sources) that no fold may part, for `model`.
      recorder: what a training recorded of its own examples, see `Recorder`; stands for
        `training_probabilities`.
      features: [N, D], embeddings or scaled columns in which alike examples are near to each other:
        what the labels of the nearest neighbors say, and duplicates with different labels (see
        `neighbors`).
      test_features: [M, D], those of the test examples: which of them are in the training data.
      training_probabilities: [N, K] or [N, P, K], predictions averaged over the epochs of a
        training on these labels, or cumulatively over its first 1/P, 2/P, ... P/P, or any P growing
        beginnings (an eighth, a quarter, a half, all); NaN where unknown.
      curves: [N, T], losses to the given label over the epochs of a training; NaN where unknown.
      weights: [N], how far a method trusted each label (not negative), or a mapping from names to
        such arrays.
      crowd: how annotators' labels are combined; default Dawid–Skene.
      votes: int [N, A], class numbers of annotators, -1 where one gave none, whose consensus is
        already in `labels`: their disagreement alone is evidence.
      class_names: K names, in the order of the columns; default: the distinct labels if these are
        names (sorted; numerically if all are whole numbers), else the numbers.
      paths: N names of the examples.
      index: int [N], their rows elsewhere; default 0 ... N-1.
      seed: of folds, samples and bootstrap.

    Returns:
      See `LabelIssues`.

    Raises:
      UserError: no evidence; lengths that differ; labels missing or outside the classes;
        predictions that do not sum to one; columns that are not the classes; fewer than two
        classes.

    Example:
      >>> true = np.arange(200) % 4
      >>> labels = np.where(np.arange(200) < 20, (true + 1) % 4, true)  # the first 20 are wrong
      >>> found = find_label_issues(labels, 0.8 * np.eye(4)[true] + 0.05)
      >>> sorted(found.indices.tolist()) == list(range(20))
      True
    """
    check(
        pred_probs is None or probabilities is None,
        "pred_probs and probabilities are two names of the same argument: pass one.",
    )
    check(pred_probs is None or model is None, "Pass pred_probs or model, not both.")
    if recorder is not None:
        check(training_probabilities is None, "Pass recorder or training_probabilities, not both.")
        training_probabilities = recorder.probabilities
    given = validation.read(
        labels,
        probabilities if pred_probs is None else pred_probs,
        training_probabilities,
        curves,
        weights,
        class_names,
        paths,
        index,
        crowd,
    )
    if votes is not None:
        agreement = crowds.consensus(np.asarray(votes), len(given.class_names), crowd or METHOD)[1]
        given = given._replace(agreement=agreement)
    if model is not None:
        check(given.probabilities is None, "Pass probabilities or model, not both.")
        p = out_of_sample(
            model, x, given.labels, len(given.class_names), folds=folds, groups=groups, seed=seed
        )
        given = given._replace(probabilities=p)
    found, pairs = sources.read(given, seed), None
    if true_probabilities is not None:
        check(
            given.probabilities is not None
            and np.shape(true_probabilities) == given.probabilities.shape,
            "true_probabilities needs pred_probs of its shape.",
        )
        found["prediction"] = sources.of_two_rounds(
            given.probabilities, np.asarray(true_probabilities), given.labels, seed
        )
    if features is not None:
        check(
            len(features) == len(given.labels),
            f"There are {len(features)} rows of features for {len(given.labels)} labels.",
        )
        found["neighbors"], pairs = sources.of_features(
            features, given.labels, len(given.class_names), seed
        )
    check(
        bool(found),
        "Give predictions, a model, a recorder, features, curves or weights: there is no evidence.",
    )
    issues = _decide(given, found, pairs, _collapse(given, found, true_probabilities))
    if test_features is None:
        return issues
    check(features is not None, "test_features are compared with features: pass these as well.")
    return _with_test(issues, neighbors.across(np.asarray(features), np.asarray(test_features)))


def _with_test(issues: LabelIssues, shared: np.ndarray) -> LabelIssues:
    """Returns the issues with the test examples that are among the training examples."""
    if not len(shared):
        return dataclasses.replace(issues, test_in_train=shared)
    line = checks.line("test_in_train", f"Test examples: {len(shared)}.")
    return dataclasses.replace(
        issues,
        test_in_train=shared,
        codes=(*issues.codes, "test_in_train"),
        notes=(*issues.notes, line),
    )


def _collapse(
    given: validation.Given, found: dict[str, Source], true_probabilities: Any
) -> collapse.Collapse:
    """Returns what the predictions, out of sample if there are any, show of their model."""
    during, seen = given.training_probabilities, given.probabilities is None
    predictions = [
        np.asarray(p) for p in (given.probabilities, true_probabilities) if p is not None
    ]
    if seen and during is not None:
        predictions = [during[:, -1]]
    named_already = {"collapsed", "column_order"}  # rightly: by the source itself
    if not predictions or any(named_already & {*source.codes} for source in found.values()):
        none = np.zeros(len(given.class_names), bool)
        return collapse.Collapse({}, none, none)
    return collapse.find(predictions, given.labels, given.class_names, seen=seen)


def _decide(
    given: validation.Given,
    found: dict[str, Source],
    pairs: Duplicates | None,
    collapsed: collapse.Collapse,
) -> LabelIssues:
    """Combines the sources: suspicion, rate, flags, suggestions, noise matrix, interval, notes."""
    codes, k, n = given.labels, len(given.class_names), len(given.labels)
    odds = combine({name: source.odds for name, source in found.items()})
    rate = float(_mean({name: source.rate for name, source in found.items()}))
    score = score_of(odds, rate)
    rank = np.empty(n, np.int64)
    rank[np.lexsort((np.arange(n), -odds))] = np.arange(1, n + 1)
    naming = {name: source for name, source in found.items() if source.margin is not None}
    if naming:
        against = _mean({name: source.margin for name, source in naming.items()}) > 0
    else:
        against = score < 0.5
    flagged = worth_flagging(1 - score, against, rank)
    kept_back = collapse.withheld(flagged, codes, rank, collapsed)
    flagged &= ~kept_back
    details = dict(collapsed.codes)
    if kept_back.any():
        details["withheld"] = f"Flags withheld: {kept_back.sum()}."
    predicted, matrix = _suggest(naming, flagged, codes, k)
    low = min(source.interval[0] for source in found.values())
    high = max(source.interval[1] for source in found.values())
    low, high = (0.0, 1.0) if collapsed.ignorant else (low, high)
    return LabelIssues(
        index=given.index,
        paths=given.paths,
        given_label=codes,
        predicted_label=predicted,
        label_score=score,
        is_label_issue=flagged,
        weight=next(iter(given.weights.values()), score),
        rank=rank,
        class_names=given.class_names,
        scores={
            name: score if len(found) == 1 else score_of(limited(source.odds), source.rate)
            for name, source in found.items()
        },
        noise_matrix=matrix,
        noise_rate=rate,
        noise_rate_interval=(low, high),
        codes=(*_codes(flagged | kept_back, found, given), *details),
        notes=(
            *map(checks.line, _codes(flagged | kept_back, found, given)),
            *(checks.line(code, detail) for code, detail in details.items()),
        ),
        duplicates=pairs,
    )


def _mean(values: dict[str, Any]) -> Any:
    """Returns the mean over the sources, weighted by how much each is relied on."""
    weights = {name: RELIANCE.get(name, 1.0) for name in values}
    total = sum(weights.values())
    return sum(weights[name] / total * value for name, value in values.items())


def combine(odds: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the weighted mean of the sources' log-odds [N].

    A mean, not a sum: the sources tell of the same examples, learned by the same kind of network.
    """
    return np.asarray(_mean({name: limited(values) for name, values in odds.items()}))


def worth_flagging(wrong: np.ndarray, against: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Returns the flags bool [N] with the largest expected F1 under the scores.

    Of F most suspect labels with probabilities p of being wrong, the expected F1 is about
    2 sum_F p / (F + sum_N p), since the expected number of wrong labels is sum_N p.

    Args:
      wrong: [N], probability that each label is wrong.
      against: bool [N], labels that may be flagged: the evidence names another class.
      rank: int [N], 1 for the most suspect label.
    """
    order = np.argsort(rank)
    order = order[against[order]]
    flagged = np.zeros(len(wrong), bool)
    if len(order) and round(wrong.sum()) > 0:
        f1 = 2 * np.cumsum(wrong[order]) / (np.arange(1, len(order) + 1) + wrong.sum())
        flagged[order[: f1.argmax() + 1]] = True
    return flagged


def _suggest(
    naming: dict[str, Source], flagged: np.ndarray, labels: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the suggested labels [N] and the noise matrix [K, K] of the combination."""
    if not naming:
        return np.full(len(labels), -1, np.int32), None
    first = max(naming, key=lambda name: RELIANCE.get(name, 1.0))
    predicted = np.where(flagged, naming[first].best, labels).astype(np.int32)
    joint = _mean({name: source.joint for name, source in naming.items()})
    total = joint.sum(1, keepdims=True)
    there = np.bincount(np.concatenate([labels, predicted]), minlength=k)[:, None] > 0
    return predicted, np.where(there, joint / np.maximum(total, 1e-12), np.eye(k))


def _codes(
    flagged: np.ndarray, found: dict[str, Source], given: validation.Given
) -> tuple[str, ...]:
    codes = [] if flagged.any() else ["no_issues"]
    if all(source.margin is None for source in found.values()):
        codes.append("no_predictions")
    codes += [code for source in found.values() for code in source.codes]
    codes += ["similar_names"] if similar(given.class_names) else []
    return tuple(dict.fromkeys(codes))
