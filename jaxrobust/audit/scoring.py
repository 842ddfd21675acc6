"""Scores of label-issue detection against true labels. N examples, K classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrobust.audit.issues import LabelIssues


def against_truth(
    issues: LabelIssues, true: np.ndarray, groups: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Measures the score, the flags and the suggestions.

    Args:
      true: int [N], true labels.
      groups: bool [K] by name, classes to take together (many, medium, few).

    Returns:
      wrong_labels: how many; for all, and in `groups` and `per_class` for the examples given a
      label of those classes: auroc, auprc (areas under the ROC and precision-recall curves, of
      finding wrong labels by the score), precision_at_errors (share of wrong labels among as many
      of the most suspect as there are wrong ones), precision and recall of the flags, false_alarms
      (share of right labels flagged); suggestions_right (share of the wrong labels flagged for
      which the true one is suggested); `sources`: auroc and auprc of each source's own score;
      noise_matrix: what it truly was. None where something is not defined.
    """
    wrong = issues.given_label != true
    k = len(issues.class_names)
    everything = np.ones(len(true), bool)
    joint = np.bincount(true.astype(np.int64) * k + issues.given_label, minlength=k * k)
    joint = joint.reshape(k, k)
    total = joint.sum(1, keepdims=True)
    found = wrong & issues.is_label_issue
    return {
        "wrong_labels": int(wrong.sum()),
        "noise_rate": float(wrong.mean()),
        **_measure(issues, wrong, everything),
        "suggestions_right": _share(issues.predicted_label == true, found),
        "sources": {
            name: {"auroc": auroc(wrong, -score), "auprc": auprc(wrong, -score)}
            for name, score in issues.scores.items()
        },
        "groups": {
            name: _measure(issues, wrong, members[issues.given_label])
            for name, members in groups.items()
        },
        "per_class": [_measure(issues, wrong, issues.given_label == c) for c in range(k)],
        "noise_matrix": np.where(total > 0, joint / np.maximum(total, 1), np.eye(k)).tolist(),
    }


def _measure(issues: LabelIssues, wrong: np.ndarray, among: np.ndarray) -> dict[str, Any]:
    suspicion, flagged = -issues.rank[among].astype(float), issues.is_label_issue[among]
    w = wrong[among]
    first = np.argsort(-suspicion, kind="stable")[: int(w.sum())]
    return {
        "examples": int(among.sum()),
        "wrong": int(w.sum()),
        "flagged": int(flagged.sum()),
        "auroc": auroc(w, suspicion),
        "auprc": auprc(w, suspicion),
        "precision_at_errors": float(w[first].mean()) if len(first) else None,
        "precision": _share(w, flagged),
        "recall": _share(flagged, w),
        "false_alarms": _share(flagged, ~w),
    }


def _share(hit: np.ndarray, among: np.ndarray) -> float | None:
    return float(hit[among].mean()) if among.any() else None


def auroc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half."""
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import roc_auc_score  # Takes a second to import.

    return float(roc_auc_score(positive, score))


def auprc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the precision-recall curve: mean precision at each positive (no interpolation);
    examples of equal score come together."""
    if not positive.any():
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, score))
