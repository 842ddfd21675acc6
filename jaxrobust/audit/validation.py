"""Validation of the arguments of `find_label_issues`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.errors import UserError, check

TOLERANCE = 1e-2  # of the sum of a row of probabilities


class Given(NamedTuple):
    """Checked arrays; see `issues.find_label_issues`. `weights` is a mapping, perhaps empty."""

    labels: np.ndarray
    class_names: tuple[str, ...]
    probabilities: np.ndarray | None
    training_probabilities: np.ndarray | None
    curves: np.ndarray | None
    weights: dict[str, np.ndarray]
    paths: tuple[str, ...] | None
    index: np.ndarray


def read(
    labels, probabilities, training_probabilities, curves, weights, class_names, paths, index
) -> Given:
    """Checks all arguments; raises `UserError` with one line that names the wrong one."""
    labels = np.asarray(labels)
    check(labels.ndim == 1, f"labels must be [N]; got shape {list(labels.shape)}.")
    n = len(labels)
    check(n > 0, "labels are empty.")
    p = _array("probabilities", probabilities, n, (2,))
    during = _array("training_probabilities", training_probabilities, n, (2, 3))
    during = during[:, None] if during is not None and during.ndim == 2 else during
    curves = _array("curves", curves, n, (2,))
    for name, a in (("training_probabilities", during), ("curves", curves)):
        some = a is None or bool(np.isfinite(a if a.ndim == 2 else a[..., 0]).any())
        check(some, f"{name} hold not one number: there is no evidence to go by.")
    if weights is None:
        weights = {}
    elif not isinstance(weights, Mapping):
        weights = {"weights": weights}
    weights = {name: _array(name, w, n, (1,)) for name, w in weights.items()}
    for name, w in weights.items():
        check(bool((w >= 0).all()), f"{name} must not be negative or NaN.")
    widths = [a.shape[-1] for a in (p, during) if a is not None]
    codes, names = _classes(labels, class_names, widths)
    for name, a in (("probabilities", p), ("training_probabilities", during)):
        if a is not None:
            _check_probabilities(name, a, len(names), missing=a is during)
    if paths is not None:
        paths = tuple(map(str, paths))
        check(len(paths) == n, f"There are {len(paths)} paths for {n} labels.")
    index = np.arange(n) if index is None else np.asarray(index)
    check(index.shape == (n,), f"index has shape {list(index.shape)} for {n} labels.")
    check(index.dtype.kind in "iu", f"index must be whole numbers; got {index.dtype}.")
    return Given(codes, names, p, during, curves, weights, paths, index.astype(np.int64))


def _array(name: str, value: Any, n: int, dims: tuple[int, ...]) -> np.ndarray | None:
    if value is None:
        return None
    a = np.asarray(value)
    check(a.dtype.kind in "fiub", f"{name} must be numbers; got {a.dtype}.")
    check(a.ndim in dims, f"{name} has shape {list(a.shape)}; expected {dims[0]} dimensions.")
    check(len(a) == n, f"{name} has {len(a)} rows for {n} labels.")
    check(a.size > 0, f"{name} is empty.")
    return a if a.dtype in (np.float32, np.float64) else a.astype(np.float32)


def _classes(labels, class_names, widths) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns class numbers, int32 [N], and names."""
    if labels.dtype.kind in "iubf":
        whole = labels.dtype.kind != "f" or bool((labels == np.round(labels)).all())
        check(whole, "labels are numbers but not whole: not classes.")
        codes = labels.astype(np.int64)
        k = len(class_names) if class_names is not None else max([*widths, int(codes.max()) + 1])
        names = tuple(map(str, range(k) if class_names is None else class_names))
        bad = np.flatnonzero((codes < 0) | (codes >= k))
        if len(bad):
            raise UserError(f"Label {bad[0]} is {codes[bad[0]]}, outside the classes 0..{k - 1}.")
    else:
        text = labels.astype(str)
        names = tuple(map(str, np.unique(text) if class_names is None else class_names))
        place = {name: i for i, name in enumerate(names)}
        strange = next((i for i, t in enumerate(text) if t not in place), None)
        if strange is not None:
            known = ", ".join(names[:5])
            raise UserError(f"Label {strange} is {str(text[strange])!r}, outside {known}, …")
        codes = np.array([place[t] for t in text])
    check(len(names) >= 2, "There is one class only: no label can be another.")
    check(len(set(names)) == len(names), "class_names are not distinct.")
    for width in widths:
        check(width == len(names), f"Predictions are for {width} classes; there are {len(names)}.")
    return codes.astype(np.int32), names


def _check_probabilities(name: str, p: np.ndarray, k: int, *, missing: bool) -> None:
    """Rows must be distributions; where `missing` is allowed, a row may be NaN."""
    for start in range(0, len(p), 1 << 16):
        block = p[start : start + (1 << 16)]
        sums, low = block.sum(-1), block.min(-1)
        bad = ~((np.abs(sums - 1) <= TOLERANCE) & (low >= -TOLERANCE))
        if missing:
            bad &= ~np.isnan(sums)
        rows = np.unique(np.nonzero(bad)[0])
        if len(rows):
            i = rows[0]
            raise UserError(
                f"{name} of example {start + i} sum to {float(np.ravel(sums[i])[0]):.4g}, with "
                f"smallest {float(np.ravel(low[i])[0]):.3g}: not probabilities. Apply a softmax "
                "to logits."
            )
