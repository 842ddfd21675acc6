"""Label issues as files: CSV table, arrays, corrected labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from jaxrobust import __version__, files
from jaxrobust.audit.issues import LabelIssues
from jaxrobust.errors import check, present

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula: a quote goes before one."""
    return "'" + text if text.startswith(FORMULA) else text


def write_csv(
    issues: LabelIssues,
    path: str | Path,
    true_labels: np.ndarray | None = None,
    split: np.ndarray | None = None,
) -> Path:
    """Writes the table, most suspect first: `LabelIssues.columns`, the score of each source of
    evidence, and where they are known the true label and the split [N] of each example."""
    order = np.argsort(issues.rank)
    columns = issues.columns()
    columns |= {f"score_{name}": score[order] for name, score in issues.scores.items()}
    if true_labels is not None:
        columns["true_label"] = np.array(issues.class_names, object)[true_labels[order]]
    if split is not None:
        columns["split"] = split[order].astype(object)
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
    names = (
        "index",
        "given_label",
        "predicted_label",
        "label_score",
        "is_label_issue",
        "weight",
        "rank",
        "noise_rate",
        "noise_rate_interval",
    )
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
    labels: np.ndarray,
    rows: np.ndarray,
    num_rows: int,
    class_names: Sequence[str],
    path: str | Path,
    ids: Sequence[str] | None = None,
    replaces: np.ndarray | None = None,
) -> Path:
    """Writes a labels file for `data.labels_file`.

    Args:
      labels: int [R], class numbers.
      rows: int64 [R], the rows of the data set that they belong to, of `num_rows`.
      path: .csv (columns path, label where there are ids, else index, label), or .npy ([num_rows],
        class numbers; rows that are not among `rows` get class 0 and are not used for training).
      ids: R names of the examples, such as paths, or None.
      replaces: int [R], the data set's own labels: a column `replaces` of the .csv, by which a
        reader knows that these are corrections, or None.

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
    order = np.argsort(rows, kind="stable")
    named = ids is not None and _plain(ids) and len(set(ids)) == len(ids)
    keys, key = (ids, "path") if named else (rows, "index")
    columns = {key: keys, "label": [names[c] for c in labels]}
    if replaces is not None:
        columns["replaces"] = [names[c] for c in replaces]
    return write_rows(path, list(columns), ([v[i] for v in columns.values()] for i in order))


def _plain(texts: Iterable[str]) -> bool:
    return all(harmless(text) == text == text.strip() for text in texts)


def label_studio_tasks(
    issues: LabelIssues, *, root: str = "", flagged_only: bool = True
) -> list[dict[str, Any]]:
    """Returns tasks for Label Studio, most suspect first: the suggestion as a prediction.

    Each task's `data` holds `image` (root + path) where the examples have paths, else `text` (the
    row), and `index`, `given_label` and `label_score`; its prediction is a choice for the tag
    `label` of `label_studio_config`. Format: Label Studio's guide, "Import pre-annotated data".

    Args:
      issues: what was found.
      root: put before each path, e.g. "/data/local-files/?d=photos/" for Label Studio's local
        files storage, or the address of a bucket.
      flagged_only: leave out what is not flagged.
    """
    tasks = []
    names = (*issues.class_names, None)
    for i in np.argsort(issues.rank).tolist():
        if flagged_only and not issues.is_label_issue[i]:
            continue
        path = issues.paths[i] if issues.paths is not None else None
        kind, item = ("image", root + path) if path else ("text", f"row {issues.index[i]}")
        suggested = names[issues.predicted_label[i]]
        result = [
            {
                "from_name": "label",
                "to_name": "item",
                "type": "choices",
                "value": {"choices": [suggested]},
            }
        ]
        tasks.append(
            {
                "data": {
                    kind: item,
                    "index": int(issues.index[i]),
                    "given_label": names[issues.given_label[i]],
                    "label_score": float(issues.label_score[i]),
                },
                "predictions": []
                if suggested is None
                else [
                    {
                        "model_version": f"jaxrobust {__version__}",
                        "result": result,
                        "score": float(1 - issues.label_score[i]),
                    }
                ],
            }
        )
    return tasks


def label_studio_config(issues: LabelIssues) -> str:
    """Returns the labeling configuration (XML) that fits `label_studio_tasks`."""
    item = (
        '<Image name="item" value="$image"/>'
        if issues.paths is not None
        else '<Text name="item" value="$text"/>'
    )
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in issues.class_names)
    return (
        f'<View>{item}<Header value="Given label: $given_label"/>'
        f'<Choices name="label" toName="item" choice="single">{choices}</Choices></View>'
    )


def write_label_studio(issues: LabelIssues, path: str | Path, *, root: str = "") -> Path:
    """Writes the flagged examples as `label_studio_tasks` to a .json file, and the labeling
    configuration beside it, to the same name with .xml.

    Raises:
      UserError: the file is not to end with .json, or its folder is not there.
    """
    path = Path(path)
    check(path.suffix == ".json", f"{path}: write Label Studio's tasks to a .json file.")
    check(path.parent.is_dir(), f"{path}: there is no folder {path.parent}.")
    with files.whole(path) as file:
        json.dump(label_studio_tasks(issues, root=root), file, ensure_ascii=False, indent=1)
    with files.whole(path.with_suffix(".xml")) as file:
        file.write(label_studio_config(issues) + "\n")
    return path


FIFTYONE_FIELDS = (
    "filepath",
    "given_label",
    "predicted_label",
    "label_score",
    "is_label_issue",
    "label_rank",
)
"""Columns of `write_fiftyone`: a field per sample each."""


def write_fiftyone(issues: LabelIssues, path: str | Path) -> Path:
    """Writes a CSV for FiftyOne's `CSVDatasetImporter`: a field per sample, for every example.

        fiftyone.Dataset.from_dir(
            dataset_type=fiftyone.types.CSVDataset, data_path="photos", labels_path="issues.csv",
            fields={"given_label": None, "predicted_label": None, "label_score": float,
                    "is_label_issue": lambda v: v == "True", "label_rank": int})

    Raises:
      UserError: the examples have no paths, or the folder is not there.
    """
    path = Path(path)
    paths = present(issues.paths, "FiftyOne needs a file per example; these have no paths.")
    check(path.parent.is_dir(), f"{path}: there is no folder {path.parent}.")
    names = (*issues.class_names, "")
    order = np.argsort(issues.rank).tolist()
    rows = (
        [
            paths[i],
            names[issues.given_label[i]],
            names[issues.predicted_label[i]],
            f"{issues.label_score[i]:.6g}",
            bool(issues.is_label_issue[i]),
            int(issues.rank[i]),
        ]
        for i in order
    )
    return write_rows(path, FIFTYONE_FIELDS, rows)
