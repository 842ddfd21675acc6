"""Labels of several annotators, from columns, an array or files; their consensus is given.

Symbols: N examples, A annotators, K classes; votes are int32 [N, A], -1 where one gave no label.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxrobust import files
from jaxrobust.data import crowd, labels_file
from jaxrobust.data.class_labels import UNLABELED, tidy
from jaxrobust.data.examples import Examples, Loaded, rows_of
from jaxrobust.data.readers import csv_columns
from jaxrobust.errors import check, nearest

_SUFFIXES = (*csv_columns.SUFFIXES, ".npy")


def names(wanted: str) -> list[str]:
    """Returns the names, separated by commas, of `data.annotators`."""
    return [name.strip() for name in wanted.split(",") if name.strip()]


def are_files(wanted: str | None) -> bool:
    """Returns whether annotators are named by a file each, not by columns or an array."""
    return bool(wanted) and all(Path(n).suffix.lower() in _SUFFIXES for n in names(wanted or ""))


def columns(wanted: str, there: Iterable[str], path: str) -> list[str]:
    """Returns the columns that names and patterns such as `rater_*` stand for, in their order.

    Raises:
      UserError: a name or pattern without a column; one column only.
    """
    there, found = list(there), []
    for name in names(wanted):
        fitting = [name] if name in there else fnmatch.filter(there, name)
        check(
            bool(fitting),
            f"{path} has no column {name!r} of data.annotators; it has "
            f"{', '.join(map(repr, there[:20]))}.{nearest(name, there)}",
        )
        found += [column for column in fitting if column not in found]
    check(
        len(found) > 1,
        f"data.annotators={wanted} names one annotator: name two or more, or use "
        "data.label_column.",
    )
    return found


def agreed(loaded: Loaded, method: str) -> Loaded:
    """Returns a data set whose given labels are the consensus of its annotators.

    Args:
      loaded: its splits have votes.
      method: of `crowd.CONSENSUS`; annotators are compared over all splits together.

    Raises:
      UserError: nobody gave a label.
    """
    votes = np.concatenate([e.votes for e in loaded.splits.values() if e.votes is not None])
    asked = (votes >= 0).any(1)
    check(bool(asked.any()), "None of the annotators gave a label.")
    labels = np.full(len(votes), UNLABELED, np.int32)
    labels[asked], _ = crowd.consensus(votes[asked], len(loaded.class_names), method)
    splits, start = {}, 0
    for name, examples in loaded.splits.items():
        stop = start + len(examples.labels)
        splits[name] = examples._replace(labels=labels[start:stop])
        start = stop
    several = (votes >= 0).sum(1) > 1
    differ = np.array([len({*row[row >= 0].tolist()}) > 1 for row in votes])
    note = (
        f"Labels are the consensus ({method}) of {votes.shape[1]} annotators; of {several.sum()} "
        f"examples with several labels they differ about {differ.sum()}."
    )
    return loaded._replace(splits=splits, notes=(*loaded.notes, note))


def from_files(loaded: Loaded, wanted: str) -> Loaded:
    """Returns a data set with the votes of a file per annotator.

    A `.csv` has a column `label` and `index`, `path` or `id`; examples that are not in it, or have
    an empty label, were not asked. A `.npy` has an entry per row, NaN or -1 where not asked.

    Raises:
      UserError: no such file, a label that is no class of the data set, a file that names none of
        its examples.
    """
    paths = [Path(name).expanduser() for name in names(wanted)]
    check(len(paths) > 1, f"data.annotators={wanted} names one file: name two or more.")
    read = [_votes_by_name(path, loaded) for path in paths]
    splits = {}
    for name, examples in loaded.splits.items():
        votes = [
            [by_name.get(key, UNLABELED) for key in _keys(examples, kind)] for kind, by_name in read
        ]
        splits[name] = examples._replace(votes=np.array(votes, np.int32).T)
    for path, column in zip(paths, range(len(paths)), strict=True):
        found = any((e.votes[:, column] >= 0).any() for e in splits.values())
        check(found, f"{path} names none of the examples of the data set.")
    return loaded._replace(splits=splits)


def _keys(examples: Examples, kind: str) -> list[str]:
    if kind == "index":
        return list(map(str, rows_of(examples)))
    check(examples.ids is not None, "The data set has no names; annotators' files need 'index'.")
    return examples.ids or []


def _votes_by_name(path: Path, loaded: Loaded) -> tuple[str, dict[str, int]]:
    """Returns what the examples are called by ("index", "path" or "id"), and a vote of each."""
    check(path.is_file(), f"No such file of an annotator: {str(path)!r}.")
    if path.suffix.lower() == ".npy":
        values = files.read_npy(path, "Labels of an annotator ")
        keys, kind = list(map(str, range(len(values)))), "index"
    else:
        sheet = csv_columns.read(path).columns
        label = csv_columns.column(sheet, labels_file.LABEL, path)
        kind = csv_columns.column(sheet, labels_file.KEY, path)
        values, keys = sheet[label], sheet[kind].tolist()
    given = tidy(values, f"labels of {path}")
    there = [i for i, v in enumerate(given.tolist()) if v is not None and str(v) != "-1"]
    codes = labels_file.codes(given.astype(object)[there], loaded.class_names, path)
    return kind, {keys[i]: int(c) for i, c in zip(there, codes.tolist(), strict=True)}
