"""Column transformers of mixed tables: named columns to float32 features.

Numbers are imputed by their median and scaled, categories one-hot encoded with the rare ones in a
group, dates taken apart; a missing value is a feature of its own. Identifiers, constants and free
text are left out and named. All is fitted on the training rows, by scikit-learn's transformers,
applied by column name, and saved as JSON and arrays.

Symbols: N rows, D columns, P numeric series (a number is one, a date several), F features.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust.data import column_types
from jaxrobust.data.column_types import Column
from jaxrobust.data.readers import csv_columns
from jaxrobust.data.table import Table, from_array, from_frame
from jaxrobust.errors import UserError, check, choose, nearest

__all__ = ["Encoder", "Table", "fit", "from_array", "from_arrays", "from_frame", "read_csv"]

SCALINGS = ("robust", "standard", "quantile")
MAX_CATEGORIES = 64  # of a column, the rare ones' group included
_QUANTILES = 201
_CLIP = 10.0  # standard deviations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """What `fit` has learned of the training rows.

    Attributes:
      columns: the D columns in use, see `Column`.
      inputs: names of all columns that there were, in order.
      left_out: name and reason of each column that is not used.
      scaling: one of `SCALINGS`, see `fit`.
      series: names of the P numeric series, e.g. `age`, `born: month`.
      fill: float64 [P], the medians, which take the place of missing values.
      center, scale: float64 [P].
      quantiles: float64 [Q, P], or [0, P] unless `scaling` is "quantile".
      indicator: bool [P], series that have missing values in training.
      notes: lines for the user, the columns left out among them.
    """

    columns: tuple[Column, ...]
    inputs: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    scaling: str
    series: tuple[str, ...]
    fill: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    quantiles: np.ndarray
    indicator: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F features of `transform(table)`."""
        missing = [f"{n} (missing)" for n, i in zip(self.series, self.indicator, strict=True) if i]
        levels = [f"{c.name}={v}" for c in self._categorical for v in c.features]
        return (*self.series, *missing, *levels)

    @property
    def categorical(self) -> np.ndarray:
        """Bool [C]: which columns of `transform(table, kind="trees")` are codes of categories."""
        return np.arange(len(self.series) + len(self._categorical)) >= len(self.series)

    @property
    def _categorical(self) -> list[Column]:
        return [c for c in self.columns if c.kind == "category"]

    def transform(self, table: Table, kind: str = "features") -> np.ndarray:
        """Encodes rows.

        A category that training has not seen counts as rare (without a rare group: none of the
        features is 1); a text where a number is expected counts as missing.

        Args:
          table: has the columns in use, in any order, and perhaps others.
          kind: "features" for networks and linear models; "trees" for what splits on raw values.

        Returns:
          features: float32 [N, F], finite, see `feature_names`. trees: float64 [N, C], the
          numeric series as they are, then a code per categorical column, in both NaN for missing.

        Raises:
          UserError: names all columns that are missing, and all that hold something else than
            in training (infinite numbers, mostly text instead of numbers).
        """
        choose("kind of features", kind, ("features", "trees"))
        self._check_columns(table)
        numbers, codes = self._series(table), self._codes(table)
        if kind == "trees":
            return np.column_stack([numbers, codes]) if codes.size else numbers
        one_hot = [
            code[:, None] == np.arange(len(c.levels) - len(c.features), len(c.levels))
            for code, c in zip(codes.T, self._categorical, strict=True)
        ]
        missing = np.isnan(numbers[:, self.indicator])
        parts = [self._scaled(numbers), missing, *one_hot]
        return np.concatenate([part.astype(np.float32) for part in parts], axis=1)

    def _check_columns(self, table: Table) -> None:
        absent = [c.name for c in self.columns if c.name not in table.columns]
        hint = nearest(absent[0], table.columns) if len(absent) == 1 else ""
        check(
            not absent,
            f"{table.origin} lacks the columns {', '.join(map(repr, absent))}, which the model "
            f"was trained on; it has {_some(table.columns)}.{hint}",
        )

    def _series(self, table: Table) -> np.ndarray:
        """Returns float64 [N, P], NaN where missing."""
        parts, wrong = [], []
        for column in self.columns:
            if column.kind == "category":
                continue
            found, problem = column_types.series(column, table)
            parts.append(found)
            wrong += [problem] if problem else []
        check(not wrong, f"{table.origin}: {'; '.join(wrong)}.")
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0))

    def _codes(self, table: Table) -> np.ndarray:
        """Returns float64 [N, columns of categories], each category's number, NaN if unknown."""
        codes = [column_types.codes(column, table) for column in self._categorical]
        return np.stack(codes, axis=1) if codes else np.zeros((len(table), 0))

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        filled = np.where(np.isnan(numbers), self.fill, numbers)
        if self.scaling == "quantile":
            return _normal_scores(filled, self.quantiles)
        with np.errstate(over="ignore"):
            z = (filled / 2 - self.center / 2) / self.scale * 2  # halves: no overflow
        z = np.clip(z, -1e6, 1e6)
        return z / np.sqrt(1 + (z / 3) ** 2) if self.scaling == "robust" else z.clip(-_CLIP, _CLIP)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns what `from_arrays` takes: arrays, and a JSON text as an array of one string."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays = {k: v for k, v in fields.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in fields.items() if k not in arrays}
        plain["columns"] = [dataclasses.asdict(c) for c in self.columns]
        return {"encoder": np.array(json.dumps(plain))} | arrays


def read_csv(path: str | Path) -> Table:
    """Returns all columns of a CSV file as a table; see `csv_columns.read`. Raises `UserError`."""
    sheet = csv_columns.read(path)
    return csv_columns.table(sheet, list(sheet.columns), path)


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Encoder:
    """Returns the encoder that `Encoder.to_arrays` was called on. Raises `UserError`."""
    try:
        plain = json.loads(str(arrays["encoder"]))
        columns = tuple(Column(**column_types.tuples(c)) for c in plain.pop("columns"))
        own = {f.name for f in dataclasses.fields(Encoder)} - {"columns", *plain}
        return Encoder(columns=columns, **column_types.tuples(plain), **{k: arrays[k] for k in own})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The table encoder cannot be read: {error!r}.") from None


def fit(
    table: Table,
    rows: np.ndarray | None = None,
    *,
    scaling: str = "robust",
    max_categories: int = MAX_CATEGORIES,
) -> Encoder:
    """Learns how to encode a table, from some of its rows.

    Args:
      table: features only: without the columns of labels, groups and splits.
      rows: int [M], the training rows; default all.
      scaling: of numbers. "robust": (x - median) / interquartile range, made 1 for a normal
        distribution, then z / sqrt(1 + (z / 3)^2), so that outliers neither squeeze the rest nor
        stand out (Holzmueller, Grinsztajn & Steinwart 2024, section 3); "standard": mean and
        standard deviation, clipped to 10 of these; "quantile": normal scores.
      max_categories: most features of a categorical column; further categories, and those that
        occur once or in less than 1 of 2000 rows, share one.

    Raises:
      UserError: names all columns that hold what no table can (lists, infinite numbers); no
        column is left.
    """
    choose("scaling", scaling, SCALINGS)
    part = table if rows is None else table[np.asarray(rows)]
    check(len(part) > 0, f"{table.origin} has no rows to learn the columns from.")
    columns, left_out, notes, problems = [], [], [], []
    for name in part.columns:
        found = column_types.infer(name, part, max_categories)
        columns += [found.column] if found.column else []
        left_out += [(name, found.left_out)] if found.left_out else []
        notes += [found.note] if found.note else []
        problems += [found.problem] if found.problem else []
    check(not problems, f"{table.origin}: {'; '.join(problems)}.")
    if left_out:
        reasons = ", ".join(f"{name!r} ({reason})" for name, reason in left_out)
        notes.insert(0, f"Columns left out: {reasons}.")
    check(bool(columns), f"{table.origin} has no column to learn from. {' '.join(notes)}".strip())
    return _fit_numbers(part, tuple(columns), tuple(left_out), scaling, tuple(notes))


def _fit_numbers(
    part: Table,
    columns: tuple[Column, ...],
    left_out: tuple[tuple[str, str], ...],
    scaling: str,
    notes: tuple[str, ...],
) -> Encoder:
    """Fits imputation and scaling to the numeric series of the training rows."""
    series = [s for c in columns for s in c.series]
    nothing = np.zeros(len(series))
    blank = Encoder(
        columns=columns, inputs=tuple(part.columns), left_out=left_out, scaling=scaling,
        series=tuple(series), fill=nothing, center=nothing, scale=nothing + 1,
        quantiles=np.zeros((0, len(series))), indicator=nothing > 0, notes=notes,
    )  # fmt: skip
    if not series:
        return blank
    from sklearn.impute import SimpleImputer

    numbers = blank._series(part)
    imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(numbers)
    center, scale = _location(numbers, scaling)
    fitted = dataclasses.replace(
        blank, fill=imputer.statistics_, center=center, scale=scale,
        indicator=np.isnan(numbers).any(0),
    )  # fmt: skip
    if scaling == "quantile":
        fitted = dataclasses.replace(fitted, quantiles=_quantiles(numbers))
    return fitted


def _location(numbers: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns center and scale of each series, float64 [P], whatever its magnitude."""
    from sklearn.preprocessing import RobustScaler, StandardScaler

    quartiles = np.nanpercentile(numbers, [25, 50, 75], axis=0)
    largest = np.abs(quartiles).max(0)
    if scaling == "standard":
        largest = np.nanmax(np.abs(numbers), axis=0, initial=0)
    unit = np.where(largest > 1e100, np.exp2(np.floor(np.log2(np.maximum(largest, 1)))), 1)
    units = numbers / unit  # sums of squares must not overflow
    if scaling == "standard":
        scaler = StandardScaler().fit(units)
        return np.asarray(scaler.mean_) * unit, np.asarray(scaler.scale_) * unit
    scaler = RobustScaler(unit_variance=True).fit(units)
    center, scale = np.asarray(scaler.center_), np.array(scaler.scale_)
    for p in np.flatnonzero(quartiles[0] == quartiles[2]):
        apart = np.abs(units[:, p] - center[p])  # most values are one: the spread of the others
        scale[p] = 2 * np.median(apart[apart > 0]) if (apart > 0).any() else 1
    return center * unit, scale * unit


def _quantiles(numbers: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import QuantileTransformer

    most = min(_QUANTILES, len(numbers))
    return np.asarray(QuantileTransformer(n_quantiles=most, subsample=None).fit(numbers).quantiles_)


def _normal_scores(filled: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Returns standard normal scores [N, P]; equal values get the middle of their ranks."""
    from scipy.special import ndtri

    q = np.linspace(0, 1, len(quantiles))
    out = np.zeros(filled.shape)
    for p, edges in enumerate(quantiles.T):
        up = np.interp(filled[:, p], edges, q)
        down = 1 - np.interp(-filled[:, p], -edges[::-1], q)
        out[:, p] = ndtri(((up + down) / 2).clip(1e-3, 1 - 1e-3))
    return out


def _some(names: Sequence[str] | Mapping[str, Any], most: int = 12) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
