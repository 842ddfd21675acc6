"""Validation of the arguments of `find_label_issues`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.data import crowd
from jaxrobust.data.table import is_missing
from jaxrobust.errors import UserError, check, choose

TOLERANCE = 1e-2  # of the sum of a row of probabilities,
ROUNDING, MOST_ROUNDING = 5e-3, 0.2  # and per class, for probabilities written with two decimals
_CONTAINERS = (list, tuple, set, dict, np.ndarray)
_MOST_NUMBERS = 1000  # classes beyond the number of examples, for labels that are class numbers
_ONE = "one label per example is supported, not lists of labels (multi-label data)"


class Given(NamedTuple):
    """Checked arrays; see `issues.find_label_issues`. `weights` is a mapping, perhaps empty;
    `agreement` is what several annotators say of each class, [N, K], or None."""

    labels: np.ndarray
    class_names: tuple[str, ...]
    probabilities: np.ndarray | None
    training_probabilities: np.ndarray | None
    curves: np.ndarray | None
    weights: dict[str, np.ndarray]
    paths: tuple[str, ...] | None
    index: np.ndarray
    agreement: np.ndarray | None = None


def read(
    labels,
    probabilities,
    training_probabilities,
    curves,
    weights,
    class_names,
    paths,
    index,
    method: str | None = None,
) -> Given:
    """Checks all arguments; raises `UserError` with one line that names the wrong one."""
    names, columns = class_names, None
    if names is None and hasattr(getattr(labels, "dtype", None), "categories"):
        names = list(labels.dtype.categories)
    values = _labels(labels, names)
    n = len(values)
    check(n > 0, "labels are empty.")
    if hasattr(probabilities, "columns"):
        probabilities, columns = _in_order_of(labels, probabilities), list(probabilities.columns)
    p = _array("probabilities", probabilities, n, (2,))
    during = _array("training_probabilities", training_probabilities, n, (2, 3))
    during = during[:, None] if during is not None and during.ndim == 2 else during
    curves = _array("curves", curves, n, (2,))
    for name, a in (("training_probabilities", during), ("curves", curves)):
        some = a is None or bool(np.isfinite(a if a.ndim == 2 else a[..., 0]).any())
        check(some, f"{name} contains only NaN.")
    weights = _weights(weights, n)
    widths = [a.shape[-1] for a in (p, during) if a is not None]
    codes, names = _classes(values, names, widths, columns)
    if p is not None and columns is not None:
        p = p[:, _column_order(columns, names)]
    for name, a in (("probabilities", p), ("training_probabilities", during)):
        if a is not None:
            _check_probabilities(name, a, len(names), missing=a is during)
    agreement = None
    if codes.ndim == 2:
        codes, agreement = _agreed(codes, len(names), method)
    if paths is not None:
        paths = tuple(map(str, paths))
        check(len(paths) == n, f"There are {len(paths)} paths for {n} labels.")
    index = np.arange(n) if index is None else np.asarray(index)
    check(index.shape == (n,), f"index has shape {list(index.shape)} for {n} labels.")
    check(index.dtype.kind in "iu", f"index must be whole numbers; got {index.dtype}.")
    return Given(codes, names, p, during, curves, weights, paths, index.astype(np.int64), agreement)


def _plain(name: str, value: Any, hint: str) -> np.ndarray:
    """Returns a NumPy array of anything array-like: JAX, torch (detached), pandas, lists."""
    if isinstance(value, np.ma.MaskedArray):
        value = np.where(np.ma.getmaskarray(value), None, value.data.astype(object))
    for step in ("detach", "cpu"):
        value = getattr(value, step)() if hasattr(value, step) else value
    try:
        a = np.asarray(value)
    except TypeError:  # torch's bfloat16, which NumPy has not got.
        a = np.asarray(value.float())
    except ValueError as error:
        raise UserError(f"{name}: rows have different lengths; {hint}.") from error
    return a.astype(np.float32) if a.dtype.name.startswith(("bfloat16", "float8")) else a


def _labels(labels: Any, class_names: Sequence[str] | None) -> np.ndarray:
    """Returns labels [N], or of several annotators [N, A]; numbers or objects, none missing but
    where another annotator has voted.

    A text such as "NA" or "" is missing too, unless it is among the class names.
    """
    values = _plain("labels", labels, _ONE)
    check(values.ndim in (1, 2), f"labels must be [N]; got shape {list(values.shape)}.")
    check(values.dtype.kind != "c", "labels are complex numbers; expected classes.")
    flat = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.ravel()]
    if values.dtype.kind not in "biufmM":
        nested = next((i for i, v in enumerate(flat) if isinstance(v, _CONTAINERS)), None)
        if nested is not None:
            raise UserError(f"Label {nested} is a list; {_ONE}.")
        known_names = () if class_names is None else {*map(str, class_names)}
        missing = [_missing(v) and str(v) not in known_names for v in flat]
        cells = np.array(
            [None if gone else v for v, gone in zip(flat, missing, strict=True)], object
        )
        values = cells.reshape(values.shape)
        present = [v for v in cells if v is not None]
        if present and all(isinstance(v, int | float | np.number) for v in present):
            if all(abs(v) < 2**53 for v in present):
                numbers = [np.nan if v is None else v for v in cells]
                values = np.array(numbers).reshape(values.shape)
    absent = _absent(values)
    rows = np.flatnonzero(absent if values.ndim == 1 else absent.all(1))
    if len(rows):
        text = flat[rows[0] * (values.size // len(values))]
        what = repr(str(text)) if isinstance(text, str) else "None or NaN"
        raise UserError(f"Label {rows[0]} is missing ({what}): leave its example out, or label it.")
    return values


def _missing(value: Any) -> bool:
    return is_missing(value) or bool(value != value)


def _absent(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.isnan(values)
    return np.equal(values, None) if values.dtype == object else np.zeros(values.shape, bool)


def _in_order_of(labels: Any, frame: Any) -> Any:
    """Returns the rows of a DataFrame in the order of the labels' index, if both have the same."""
    index = getattr(labels, "index", None)
    if index is None or callable(index) or not index.is_unique or not frame.index.is_unique:
        return frame
    same = len(index) == len(frame) and set(index) == set(frame.index)
    return frame.loc[index] if same else frame


def _column_order(columns: list, names: tuple[str, ...]) -> list[int]:
    """Returns where each class is among the columns of a DataFrame."""
    place = {str(name): i for i, name in enumerate(columns)}
    if set(place) == set(names):
        return [place[name] for name in names]
    check(
        columns == list(range(len(columns))) and len(columns) == len(names),
        f"The columns of probabilities ({', '.join(map(str, columns[:5]))}) are not the classes "
        f"({', '.join(names[:5])}): name the columns as the classes.",
    )
    return list(range(len(names)))


def _array(name: str, value: Any, n: int, dims: tuple[int, ...]) -> np.ndarray | None:
    if value is None:
        return None
    a = _plain(name, value, "give an array")
    check(a.dtype.kind in "fiub", f"{name} must be numbers; got {a.dtype}.")
    column = name.endswith("probabilities") and a.ndim == 1
    hint = " Pass predict_proba's result; of one column p, np.column_stack([1 - p, p])."
    check(
        a.ndim in dims,
        f"{name} has shape {list(a.shape)}; expected {dims[0]} dimensions.{hint * column}",
    )
    check(len(a) == n, f"{name} has {len(a)} rows for {n} labels.")
    check(a.size > 0, f"{name} is empty.")
    return a if a.dtype in (np.float32, np.float64) else a.astype(np.float32)


def _weights(weights: Any, n: int) -> dict[str, np.ndarray]:
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        weights = {"weights": weights}
    arrays = {name: _array(name, w, n, (1,)) for name, w in weights.items()}
    arrays = {name: w for name, w in arrays.items() if w is not None}
    for name, w in arrays.items():
        check(bool((w >= 0).all()), f"{name} must not be negative or NaN.")
    return arrays


def _classes(values, class_names, widths, columns) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns class numbers, int32 [N] or of annotators [N, A] with -1 for none, and names."""
    if values.dtype.kind in "iubf":
        if (
            class_names is None
            and columns is not None
            and not all(str(c).isdigit() for c in columns)
        ):
            class_names = columns
        if class_names is None and not widths and _identifiers(values):
            codes, names = _texts(np.vectorize(str, otypes=[object])(values), None)
        else:
            codes, names = _numbers(values, class_names, widths)
    else:
        codes, names = _texts(values, class_names)
    check(len(names) >= 2, "There is one class only: no label can be another.")
    check(len(set(names)) == len(names), "class_names are not distinct.")
    if columns is not None and class_names is None:
        lacking = [name for name in names if name not in {*map(str, columns)}]
        check(
            not lacking or len(lacking) == len(names),
            f"The columns of probabilities ({', '.join(map(str, columns[:5]))}) have none for the "
            f"classes {', '.join(lacking[:5])}: name the columns as the classes.",
        )
    for width in widths:
        remedy = "name all classes, in the order of the columns, with class_names="
        if width == 1:
            remedy = "of one column p pass np.column_stack([1 - p, p])"
        check(
            width == len(names),
            f"Predictions are for {width} classes; there are {len(names)}: {remedy}.",
        )
    return codes.astype(np.int32), names


def _identifiers(values: np.ndarray) -> bool:
    """Whether labels are codes such as 10042, not numbers of classes 0 ... K-1."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and float(finite.max()) > values.size + _MOST_NUMBERS


def _numbers(values, class_names, widths) -> tuple[np.ndarray, tuple[str, ...]]:
    absent = _absent(values)
    known = values[~absent]
    infinite = np.flatnonzero(np.isinf(values.ravel()) if values.dtype.kind == "f" else [])
    if len(infinite):
        raise UserError(f"Label {infinite[0]} is infinite: not a class.")
    check(bool((known == np.round(known)).all()), "labels are numbers but not whole: not classes.")
    large = np.flatnonzero((~absent & (np.nan_to_num(values.astype(float)) >= 2**31)).ravel())
    if len(large):
        raise UserError(f"Label {large[0]} is {values.ravel()[large[0]]}, no number of a class.")
    codes = np.where(absent, -1, np.nan_to_num(values)).astype(np.int64)
    most, least = int(codes.max()), int(codes[~absent].min())
    k = len(class_names) if class_names is not None else max([*widths, most + 1])
    one_based = class_names is None and widths and least == 1 and most == widths[0]
    check(
        not one_based,
        f"labels are 1..{most} for {most} columns: classes are counted from 0. "
        "Pass labels - 1, or give the labels as text.",
    )
    names = tuple(map(str, range(k) if class_names is None else class_names))
    bad = np.flatnonzero((~absent & ((codes < 0) | (codes >= k))).ravel())
    if len(bad):
        raise UserError(
            f"Label {bad[0]} is {codes.ravel()[bad[0]]}, outside the classes 0..{k - 1}."
        )
    return codes, names


def _texts(values, class_names) -> tuple[np.ndarray, tuple[str, ...]]:
    absent, text = _absent(values), values.astype(str)
    distinct = np.unique(text[~absent])
    if class_names is None and all(t.isdigit() and str(int(t)) == t for t in distinct.tolist()):
        distinct = sorted(distinct.tolist(), key=int)  # "10" is after "2"
    names = tuple(map(str, distinct if class_names is None else class_names))
    place = {name: i for i, name in enumerate(names)}
    flat, none = text.ravel(), absent.ravel()
    strange = next((i for i, t in enumerate(flat) if t not in place and not none[i]), None)
    if strange is not None:
        known = ", ".join(names[:5])
        raise UserError(f"Label {strange} is {str(flat[strange])!r}, outside {known}, …")
    codes = np.array([-1 if gone else place[t] for t, gone in zip(flat, none, strict=True)])
    return codes.reshape(values.shape), names


def _agreed(votes: np.ndarray, k: int, method: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the consensus of annotators [N, A]: labels [N] and how far they agree [N, K]."""
    indicator = votes.shape[1] == k and bool(np.isin(votes, (0, 1)).all())
    check(
        method is not None or not indicator,
        f"labels have shape {list(votes.shape)}, like an indicator matrix: {_ONE}. Of one-hot rows "
        "pass labels.argmax(1); if each column is an annotator, crowd='dawid_skene'.",
    )
    method = method or crowd.CONSENSUS[0]
    choose("crowd", method, crowd.CONSENSUS)
    return crowd.consensus(votes, k, method)


def _check_probabilities(name: str, p: np.ndarray, k: int, *, missing: bool) -> None:
    """Rows must be distributions, perhaps rounded; where `missing` is allowed, a row may be NaN."""
    tolerance = min(TOLERANCE + ROUNDING * k, MOST_ROUNDING)
    for start in range(0, len(p), 1 << 16):
        block = p[start : start + (1 << 16)]
        sums, low, high = block.sum(-1), block.min(-1), block.max(-1)
        bad = ~((np.abs(sums - 1) <= tolerance) & (low >= -TOLERANCE) & (high <= 1 + TOLERANCE))
        if missing:
            bad &= ~np.isnan(sums)
        if bad.any():
            i = np.argwhere(bad)[0]
            total, least, most = (float(a[tuple(i)]) for a in (sums, low, high))
            raise UserError(
                _not_probabilities(f"{name} of example {start + i[0]}", total, least, most)
            )


def _not_probabilities(name: str, total: float, least: float, most: float) -> str:
    if np.isnan(total):
        return f"{name} are NaN: predict every example, or leave those out that are not."
    text = f"{name} sum to {total:.4g}, with smallest {least:.3g}: not probabilities. "
    if np.abs(total - 100) < 3 and least >= -1:
        return text + "They are percentages: divide them by 100."
    inside = least >= -TOLERANCE and most <= 1 + TOLERANCE
    return text + ("Rows must sum to one." if inside else "Apply a softmax to logits.")
