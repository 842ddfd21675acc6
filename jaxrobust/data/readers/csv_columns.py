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

from jaxrobust import files
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
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or a zip archive", b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed by gzip", b"PAR1": "a Parquet file",
}  # fmt: skip
_DECIMAL = re.compile(r"[+-]?\d*[.,]\d+([eE][+-]?\d+)?|-\d+")
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
    path = files.expanded(path)
    check(path.is_file(), f"No such file: {str(path)!r}.")
    size = path.stat().st_size
    check(size <= MAX_BYTES, f"{path} has {size / 2**30:.1f} GiB, too much for a CSV file.")
    text, notes = decoded(path.read_bytes(), path)
    text, comments = _without_comments(text)
    separator, text = _separator(text)
    rows = _rows(text, separator, path)
    check(len(rows) > 1, f"{path} has no rows below its header.")
    if comments:
        notes += (f"{path}: {comments} lines that begin with # above the header are skipped.",)
    header, *rows = rows
    if all(len(row) == len(header) + 1 for row in rows):  # row names, or separators at the ends
        header = [*header, ""] if not any(row[-1] for row in rows) else ["", *header]
    _check_lengths(header, rows, separator, path)
    header = _names(header, rows, path)
    return Sheet(_columns(header, rows), separator != ",", notes)


def decoded(data: bytes, path: str | Path) -> tuple[str, tuple[str, ...]]:
    """Returns a file's text, and notes on its encoding. Raises `UserError` if it is no text."""
    kind = next((kind for mark, kind in _OTHER_FILES.items() if data.startswith(mark)), None)
    check(kind is None, f"{path} is {kind}, no text: save it as CSV in UTF-8.")
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


def _without_comments(text: str) -> tuple[str, int]:
    """Returns the text without lines that begin with # above the header, and their number.

    A header may begin with # itself: then the line below has as many separators.
    """
    number = 0
    while text.startswith("#"):
        first, _, rest = text.partition("\n")
        below = rest.partition("\n")[0]
        if below.startswith("#") or not any(
            first.count(s) == below.count(s) > 0 for s in SEPARATORS
        ):
            text, number = rest, number + 1
        else:
            break
    return text, number


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
    """Returns the cells of all lines that are not blank.

    Raises:
      UserError: a cell that is too long, or in quotes that are never closed.
    """
    with _LIMIT:
        before = csv.field_size_limit(MAX_CELL)
        try:
            rows = list(csv.reader(_lines(text), delimiter=separator))
            if rows and any("\n" in cell for cell in rows[-1]):
                _check_closed(rows, text, separator, path)
        except csv.Error as error:
            raise UserError(f"{path} is no CSV file: {error}.") from None
        finally:
            csv.field_size_limit(before)
    return [row for row in rows if any(cell.strip() for cell in row)]


def _check_closed(rows: list[list[str]], text: str, separator: str, path: Path) -> None:
    """Raises `UserError` if the last row goes to the end of the file within quotes."""
    try:
        for _ in csv.reader(_lines(text), delimiter=separator, strict=True):
            pass
    except csv.Error as error:
        where = f"row {len(rows) - 2} (from 0)" if len(rows) > 1 else "the header"
        cell = next(cell for cell in rows[-1] if "\n" in cell)
        check(
            "unexpected end" not in str(error),
            f"{path}: {where} begins a cell with a quote that is never closed: {cell[:30]!r}. "
            'Close it, or write "" for a quote within a cell.',
        )


def _names(header: list[str], rows: list[list[str]], path: Path) -> list[str]:
    """Returns the columns' names. Raises `UserError` if the first line cannot be a header."""
    blank = [not name.strip() for name in header]
    filled = sum(any(row[j].strip() for row in rows) for j, none in enumerate(blank) if none)
    check(
        filled <= max(1, len(header) // 2) or not any(not none for none in blank),
        f"{path}: the first line names {blank.count(False)} of {len(header)} columns. The header "
        "must be the first line; remove what is above it.",
    )
    names = [name.strip() or f"Unnamed: {i}" for i, name in enumerate(header)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    numeric = sum(bool(_DECIMAL.fullmatch(name)) or name.isdigit() for name in names)
    hint = " Has it no header?" if numeric > len(names) // 2 else ""
    check(
        not twice,
        f"{path}: column names occur more than once: {', '.join(map(repr, twice[:5]))}. Every "
        f"column needs a name of its own, in the first line.{hint}",
    )
    return names


def check_header(columns: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Checks that the first line of a table is its header, and the only one.

    Raises:
      UserError: names that are decimal numbers; a first row that has text in every column of
        numbers (of two or more).
    """
    names = [name for name in columns if _DECIMAL.fullmatch(name)]
    check(
        not names,
        f"{path}: the first line reads like data ({', '.join(list(columns)[:4])}): it has no "
        "header. Write a line of column names above it.",
    )
    numeric = [
        values[0]
        for values in columns.values()
        if len(values) > 10 and _share_of_numbers(values[1:]) > 0.95
    ]
    check(
        len(numeric) < 2 or any(cell in MISSING or _is_number(cell) for cell in numeric),
        f"{path}: the row below the header has text where all others have numbers "
        f"({', '.join(numeric[:3])}): a second header? Keep one line of names.",
    )


def _share_of_numbers(values: np.ndarray) -> float:
    present = [cell for cell in values[:1000] if cell not in MISSING]
    return float(np.mean([_is_number(cell) for cell in present])) if present else 0.0


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


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


def named(columns: Iterable[str], choices: Sequence[str]) -> str | None:
    """Returns the first of `choices` that is a column, in any case ("Label"), or None."""
    columns = list(columns)
    lower = {name.casefold(): name for name in reversed(columns)}
    exact = next((name for name in choices if name in columns), None)
    return exact or next((lower[c.casefold()] for c in choices if c.casefold() in lower), None)


def column(columns: Iterable[str], choices: Sequence[str], path: str | Path) -> str:
    """Returns the first of `choices` that is a column; see `named`.

    Raises:
      UserError: none of them is.
    """
    columns = list(columns)
    found = named(columns, choices)
    if found is not None:
        return found
    wanted = " or ".join(map(repr, choices[:4]))
    raise UserError(
        f"{path} has no column {wanted}; "
        f"it has {', '.join(map(repr, columns))}.{nearest(choices[0], columns)}"
    )


def label_column(columns: Mapping[str, np.ndarray], wanted: str | None, path: str | Path) -> str:
    """Returns the column of labels: the one asked for, or `label`, `class`, `target`, or the last.

    Raises:
      UserError: there is no such column (names those that could be labels), or nearly every row
        of it is a class of its own.
    """
    if wanted is not None:
        found = named(columns, (wanted,))
        could = [n for n, v in columns.items() if 2 <= len(set(v)) <= max(2, len(v) // 2)]
        if found is not None:
            return found
        raise UserError(
            f"{path} has no column {wanted!r}. Columns that could hold labels: "
            f"{', '.join(map(repr, could[:20])) or 'none'}.{nearest(wanted, columns)}"
        )
    return named(columns, LABELS) or list(columns)[-1]


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
