"""Label issues as files: CSV table, arrays, corrected labels."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.audit.issues import LabelIssues
from jaxrobust.errors import check

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula: a quote goes before one."""
    return "'" + text if text.startswith(FORMULA) else text


def write_csv(
    issues: LabelIssues, path: str | Path, true_labels: np.ndarray | None = None
) -> Path:
    """Writes the table, most suspect first: `LabelIssues.columns`, the score of each source of
    evidence, and the true label where it is known."""
    order = np.argsort(issues.rank)
    columns = issues.columns()
    columns |= {f"score_{name}": score[order] for name, score in issues.scores.items()}
    if true_labels is not None:
        columns["true_label"] = np.array(issues.class_names, object)[true_labels[order]]
    return write_rows(path, list(columns), zip(*map(_cells, columns.values()), strict=True))


def _cells(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        return [f"{v:.6g}" for v in values]
    if values.dtype == object:
        return [harmless(v) for v in values]
    return list(map(str, values))


def write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Writes a CSV file, whole or not at all; its texts should be `harmless`."""
    with files.whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return Path(path)


def write_weights(issues: LabelIssues, path: str | Path) -> Path:
    """Writes the columns as arrays in the order of the training data, and the noise matrix.

    Keys: index, given_label, predicted_label (-1: none), label_score, is_label_issue, weight,
    rank, score_<source> [N]; class_names [K]; noise_rate, noise_rate_interval; noise_matrix [K, K]
    `[true, given]` where there is one.
    """
    names = ("index", "given_label", "predicted_label", "label_score", "is_label_issue", "weight",
             "rank", "noise_rate", "noise_rate_interval")
    arrays = {name: np.asarray(getattr(issues, name)) for name in names}
    arrays |= {f"score_{name}": score for name, score in issues.scores.items()}
    arrays["class_names"] = np.array(issues.class_names)
    if issues.noise_matrix is not None:
        arrays["noise_matrix"] = issues.noise_matrix
    with files.whole(path, "wb") as file:
        np.savez_compressed(file, **arrays)
    return Path(path)


def corrected(issues: LabelIssues, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns labels with those found wrong replaced by what is suggested in their place.

    Args:
      labels: int [R], labels given to the examples of a data set.
      place: int64 [N], where in it the examples of the issues are; -1 to leave one as it is.
    """
    labels = labels.copy()
    change = issues.is_label_issue & (issues.predicted_label >= 0) & (place >= 0)
    labels[place[change]] = issues.predicted_label[change]
    return labels


def check_target(path: str | Path) -> Path:
    """Checks that labels can be written to `path`; raises `UserError`."""
    path = Path(path)
    check(path.suffix in (".csv", ".npy"), f"{path}: write corrected labels to a .csv or a .npy.")
    check(path.parent.is_dir(), f"{path}: there is no folder {path.parent}.")
    return path


def write_labels(
    labels: np.ndarray, rows: np.ndarray, num_rows: int, class_names: Sequence[str],
    path: str | Path, ids: Sequence[str] | None = None,
) -> Path:
    """Writes a labels file for `data.labels_file`.

    Args:
      labels: int [R], class numbers.
      rows: int64 [R], the rows of the data set that they belong to, of `num_rows`.
      path: .csv (columns path, label where there are ids, else index, label), or .npy ([num_rows],
        class numbers; rows that are not among `rows` get class 0 and are not used for training).
      ids: R names of the examples, such as paths, or None.

    Raises:
      UserError: see `check_target`.
    """
    path = check_target(path)
    if path.suffix == ".npy":
        every = np.zeros(num_rows, np.int32)
        every[rows] = labels
        with files.whole(path, "wb") as file:
            np.save(file, every)
        return path
    # A name that had to be escaped could not be read back: numbers then.
    names = class_names if _plain(class_names) else list(map(str, range(len(class_names))))
    order = np.argsort(rows)
    if ids is not None and _plain(ids) and len(set(ids)) == len(ids):
        return write_rows(path, ("path", "label"), ((ids[i], names[labels[i]]) for i in order))
    return write_rows(path, ("index", "label"), ((rows[i], names[labels[i]]) for i in order))


def _plain(texts: Iterable[str]) -> bool:
    return all(harmless(text) == text == text.strip() for text in texts)
