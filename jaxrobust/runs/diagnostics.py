"""Diagnostics of what a method has learned, compared with the truth where it is known.

A method's `report(state)` gives arrays; which of them there are depends on the method:
  rank_weights [R, K]  how far a label of each rank and class is trusted
  margins [K]          additive margin of each class
  rank [N]             rank of each training example
  corrected [N]        label after correction
  metadata [M]         rows of the training data chosen as metadata
  weights [N]          weight of each training example
  curves [N, T]        its loss in each epoch of a probe, perhaps with rows more that are padding
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrobust.audit.scoring import auroc

Report = dict[str, Any]  # Arrays, perhaps still on the device: only what is used is fetched.


def numbers(
    report: Report, given: np.ndarray, true: np.ndarray | None, num_classes: int
) -> dict[str, Any]:
    """Returns a report's scalars for metrics.jsonl; those that need the truth only with it."""
    row: dict[str, Any] = {}
    if "weights" in report:
        row["weight_by_class"] = by_class(np.asarray(report["weights"]), given, num_classes)
    if true is None:
        return row
    wrong = given != true

    def share(hit: np.ndarray, among: np.ndarray) -> float | None:
        return float(hit[among].mean()) if among.any() else None

    if "corrected" in report:
        right = np.asarray(report["corrected"]) == true
        row["corrected_accuracy"] = float(right.mean())
        row["corrected_accuracy_clean"] = share(right, ~wrong)
        row["corrected_accuracy_wrong"] = share(right, wrong)
    # Before metadata are first chosen all rows are the same.
    if "metadata" in report:
        rows = np.asarray(report["metadata"])
        if len(np.unique(rows)) == len(rows):
            row["metadata_clean_share"] = float((~wrong[rows]).mean())
    if "weights" in report:
        weights = np.asarray(report["weights"], np.float64)
        row["weight_clean"] = share(weights, ~wrong)
        row["weight_wrong"] = share(weights, wrong)
        row["weight_clean_by_class"] = by_class(weights, np.where(wrong, -1, given), num_classes)
        row["weight_wrong_by_class"] = by_class(weights, np.where(wrong, given, -1), num_classes)
        if wrong.any() and not wrong.all():
            row["weight_auroc"] = auroc(~wrong, weights)
            # Where classes are weighted as wholes, wrong labels are told apart within a class.
            members = [given == k for k in range(num_classes)]
            areas = [auroc(~wrong[rows], weights[rows]) for rows in members]
            within = [area for area in areas if area is not None]
            row["weight_auroc_within_class"] = float(np.mean(within)) if within else None
    return row


def by_class(values: np.ndarray, labels: np.ndarray, num_classes: int) -> list[float | None]:
    """Returns the mean of each class's values [N]; None for a class without any.

    Labels of -1 are left out.
    """
    seen = labels >= 0
    counts = np.bincount(labels[seen], minlength=num_classes)
    sums = np.bincount(labels[seen], values[seen], minlength=num_classes)
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
