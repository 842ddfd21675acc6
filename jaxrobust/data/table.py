"""Tables in memory: named columns of numbers, texts and dates, from files, frames and arrays."""

from __future__ import annotations

import datetime
import numbers
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrobust.errors import check

KINDS = ("number", "date", "category", "text", "unusable")
MAX_DENSE_BYTES = 4 << 30  # of a sparse matrix made dense, as float64
MISSING = frozenset(
    (
        "", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
        "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null",
    )
)  # fmt: skip
"""Texts that stand for a missing value: those of pandas' readers, and `?`."""


class Table:
    """N rows of named columns; `table[rows]` takes rows.

    Attributes:
      columns: arrays [N] by name, in order: float64 of numbers (NaN: missing) and dates (seconds
        since 1970), else objects, each a string or None.
      kinds: of each column, one of `KINDS`; what "text" means is found out by `tabular.fit`.
      decimal_comma: whether `1,234` is read as 1.234, as in files whose separator is no comma.
      origin: what to call the table in messages.
      rows: int [N], which row of the file or frame each is, for messages.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        kinds: Mapping[str, str] | None = None,
        *,
        decimal_comma: bool = False,
        origin: str = "The table",
        rows: np.ndarray | None = None,
    ):
        self.columns = dict(columns)
        own = {n: "number" if v.dtype.kind == "f" else "text" for n, v in self.columns.items()}
        self.kinds = own | dict(kinds or {})
        self.decimal_comma, self.origin = decimal_comma, origin
        lengths = {len(v) for v in self.columns.values()} or {0 if rows is None else len(rows)}
        check(len(lengths) == 1, f"{origin}: columns of several lengths, {sorted(lengths)}.")
        self.rows = np.arange(lengths.pop()) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, i: int) -> int:
        """Returns which row of the file or frame row i of this table is."""
        return int(self.rows[i])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self.columns)

    @property
    def size(self) -> int:
        return len(self) * len(self.columns)

    @property
    def nbytes(self) -> int:
        """Memory of the cells, texts counted as pointers."""
        return 8 * self.size

    def __getitem__(self, rows: Any) -> Any:
        """Returns the table of some rows; of a single number, that row as objects [D]."""
        if isinstance(rows, numbers.Integral):
            return np.array([v[rows] for v in self.columns.values()], object)
        return self._with({n: v[rows] for n, v in self.columns.items()}, self.rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The cells [N, D]: float64 where all are numbers, else objects."""
        cells = np.stack(list(self.columns.values()), axis=1)
        return cells if dtype is None else cells.astype(dtype)

    def chunks(self) -> Iterator[bytes]:
        """Yields bytes that identify names and cells, for a digest."""
        for name, values in self.columns.items():
            yield name.encode()
            if values.dtype.kind == "f":
                yield np.ascontiguousarray(values).tobytes()
            else:
                yield "\0".join("\1" if v is None else v for v in values).encode(
                    errors="surrogateescape"
                )

    def _with(self, columns: Mapping[str, np.ndarray], rows: np.ndarray) -> Table:
        kinds = {name: self.kinds[name] for name in columns}
        return Table(
            columns, kinds, decimal_comma=self.decimal_comma, origin=self.origin, rows=rows
        )

    def drop(self, names: Sequence[str]) -> Table:
        """Returns the table without the columns `names`."""
        return self._with({n: v for n, v in self.columns.items() if n not in names}, self.rows)


def is_missing(value: Any) -> bool:
    """Returns whether a cell or label holds nothing: None, NaN, NaT, pandas' NA, "", "NA", ..."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def from_frame(frame: Any, origin: str = "X") -> Table:
    """Returns the table of a DataFrame (pandas, polars), sparse matrix, mapping or array [N, D].

    Columns of frames keep their types: numbers, booleans, categories, dates; an array's columns
    are called x0, x1, ...

    Args:
      frame: anything with `columns` and `frame[name]`; a mapping of sequences; a scipy sparse
        matrix; an array of numbers or objects.
      origin: what to call it in messages.

    Raises:
      UserError: names that occur twice (all are named), no two dimensions, a sparse matrix that
        would not fit in memory.
    """
    if hasattr(frame, "tocsc"):
        return _from_sparse(frame, origin)
    if isinstance(frame, Mapping):
        return _from_columns(list(frame), [frame[n] for n in frame], origin)
    names = getattr(frame, "columns", None)
    if names is None:
        return from_array(np.asarray(frame), origin)
    names = [*names]
    check_names([str(n) for n in names], origin)
    return _from_columns(names, [frame[n] for n in names], origin, len(frame))


def from_array(x: np.ndarray, origin: str = "X", names: Sequence[str] = ()) -> Table:
    """Returns the table of an array [N, D], by default with the columns x0, x1, ...

    Raises:
      UserError: another number of dimensions.
    """
    check(x.ndim == 2, f"{origin} must be a table [N, D]; got shape {list(x.shape)}.")
    names = list(names) or [f"x{i}" for i in range(x.shape[1])]
    if x.dtype.kind in "biuf":
        x = np.asarray(x, np.float64)
        return Table(dict(zip(names, x.T, strict=True)), origin=origin, rows=np.arange(len(x)))
    return _from_columns(names, list(x.T), origin, len(x))


def _from_sparse(matrix: Any, origin: str) -> Table:
    n, d = matrix.shape
    check(
        n * d * 8 <= MAX_DENSE_BYTES,
        f"{origin}: a sparse matrix of {n} x {d} would take {n * d * 8 / 2**30:.0f} GiB: reduce "
        "it first, e.g. by sklearn.decomposition.TruncatedSVD(256).",
    )
    return from_array(np.asarray(matrix.toarray()), origin)


def _from_columns(
    names: list[Any], values: list[Any], origin: str, num_rows: int | None = None
) -> Table:
    texts = [str(n) for n in names]
    check_names(texts, origin)
    typed = [_typed(v) for v in values]
    return Table(
        {n: v for n, (v, _) in zip(texts, typed, strict=True)},
        {n: kind for n, (_, kind) in zip(texts, typed, strict=True)},
        origin=origin, rows=None if num_rows is None else np.arange(num_rows),
    )  # fmt: skip


def check_names(names: list[str], origin: str) -> None:
    """Raises `UserError` if column names occur more than once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    check(
        not twice,
        f"{origin}: column names occur more than once: {', '.join(map(repr, twice))}. Rename them.",
    )


def _typed(values: Any) -> tuple[np.ndarray, str]:
    """Returns a column's values as `Table` keeps them, and their kind."""
    dtype = getattr(values, "dtype", None)
    if str(dtype).lower().startswith(("category", "categorical", "enum")):
        return _objects(values, text), "category"
    kind = getattr(dtype, "kind", "O")
    if not isinstance(dtype, np.dtype) and hasattr(values, "to_numpy") and kind in "iuf":
        try:
            return values.to_numpy(dtype=np.float64, na_value=np.nan), "number"
        except TypeError:  # a frame that is not pandas'
            return np.asarray(values.to_numpy(), np.float64), "number"
    array = np.asarray(values if isinstance(dtype, np.dtype) else _listed(values))
    kind = array.dtype.kind
    if array.ndim != 1:
        return np.full(len(array), None, object), "unusable"
    if kind in "iuf":
        return array.astype(np.float64), "number"
    if kind in "mM":
        return seconds(array), "date" if kind == "M" else "number"
    return _from_objects(array)


def _listed(values: Any) -> np.ndarray:
    """Returns an object array [N] of a sequence, whatever its elements are."""
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    values = list(values)
    array = np.empty(len(values), object)
    for i, value in enumerate(values):  # at once, equally long lists would become an axis
        array[i] = value
    return array


def seconds(times: np.ndarray) -> np.ndarray:
    """Returns datetime64 or timedelta64 [N] as float64 seconds, NaN for NaT."""
    unit = times.astype(f"{times.dtype.kind}8[us]")
    return np.where(np.isnat(unit), np.nan, unit.astype(np.int64) / 1e6)


def _from_objects(array: np.ndarray) -> tuple[np.ndarray, str]:
    present = [v for v in array if not is_missing(v)]
    types = {type(v) for v in present}
    real = (numbers.Real, np.bool_)
    if types and all(issubclass(t, numbers.Real) and t is not bool for t in types):
        return _objects(array, float, np.nan).astype(np.float64), "number"
    if types and all(issubclass(t, (datetime.date, np.datetime64)) for t in types):
        return seconds(np.array([_utc(v) for v in array], "M8[us]")), "date"
    if types and all(issubclass(t, datetime.timedelta) for t in types):
        return _objects(array, datetime.timedelta.total_seconds, np.nan).astype(float), "number"
    if all(issubclass(t, (str, *real)) for t in types):
        only_bool = types and all(issubclass(t, (bool, np.bool_)) for t in types)
        return _objects(array, text), "category" if only_bool else "text"
    return np.full(len(array), None, object), "unusable"


def _utc(value: Any) -> Any:
    """Returns a date as NumPy takes it: without a time zone, in UTC."""
    if is_missing(value):
        return np.datetime64("NaT")
    if getattr(value, "tzinfo", None) is not None:
        return np.datetime64(value.astimezone(datetime.UTC).replace(tzinfo=None), "us")
    return np.datetime64(value, "us")


def _objects(values: Any, convert: Any, missing: Any = None) -> np.ndarray:
    cells = [missing if is_missing(v) else convert(v) for v in _listed(values)]
    array = np.empty(len(cells), object)
    array[:] = cells
    return array


def text(value: Any) -> str:
    """Returns a cell as text, whole floats as integers, so that 3, 3.0 and "3" are one category."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
