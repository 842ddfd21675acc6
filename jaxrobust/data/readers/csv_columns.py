"""Columns of CSV files, in the encodings and with the separators that people have."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrobust.data.table import MISSING, Table
from jaxrobust.errors import UserError, check, nearest

SUFFIXES = (".csv", ".tsv")
MAX_BYTES = 4 << 30
MAX_CELL = 16 << 20  # characters
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
LABELS = ("label", "labels", "class", "target")
_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
_LIMIT = threading.Lock()  # csv's limit of a cell belongs to the process


class Sheet(NamedTuple):
    """A CSV file.

    Attributes:
      columns: object arrays [N] of stripped strings, by name, in order.
      decimal_comma: whether the separator is no comma, so that "1,234" may be 1.234.
      notes: what the user should know of how it was read.
    """

    columns: dict[str, np.ndarray]
    decimal_comma: bool
    notes: tuple[str, ...]


def read(path: str | Path) -> Sheet:
    """Reads a CSV file with a header.

    The separator (comma, semicolon, tab, bar) is the one that gives all rows the same length;
    the encoding is that of a byte order mark, else UTF-8, else Windows-1252 (Latin-1).

    Raises:
      UserError: no such file, no text, no rows, columns of the same name, a row that is longer or
        shorter than the header, a cell of more than 16 million characters.
    """
    path = Path(path).expanduser()
    check(path.is_file(), f"No such file: {str(path)!r}.")
    size = path.stat().st_size
    check(size <= MAX_BYTES, f"{path} has {size / 2**30:.1f} GiB, too much for a CSV file.")
    text, notes = decoded(path.read_bytes(), path)
    separator, text = _separator(text)
    rows = _rows(text, separator, path)
    check(len(rows) > 1, f"{path} has no rows below its header.")
    header, *rows = rows
    if all(len(row) == len(header) + 1 for row in rows):  # row names, or separators at the ends
        header = [*header, ""] if not any(row[-1] for row in rows) else ["", *header]
    header = _names(header, path)
    _check_lengths(header, rows, separator, path)
    return Sheet(_columns(header, rows), separator != ",", notes)


def decoded(data: bytes, path: str | Path) -> tuple[str, tuple[str, ...]]:
    """Returns a file's text, and notes on its encoding. Raises `UserError` if it is no text."""
    encoding = next((e for mark, e in _BOMS.items() if data.startswith(mark)), "utf-8")
    head = data[:4096]
    if encoding == "utf-8" and head[1::2].count(0) > 0.4 * len(head) // 2:
        encoding = "utf-16-le"  # without a mark
    elif encoding == "utf-8" and head[::2].count(0) > 0.4 * len(head) // 2:
        encoding = "utf-16-be"
    try:
        text, notes = data.decode(encoding), ()
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace") if encoding == "utf-8" else "\0"
        notes = (f"{path} is not UTF-8; it was read as Windows-1252 (Latin-1).",)
    wrong = sum(map(text[:4096].count, "\0\ufffd"))
    check(wrong == 0, f"{path} is no text in a known encoding; save it as CSV in UTF-8.")
    return text, notes


def _separator(text: str) -> tuple[str, str]:
    """Returns the separator, and the text without Excel's line "sep=;"."""
    if match := re.match(r"sep=(.)\r?\n", text):
        return match[1], text[match.end() :]
    head = text[: 1 << 16]

    def fit(separator: str) -> tuple[bool, int]:
        with _LIMIT:
            rows = [r for r in islice(csv.reader(_lines(head), delimiter=separator), 50) if r]
        rows = rows[:-1] if len(head) < len(text) and len(rows) > 1 else rows
        widths = Counter(map(len, rows[1:] or rows))
        common = widths.most_common(1)[0][0] if widths else 0
        return widths[common] >= 0.9 * sum(widths.values()) and common > 1, len(
            rows[0]
        ) if rows else 0

    return max(SEPARATORS, key=fit), text


def _lines(text: str) -> Iterable[str]:
    return io.StringIO(text, newline=None)  # old line ends too


def _rows(text: str, separator: str, path: Path) -> list[list[str]]:
    with _LIMIT:
        before = csv.field_size_limit(MAX_CELL)
        try:
            return [row for row in csv.reader(_lines(text), delimiter=separator) if any(row)]
        except csv.Error as error:
            raise UserError(f"{path} is no CSV file: {error}.") from None
        finally:
            csv.field_size_limit(before)


def _names(header: list[str], path: Path) -> list[str]:
    names = [name.strip() or f"Unnamed: {i}" for i, name in enumerate(header)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    check(
        not twice,
        f"{path}: column names occur more than once: {', '.join(map(repr, twice))}. Every column "
        "needs a name of its own, in the first line.",
    )
    return names


def _check_lengths(header: list[str], rows: list[list[str]], separator: str, path: Path) -> None:
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if uneven is not None:
        raise UserError(
            f"{path}: row {uneven} (from 0) has {len(rows[uneven])} values, the header has "
            f"{len(header)} (separator: {SEPARATORS.get(separator, separator)})."
        )


def _columns(header: list[str], rows: list[list[str]]) -> dict[str, np.ndarray]:
    columns = {}
    for j, name in enumerate(header):
        once: dict[str, str] = {}  # equal cells are kept once
        column = np.empty(len(rows), object)
        column[:] = [once.setdefault(cell, cell) for row in rows for cell in (row[j].strip(),)]
        columns[name] = column
    return columns


def column(columns: Iterable[str], choices: Sequence[str], path: str | Path) -> str:
    """Returns the first of `choices` that is a column.

    Raises:
      UserError: none of them is.
    """
    columns = list(columns)
    for name in choices:
        if name in columns:
            return name
    raise UserError(
        f"{path} has no column {' or '.join(map(repr, choices))}; "
        f"it has {', '.join(map(repr, columns))}.{nearest(choices[0], columns)}"
    )


def label_column(columns: Mapping[str, np.ndarray], wanted: str | None, path: str | Path) -> str:
    """Returns the column of labels: the one asked for, or `label`, `class`, `target`, or the last.

    Raises:
      UserError: there is no such column (names those that could be labels), or nearly every row
        of it is a class of its own.
    """
    if wanted is not None:
        could = [n for n, v in columns.items() if 2 <= len(set(v)) <= max(2, len(v) // 2)]
        check(
            wanted in columns,
            f"{path} has no column {wanted!r}. Columns that could hold labels: "
            f"{', '.join(map(repr, could[:20])) or 'none'}.{nearest(wanted, columns)}",
        )
        return wanted
    known = {name.lower(): name for name in reversed(columns)}
    return next((known[n] for n in LABELS if n in known), list(columns)[-1])


def check_classes(values: np.ndarray, name: str, path: str | Path) -> None:
    """Raises `UserError` if a column of labels has hardly a value twice."""
    present = [v for v in values if v not in MISSING]
    distinct = len(set(present))
    check(
        len(present) < 20 or distinct <= 0.5 * len(present),
        f"{path}: column {name!r} has {distinct} distinct values in {len(present)} rows, so it "
        "holds no classes. Name the column of labels: --config.data.label_column=NAME.",
    )


def table(sheet: Sheet, names: Sequence[str], path: str | Path) -> Table:
    """Returns the columns `names` as a table, missing values None.

    Raises:
      UserError: no names; a column is missing.
    """
    check(
        bool(names), f"{path} has no feature columns beside {', '.join(map(repr, sheet.columns))}."
    )
    found = {name: sheet.columns[column(sheet.columns, (name,), path)] for name in names}
    empty = np.frompyfunc(lambda cell: None if cell in MISSING else cell, 1, 1)
    columns = {name: np.asarray(empty(values), object) for name, values in found.items()}
    return Table(columns, decimal_comma=sheet.decimal_comma, origin=str(path))


def splits(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Returns a split column as train, validation and test.

    Raises:
      UserError: a value that is none of these, and its row.
    """
    for row, value in enumerate(values):
        check(
            value.lower() in _SPLITS,
            f"{path}: row {row} (from 0): unknown split {value!r}; use train, validation or test.",
        )
    return np.array([_SPLITS[value.lower()] for value in values])
