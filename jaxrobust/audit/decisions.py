"""Decisions of a reviewer about suspect labels: the CSV that the report saves, read and applied.

Columns: index, path, given_label, decision, label. `decision` is accept (take the suggestion), keep
(the given label is right), other (another class) or unsure; `label` is the label decided on, empty
for unsure.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrobust.audit.export import FORMULA
from jaxrobust.audit.issues import LabelIssues
from jaxrobust.errors import UserError, check, nearest, present

COLUMNS = ("index", "path", "given_label", "decision", "label")
KINDS = ("accept", "keep", "other", "unsure")


class Decisions(NamedTuple):
    """Decisions about some of the N examples of `LabelIssues`.

    Attributes:
      kind: N texts: accept, keep, other, unsure, or "" where nothing was decided.
      label: int32 [N], the class decided on; -1 where none was.
    """

    kind: tuple[str, ...]
    label: np.ndarray

    @property
    def decided(self) -> np.ndarray:
        """bool [N], where a label was decided on."""
        return self.label >= 0

    def take(self, rows: np.ndarray) -> Decisions:
        """Returns the decisions about the examples `rows`."""
        return Decisions(tuple(self.kind[i] for i in rows), self.label[rows])


def none(issues: LabelIssues) -> Decisions:
    """Returns no decision for any example."""
    return Decisions(("",) * len(issues), np.full(len(issues), -1, np.int32))


def read(path: str | Path, issues: LabelIssues) -> Decisions:
    """Reads a file of decisions about these examples.

    Examples are found by path where both have paths, else by index. A row about an example whose
    given label is another by now was decided on other data, and is refused.

    Raises:
      UserError: no such file, a column is missing, or a row that does not fit, by its line.
    """
    path = Path(path)
    check(path.is_file(), f"{path}: no such file of decisions.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}.") from None
    missing = [name for name in ("given_label", "decision", "label") if name not in header]
    check(not missing, f"{path} has no column {', '.join(missing)}. Save it from the report.")
    by_path = issues.paths is not None and "path" in header
    where = (
        {p: i for i, p in enumerate(issues.paths)}
        if by_path and issues.paths
        else {str(r): i for i, r in enumerate(issues.index.tolist())}
    )
    codes = {name: code for code, name in enumerate(issues.class_names)}
    kind, label = [""] * len(issues), np.full(len(issues), -1, np.int32)
    for line, row in enumerate(rows, start=2):
        i = present(
            where.get(_plain(row.get("path" if by_path else "index"))),
            f"{path}, line {line}: the example is not among those audited.",
        )
        kind[i], label[i] = _decision(path, line, row, issues, i, codes)
    return Decisions(tuple(kind), label)


def _decision(
    path: Path, line: int, row: dict, issues: LabelIssues, i: int, codes: dict[str, int]
) -> tuple[str, int]:
    given, decision = _plain(row["given_label"]), _plain(row["decision"])
    own = issues.class_names[issues.given_label[i]]
    check(
        given == own,
        f"{path}, line {line}: decided on the label {given!r}, which is {own!r} by "
        "now. Review the present report instead.",
    )
    check(
        decision in KINDS,
        f"{path}, line {line}: decision {decision!r}; one of "
        f"{', '.join(KINDS)}.{nearest(decision, KINDS)}",
    )
    if decision == "unsure":
        return decision, -1
    name = _plain(row["label"])
    check(name in codes, f"{path}, line {line}: no class is called {name!r}.{nearest(name, codes)}")
    return decision, codes[name]


def _plain(text: str | None) -> str:
    """Returns a cell's text without the quote that keeps spreadsheets from taking it for a formula;
    see `export.harmless`."""
    text = text or ""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA) else text


def corrected(decisions: Decisions, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns labels with exactly these decisions applied, and nothing else changed.

    Args:
      labels: int [R], labels given to the examples of a data set.
      place: int64 [N], where in it the examples are; -1 to leave one as it is.
    """
    labels = labels.copy()
    change = decisions.decided & (place >= 0)
    labels[place[change]] = decisions.label[change]
    return labels
