"""Numbers from logits and labels. N examples, K classes; NumPy, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax


def class_groups(counts: np.ndarray, many_above: int, few_below: int) -> dict[str, np.ndarray]:
    """Returns bool [K] for `many`, `medium` and `few`, by number of training examples."""
    counts = np.asarray(counts)
    many, few = counts > many_above, counts < few_below
    return {"many": many, "medium": ~many & ~few, "few": few}


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over equal bins of confidence (Guo et al. 2017, eq. 3)."""
    confidence, accuracy, share = reliability(logits, labels, bins)
    return float(np.sum(share * np.abs(accuracy - confidence)))


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15):
    """Returns mean confidence, accuracy and share of examples, each [bins]; 0 for empty bins."""
    p = np.exp(log_softmax(np.asarray(logits, np.float64), axis=-1))
    top, right = p.max(-1), p.argmax(-1) == labels
    which = np.clip((top * bins).astype(int), 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    safe = np.maximum(count, 1)
    confidence = np.bincount(which, top, minlength=bins) / safe
    accuracy = np.bincount(which, right, minlength=bins) / safe
    return confidence, accuracy, count / max(len(top), 1)


def classification(
    logits: np.ndarray,
    labels: np.ndarray,
    train_counts: np.ndarray,
    *,
    many_above: int = 100,
    few_below: int = 20,
    bins: int = 15,
) -> dict[str, Any]:
    """Evaluates a classifier.

    Args:
      logits: float [N, K].
      labels: int [N], what counts as right.
      train_counts: int [K], sizes of the classes in training; they say what is many and few.

    Returns:
      accuracy, balanced_accuracy (mean of the accuracies of the classes that occur), many,
      medium, few (mean accuracy of the group's classes; None where the group is empty),
      negative_log_likelihood, expected_calibration_error, per_class [K] (None where absent).
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    num_classes = logits.shape[-1]
    right = logits.argmax(-1) == labels
    count = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, right, minlength=num_classes)
    per_class = np.where(count > 0, hits / np.maximum(count, 1), np.nan)
    log_p = log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]

    def mean_of(values):
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else None

    groups = class_groups(train_counts, many_above, few_below)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": mean_of(per_class),
        **{name: mean_of(per_class[members]) for name, members in groups.items()},
        "negative_log_likelihood": float(-log_p.mean()),
        "expected_calibration_error": expected_calibration_error(logits, labels, bins),
        "per_class": [None if np.isnan(a) else float(a) for a in per_class],
    }


def memorization(logits: np.ndarray, given: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """How the wrong labels of the training data were dealt with.

    Returns:
      wrong_labels: how many; memorised: share of them that the network predicts as given;
      recovered: share for which it predicts the true class; clean_fitted: share of the right
      labels that it predicts. None where there are none.
    """
    predicted, given, true = np.asarray(logits).argmax(-1), np.asarray(given), np.asarray(true)
    wrong = given != true

    def share(hit, among):
        return float(hit[among].mean()) if among.any() else None

    return {
        "wrong_labels": int(wrong.sum()),
        "memorised": share(predicted == given, wrong),
        "recovered": share(predicted == true, wrong),
        "clean_fitted": share(predicted == given, ~wrong),
    }
