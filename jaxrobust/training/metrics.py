"""The functions behind `METRICS`: numbers from logits and labels, with NumPy, on the host.

Symbols: N examples, K classes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxrobust.training.metric_table import METRICS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """A classifier's predictions for N labeled examples.

    Attributes:
      logits: float [N, K].
      labels: int [N], the labels that count as correct.
      train_counts: int [K], training examples per class; they define many, medium and few.
      many_above: classes with more training examples are "many".
      few_below: classes with fewer training examples are "few".
      bins: number of confidence bins of the calibration error.
    """

    logits: np.ndarray
    labels: np.ndarray
    train_counts: np.ndarray
    many_above: int = 100
    few_below: int = 20
    bins: int = 15

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """int [N], the class of the largest logit."""
        return self.logits.argmax(-1)

    @functools.cached_property
    def log_probabilities(self) -> np.ndarray:
        """float64 [N, K]."""
        from scipy.special import log_softmax

        return log_softmax(np.asarray(self.logits, np.float64), axis=-1)

    @functools.cached_property
    def recalls(self) -> np.ndarray:
        """float [K], accuracy per class; NaN for a class without examples."""
        from sklearn.metrics import recall_score

        classes = np.arange(self.logits.shape[-1])
        options: Any = {"average": None, "zero_division": np.nan}
        return np.asarray(recall_score(self.labels, self.predicted, labels=classes, **options))


def accuracy(p: Predictions) -> float:
    """Fraction of the examples whose prediction is their label."""
    return float((p.predicted == p.labels).mean())


def balanced_accuracy(p: Predictions) -> float | None:
    """Mean of the per-class accuracies over the classes that occur."""
    return _mean(p.recalls)


def top_5_accuracy(p: Predictions) -> float | None:
    """Fraction of the examples whose label is among the five largest logits; None if K <= 5."""
    if p.logits.shape[-1] <= 5:
        return None
    top = np.argpartition(p.logits, -5, axis=-1)[:, -5:]
    return float((top == p.labels[:, None]).any(-1).mean())


def many_accuracy(p: Predictions) -> float | None:
    """Mean accuracy of the classes with more than `many_above` training examples."""
    return _mean(p.recalls[class_groups(p.train_counts, p.many_above, p.few_below)["many"]])


def medium_accuracy(p: Predictions) -> float | None:
    """Mean accuracy of the classes that are neither many nor few."""
    return _mean(p.recalls[class_groups(p.train_counts, p.many_above, p.few_below)["medium"]])


def few_accuracy(p: Predictions) -> float | None:
    """Mean accuracy of the classes with fewer than `few_below` training examples."""
    return _mean(p.recalls[class_groups(p.train_counts, p.many_above, p.few_below)["few"]])


def negative_log_likelihood(p: Predictions) -> float:
    """Mean of -log p(label)."""
    return float(-p.log_probabilities[np.arange(len(p.labels)), p.labels].mean())


def calibration_error(p: Predictions) -> float:
    """Mean |accuracy - confidence| over equal bins of confidence (Guo et al. 2017, eq. 3)."""
    return expected_calibration_error(p.logits, p.labels, p.bins)


def _mean(values: np.ndarray) -> float | None:
    """Returns the mean of the values that are not NaN; None if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def classification(predictions: Predictions) -> dict[str, Any]:
    """Returns every metric of `SELECTABLE`, and "per_class".

    Args:
      predictions: see `Predictions`.

    Returns:
      name -> float, or None where there is nothing to measure (no class is "few", say);
      "per_class" is a list [K] of accuracies, None for a class without examples.
    """
    p = dataclasses.replace(
        predictions,
        logits=np.asarray(predictions.logits, np.float64),
        labels=np.asarray(predictions.labels),
    )
    found = {name: metric.function(p) for name, metric in METRICS.items() if metric.location}
    return found | {"per_class": [None if np.isnan(a) else float(a) for a in p.recalls]}


def class_groups(counts: np.ndarray, many_above: int, few_below: int) -> dict[str, np.ndarray]:
    """Returns bool [K] for `many`, `medium` and `few`, by number of training examples."""
    counts = np.asarray(counts)
    many, few = counts > many_above, counts < few_below
    return {"many": many, "medium": ~many & ~few, "few": few}


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over equal bins of confidence (Guo et al. 2017, eq. 3).

    Args:
      logits: float [N, K].
      labels: int [N].
      bins: number of bins.
    """
    confidence, accuracy, fraction = reliability(logits, labels, bins)
    return float(np.sum(fraction * np.abs(accuracy - confidence)))


def reliability(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean confidence, accuracy and fraction of the examples, each [bins]; 0 if empty."""
    from scipy.special import log_softmax

    p = np.exp(log_softmax(np.asarray(logits, np.float64), axis=-1))
    top, right = p.max(-1), p.argmax(-1) == labels
    which = np.clip((top * bins).astype(int), 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    safe = np.maximum(count, 1)
    confidence = np.bincount(which, top, minlength=bins) / safe
    accuracy = np.bincount(which, right, minlength=bins) / safe
    return confidence, accuracy, count / max(len(top), 1)


def memorization(logits: np.ndarray, given: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Returns how the wrong labels of the training data were handled.

    Args:
      logits: float [N, K], of the training examples.
      given: int [N], labels trained on.
      true: int [N].

    Returns:
      wrong_labels: their number; memorised: fraction of them that the network predicts as given;
      recovered: fraction for which it predicts the true class; clean_fitted: fraction of the
      correct labels that it predicts. None where there are none.
    """
    predicted, given, true = np.asarray(logits).argmax(-1), np.asarray(given), np.asarray(true)
    wrong = given != true

    def fraction(hit: np.ndarray, among: np.ndarray) -> float | None:
        return float(hit[among].mean()) if among.any() else None

    return {
        "wrong_labels": int(wrong.sum()),
        "memorised": fraction(predicted == given, wrong),
        "recovered": fraction(predicted == true, wrong),
        "clean_fitted": fraction(predicted == given, ~wrong),
    }
