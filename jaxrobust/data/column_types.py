"""Types of a table's columns: number, date or category, and what cannot be learned from."""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.data.table import Table, text

_MOST = 0.95  # share of the values that must read as numbers (dates) for a column of such
_FEW_ROWS = 20  # below, hardly anything is said of a column's values
_DATES = (
    "iso", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M",
    "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S", "%d %b %Y", "%b %d, %Y", "%d-%b-%Y",
)  # fmt: skip
_ID_NAME = re.compile(
    r"(^|[_\W])(id|ids|index|idx|uuid|guid|key|rowid|row_id)$|^Unnamed: \d+$", re.I
)
_CAMEL_ID = re.compile(r"[a-z](Id|ID)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """How one column is encoded.

    Attributes:
      name: of the column.
      kind: number, date or category.
      form: of numbers in texts ".", "," (decimal comma) or "thousands"; of dates "iso" or a
        format of `strptime`.
      series: names of the numeric series that it gives; () of a category.
      categories: those with a feature of their own, in alphabetical order.
      missing, rare: whether missing values, and all other categories, have a feature.
    """

    name: str
    kind: str
    form: str = "."
    series: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    missing: bool = False
    rare: bool = False

    @property
    def levels(self) -> tuple[str, ...]:
        """What the codes of a category stand for."""
        more = ["(missing)"] * self.missing + ["(rare)"] * self.rare
        return (*self.categories, *more)

    @property
    def features(self) -> tuple[str, ...]:
        """The levels that have a feature: of two only the second."""
        return self.levels[1:] if len(self.levels) == 2 else self.levels


class Inferred(NamedTuple):
    """A column in use, or why it is left out, or what is wrong with it; and a note."""

    column: Column | None = None
    left_out: str = ""
    problem: str = ""
    note: str = ""


def tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns what JSON has read with tuples in place of lists."""

    def deep(value: Any) -> Any:
        return tuple(map(deep, value)) if isinstance(value, list) else value

    return {name: deep(value) for name, value in fields.items()}


def infer(name: str, table: Table, max_categories: int) -> Inferred:
    """Finds out what the column `name` of the training rows is."""
    values, kind = table.columns[name], table.kinds[name]
    if kind == "unusable":
        return Inferred(problem=f"column {name!r} holds lists or other objects")
    present = ~np.isnan(values) if values.dtype.kind == "f" else values != np.array(None)
    if not present.any():
        return Inferred(left_out="no values")
    form, note = ".", ""
    if kind == "text":
        kind, form, note = _kind_of_texts(name, table, present)
    if kind == "category":
        return _infer_category(name, values, present, max_categories)
    column = Column(name=name, kind=kind, form=form, series=_series_names(name, kind))
    numbers, problem = series(column, table)
    if problem:
        return Inferred(problem=problem)
    found = numbers[~np.isnan(numbers[:, 0])]
    if kind == "number" and (reason := _identifier(name, found[:, 0])):
        if reason == "category":
            return _infer_category(name, values, present, max_categories)
        return Inferred(left_out=reason)
    changing = np.ptp(found, axis=0) > 0
    changing[0] |= len(found) < len(numbers)  # a constant that is missing at times
    if not changing.any():
        return Inferred(left_out="constant")
    kept = tuple(np.array(column.series)[changing].tolist())
    return Inferred(dataclasses.replace(column, series=kept), note=note)


def _kind_of_texts(name: str, table: Table, present: np.ndarray) -> tuple[str, str, str]:
    """Returns kind and form of a column of texts, and a note on values that do not fit."""
    texts = table.columns[name][present]
    for form in _number_forms(table.decimal_comma):
        parsed = _numbers(texts, form)
        if (share := np.mean(~np.isnan(parsed))) >= _MOST:
            odd = [] if share == 1 else [_odd(name, table, present, parsed)]
            return "number", form, " ".join([*odd, *_several_signs(name, texts)])
    for form in _DATES:
        if _is_date(texts[0], form) and np.mean(~np.isnan(_dates(texts, form))) >= _MOST:
            return "date", form, ""
    return "category", ".", ""


def _odd(name: str, table: Table, present: np.ndarray, parsed: np.ndarray) -> str:
    odd = np.flatnonzero(present)[np.isnan(parsed)]
    return (
        f"Column {name!r}: {len(odd)} of {len(parsed)} values are not numbers (row "
        f"{table.row(odd[0])} reads {_short(table.columns[name][odd[0]])}) and count as missing."
    )


def _several_signs(name: str, texts: np.ndarray) -> list[str]:
    """Returns a note if some numbers of a column have another sign (5 %, 5) than others."""
    found = {match[0] if (match := _SIGNS.search(cell)) else "none" for cell in texts}
    if len(found) < 2:
        return []
    return [f"Column {name!r} has numbers with different signs ({', '.join(sorted(found))})."]


def _short(value: str, most: int = 40) -> str:
    return repr(value if len(value) <= most else value[:most] + "...")


def _identifier(name: str, numbers: np.ndarray) -> str:
    """Returns why a column of numbers is an identifier, "category" of codes, or ""."""
    whole = numbers == np.round(numbers)
    if not whole.all():
        return ""
    share = len(np.unique(numbers)) / len(numbers)
    if _ID_NAME.search(name) or _CAMEL_ID.search(name):
        return "an identifier" if share > 0.5 else "category"
    steps = np.diff(numbers)
    counts = len(numbers) >= _FEW_ROWS // 2 and (steps > 0).all()
    if counts and steps.max() < 100 and numbers[-1] - numbers[0] < 4 * len(numbers):
        return "counts the rows"
    return ""


def _infer_category(
    name: str, values: np.ndarray, present: np.ndarray, max_categories: int
) -> Inferred:
    from sklearn.preprocessing import OneHotEncoder

    texts = np.array([text(v) for v in values[present]], object)
    distinct, n = len(set(texts)), len(texts)
    if distinct == 1 and present.all():
        return Inferred(left_out="constant")
    id_name = bool(_ID_NAME.search(name) or _CAMEL_ID.search(name))
    if n >= _FEW_ROWS and distinct > (0.5 if id_name else 0.9) * n:
        return Inferred(left_out=f"{distinct} distinct texts in {n} rows")
    few = 1 if n < _FEW_ROWS else min(20, max(2, n // 2000))
    missing = bool((~present).any())
    one_hot = OneHotEncoder(
        min_frequency=few, max_categories=max(2, max_categories - missing),
        handle_unknown="infrequent_if_exist",
    ).fit(texts[:, None])  # fmt: skip
    rare = one_hot.infrequent_categories_[0]
    rare = [] if rare is None else rare.tolist()
    kept = [c for c in one_hot.categories_[0].tolist() if c not in set(rare)]
    column = Column(
        name=name, kind="category", categories=tuple(kept), missing=missing, rare=bool(rare)
    )
    if len(column.levels) < 2:
        return Inferred(left_out=f"{distinct} distinct texts in {n} rows, each of them rare")
    return Inferred(column)


def codes(column: Column, table: Table) -> np.ndarray:
    """Returns float64 [N], the number of each row's level; NaN if it has none."""
    values = table.columns[column.name]
    number = {category: float(i) for i, category in enumerate(column.categories)}
    kept = len(number)
    missing = float(kept) if column.missing else np.nan
    rare = float(kept + column.missing) if column.rare else np.nan
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), None, values.astype(object))
    return np.array([missing if v is None else number.get(text(v), rare) for v in values], float)


def _series_names(name: str, kind: str) -> tuple[str, ...]:
    parts = ("month", "weekday", "hour") if kind == "date" else ()
    return (name, *(f"{name}: {part}" for part in parts))


def series(column: Column, table: Table) -> tuple[np.ndarray, str]:
    """Returns the numeric series of a column, float64 [N, ...] in the order of `column.series`.

    Returns:
      The series, NaN where missing, and what is wrong with the column's values, or "".
    """
    name, values = column.name, table.columns[column.name]
    if values.dtype.kind == "f":
        numbers = values
    elif table.kinds[name] == "unusable":
        return np.zeros((len(values), len(column.series))), f"column {name!r} holds objects"
    else:
        present = values != np.array(None)
        read = _dates if column.kind == "date" else _numbers
        numbers = np.full(len(values), np.nan)
        numbers[present] = read(values[present], column.form)
        odd = np.flatnonzero(present & np.isnan(numbers))
        if len(odd) > 0.5 * present.sum():
            return numbers[:, None], (
                f"column {name!r} should hold {column.kind}s, but row {table.row(odd[0])} reads "
                f"{_short(values[odd[0]])}"
            )
    wrong = np.flatnonzero(np.isinf(numbers))
    if len(wrong):
        return numbers[:, None], (
            f"column {name!r}, row {table.row(wrong[0])}: {numbers[wrong[0]]} is not a finite "
            "number"
        )
    parts = _date_parts(name, numbers) if column.kind == "date" else {name: numbers}
    return np.stack([parts[part] for part in column.series], axis=1), ""


def _date_parts(name: str, seconds: np.ndarray) -> dict[str, np.ndarray]:
    missing = np.isnan(seconds)
    far = np.abs(np.where(missing, 0, seconds)) > 9e12  # beyond the years of a calendar
    days = np.floor(np.where(missing | far, 0, seconds) / 86400)
    month = days.astype("M8[D]").astype("M8[M]").astype(int) % 12 + 1
    hour = np.where(far, 0, np.where(missing, 0, seconds) % 86400 / 3600)
    parts = (seconds, month, (days + 3) % 7, hour)
    names = _series_names(name, "date")
    return {n: np.where(missing, np.nan, part) for n, part in zip(names, parts, strict=True)}


def _number_forms(decimal_comma: bool) -> tuple[str, ...]:
    return (".", ",", "thousands") if decimal_comma else (".", "thousands", ",")


_FORMS = {
    ".": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.I),
    ",": re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)?,\d+([eE][+-]?\d+)?|[+-]?\d+"),
    "thousands": re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?|[+-]?\d+(\.\d*)?"),
}


_SIGNS = re.compile(r"[€$£¥₹%]|\b(EUR|USD|GBP|CHF)\b")
_GROUPS = re.compile(r"(?<=\d)[\s'’\u00a0\u202f](?=\d{3}(\D|$))")


def _plain(cell: str) -> str:
    """Returns a number without currency or percent sign, its minus and thousands as in programs.

    All values of a column have the same sign and unit, or none: 5 % is read as 5.
    """
    cell = cell.replace("\u2212", "-").replace("\u2013", "-")
    return _GROUPS.sub("", _SIGNS.sub("", cell).strip())


def _numbers(texts: np.ndarray, form: str) -> np.ndarray:
    """Returns float64 [N] of texts, NaN where one is no number."""
    fits = _FORMS[form].fullmatch

    def read(cell: str) -> float:
        if fits(cell) is None:
            cell = _plain(cell)
            if fits(cell) is None:
                return np.nan
        if form == ",":
            cell = cell.replace(".", "").replace(",", ".")
        return float(cell.replace(",", ""))

    return np.array([read(cell) for cell in texts], np.float64)


def _is_date(cell: str, form: str) -> bool:
    try:
        _date(cell, form)
    except ValueError:
        return False
    return True


def _date(cell: str, form: str) -> datetime.datetime:
    if form == "iso":
        return datetime.datetime.fromisoformat(cell)
    return datetime.datetime.strptime(cell, form)


def _dates(texts: np.ndarray, form: str) -> np.ndarray:
    """Returns float64 [N], seconds since 1970 in UTC, NaN where a text is no date."""
    zero = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

    def read(cell: str) -> float:
        try:
            moment = _date(cell, form)
        except ValueError:
            return np.nan
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return (moment - zero).total_seconds()

    return np.array([read(cell) for cell in texts], np.float64)
