"""Reading CSV files by column, with messages that name the row and the column."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxrobust.errors import UserError, check, nearest

_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the columns of a CSV file with a header, as stripped strings, in order.

    Raises:
      UserError: no such file, no rows, columns without or with the same name, a row that is
        longer or shorter than the header.
    """
    path = Path(path).expanduser()
    check(path.is_file(), f"No such file: {str(path)!r}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file: {error}") from None
    check(len(rows) > 1, f"{path} has no rows below its header.")
    header, *rows = rows
    header = [name.strip() for name in header]
    check(
        all(header) and len(set(header)) == len(header),
        f"{path}: every column needs a name of its own; the first line reads {header}.",
    )
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if uneven is not None:
        raise UserError(
            f"{path}: row {uneven} (from 0) has {len(rows[uneven])} values, the header has "
            f"{len(header)}."
        )
    columns = zip(*rows, strict=True)
    return {
        name: np.char.strip(np.array(column, str))
        for name, column in zip(header, columns, strict=True)
    }


def column(columns: dict[str, np.ndarray], choices: Sequence[str], path: str | Path) -> str:
    """Returns the first of `choices` that is a column.

    Raises:
      UserError: none of them is.
    """
    for name in choices:
        if name in columns:
            return name
    raise UserError(
        f"{path} has no column {' or '.join(map(repr, choices))}; "
        f"it has {', '.join(map(repr, columns))}.{nearest(choices[0], columns)}"
    )


def features(columns: Iterable[str], label: str = "label") -> list[str]:
    """Returns the columns that are features: all but the `label`, `label`, `split` and `id`."""
    return [name for name in columns if name not in (label, "label", "split", "id")]


def table(columns: dict[str, np.ndarray], names: Sequence[str], path: str | Path) -> np.ndarray:
    """Returns the columns `names` as float32 [N, D].

    Raises:
      UserError: no names; a column is missing, or not numeric (see `numbers`).
    """
    check(bool(names), f"{path} has no feature columns beside {', '.join(map(repr, columns))}.")
    found = [columns[column(columns, (name,), path)] for name in names]
    return np.stack([numbers(v, name, path) for name, v in zip(names, found, strict=True)], axis=1)


def numbers(values: np.ndarray, name: str, path: str | Path) -> np.ndarray:
    """Returns a column as float32.

    Raises:
      UserError: names the first row whose value is missing, not finite, or not a number.
    """
    empty = np.flatnonzero(values == "")
    if len(empty):
        raise UserError(f"{path}: row {empty[0]} (from 0), column {name!r}: missing value.")
    try:
        floats = values.astype(np.float64)
    except ValueError:
        row = next(i for i, value in enumerate(values) if not _is_number(value))
        raise UserError(
            f"{path}: column {name!r} is not numeric (row {row} reads {str(values[row])!r}): "
            "encode it as numbers or leave it out."
        ) from None
    wrong = np.flatnonzero(~np.isfinite(floats))
    if len(wrong):
        raise UserError(
            f"{path}: row {wrong[0]} (from 0), column {name!r}: {values[wrong[0]]} is no "
            "usable value."
        )
    return floats.astype(np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def splits(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Returns a split column in our own words: train, validation, test.

    Raises:
      UserError: a value that is none of these, and its row.
    """
    lower = np.char.lower(values)
    for value in np.unique(lower):
        if str(value) not in _SPLITS:
            row = np.flatnonzero(lower == value)[0]
            raise UserError(
                f"{path}: row {row} (from 0): unknown split {str(values[row])!r}; use train, "
                "validation or test."
            )
    return np.array([_SPLITS[str(v)] for v in lower])
