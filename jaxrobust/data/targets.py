"""Labels as scikit-learn's users give them to an estimator: arrays, checks, missing ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from jaxrobust.data import table
from jaxrobust.errors import UserError, check


def as_array(y: Any) -> np.ndarray:
    """Returns labels as an array [N] or, of several annotators, [N, A]; None where masked.

    Raises:
      UserError: lists of several lengths, complex numbers, one-hot rows.
    """
    if isinstance(y, np.ma.MaskedArray):
        y = np.where(np.ma.getmaskarray(y), None, y.data.astype(object))
    nested = isinstance(y, (list, tuple)) and y and isinstance(y[0], (list, tuple, np.ndarray))
    try:
        values: Any = np.asarray(y) if nested or getattr(y, "ndim", None) == 2 else y
    except ValueError:
        raise UserError(
            "y holds lists of several lengths; expected one label per example. Several labels per "
            "example (multi-label) are not supported."
        ) from None
    check(
        getattr(getattr(values, "dtype", None), "kind", "") != "c",
        "y holds complex numbers. Complex data not supported; expected classes.",
    )
    if str(getattr(values, "dtype", "")).startswith(("bfloat16", "float8")):
        values = np.asarray(values, np.float32)
    if getattr(values, "ndim", 1) != 2 or values.shape[1] == 1:
        values = np.asarray(column_or_1d(values, warn=True))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.ndim == 2 and values.dtype.kind in "biuf" and values.shape[1] > 2:
        one_hot = bool(np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all())
        check(not one_hot, "y holds one-hot rows: pass y.argmax(axis=1).")
    return values


def check_classes(y: np.ndarray, known: np.ndarray, absent: np.ndarray) -> None:
    """Checks that labels are classes.

    Args:
      y: [N] or [N, A], labels as given.
      known: [M], those that are there.
      absent: bool, of the shape of y.

    Raises:
      UserError: infinity, fractions, dates and other objects: names the first row.
    """
    infinite = known.dtype.kind == "f" and bool(np.isinf(known).any())
    check(not infinite, "y contains infinity; expected classes.")
    if known.dtype == object and all(isinstance(v, int) for v in known):
        return  # integers beyond 64 bits
    try:
        check_classification_targets(known)
    except ValueError as error:
        wrong = known != np.round(known) if known.dtype.kind == "f" else np.ones(len(known), bool)
        i = int(np.argmax(wrong))
        row = np.argwhere(~absent)[i][0]
        raise UserError(
            f"{str(error).partition('. ')[0]}. Row {row} of y is {known[i]!r:.60}; expected one "
            "label per example, a name or a whole number."
        ) from None


def check_same_order(X: Any, y: Any) -> None:
    """Raises `UserError` if frames X and y have the same index in different orders."""
    ours, theirs = (getattr(a, "index", None) for a in (X, y))
    if ours is None or theirs is None or callable(ours) or callable(theirs):
        return
    unique = getattr(ours, "is_unique", False) and getattr(theirs, "is_unique", False)
    if not unique or len(ours) != len(theirs) or ours.equals(theirs):
        return
    check(
        bool(len(ours.difference(theirs))),
        "X and y have the same index in different orders: pass y.loc[X.index].",
    )


def absent_labels(y: np.ndarray) -> np.ndarray:
    """Returns where a label is missing, of the shape of y."""
    if y.dtype.kind == "f":
        missing = np.isnan(y)
    elif y.dtype.kind in "OUT":
        missing = np.asarray(np.frompyfunc(table.is_missing, 1, 1)(y.astype(object)), bool)
    else:
        missing = np.zeros(y.shape, bool)
    if y.dtype.kind in "if" and y.size and (y[~missing] == 0).any() and (y == -1).any():
        if y[~missing].min() == -1:
            missing |= y == -1
    return missing
