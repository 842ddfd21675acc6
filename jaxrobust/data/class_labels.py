"""Class labels as people store them: tidied, numbered, with missing ones marked.

A label is missing if it is None, NaN, NaT, pandas' NA, an empty text or one of `table.MISSING`
("NA", "None", "NULL", ...), or -1 where the others count 0, 1, ... Missing is never a class.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrobust.data.table import _listed, is_missing
from jaxrobust.errors import UserError, check

UNLABELED = -1  # the code of a missing label
_EXPECTED = "expected one label per example: a name or a whole number"
_WHOLE = re.compile(r"-?\d+(\.0*)?")
_INT64 = 1 << 63


def tidy(values: Any, what: str = "labels") -> np.ndarray:
    """Returns labels [N] as int64 or as objects, each a string, an integer or None (missing).

    Args:
      values: a sequence, array or column of numbers, strings or booleans, [N] or [N, 1].
      what: what to call them in messages.

    Raises:
      UserError: names the first row that holds a list, a fraction or an object, and what was
        expected; one-hot rows.
    """
    array = values if isinstance(values, np.ndarray) else _listed(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    check(array.ndim == 1, _shape_message(array, what))
    if array.dtype.kind == "b" or array.dtype.kind == "i":
        return _unlabeled(array.astype(np.int64))
    if array.dtype.kind == "U":
        array = np.char.strip(array)
    cells = np.empty(len(array), object)
    cells[:] = [None if is_missing(v) else _cell(v, i, what) for i, v in enumerate(array.tolist())]
    return _unlabeled(_as_integers(cells))


def _shape_message(array: np.ndarray, what: str) -> str:
    text = f"{what} have shape {list(array.shape)}; {_EXPECTED}, [N]."
    if array.ndim == 2 and array.dtype.kind in "biuf" and array.size:
        one_hot = (np.sort(array, axis=1)[:, :-1] == 0).all() and (array.sum(1) == 1).all()
        hint = "One-hot rows: use labels.argmax(axis=1)." if one_hot else ""
        return f"{text} {hint or 'Several labels per example (multi-label) are not supported.'}"
    return text


def _cell(value: Any, i: int, what: str) -> Any:
    """Returns a label that is not missing as a string or an integer."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (numbers.Integral, np.bool_)):
        return int(value)
    if isinstance(value, numbers.Real):
        if np.isfinite(float(value)) and float(value).is_integer():
            return int(value)
        kind = "a fraction" if np.isfinite(float(value)) else "no finite number"
        raise UserError(f"{what}: row {i} is {float(value):g}, {kind}; {_EXPECTED}.")
    if isinstance(value, (list, tuple, set, dict, np.ndarray)):
        raise UserError(
            f"{what}: row {i} holds {value!r:.60}; {_EXPECTED}. Several labels per example "
            "(multi-label) are not supported."
        )
    raise UserError(f"{what}: row {i} is of type {type(value).__name__}; {_EXPECTED}.")


def _as_integers(cells: np.ndarray) -> np.ndarray:
    """Returns int64 if all labels are whole numbers within 64 bits and none is missing."""
    present = [v for v in cells if v is not None]
    if not all(isinstance(v, int) and -_INT64 <= v < _INT64 for v in present):
        return cells
    return cells.astype(np.int64) if len(present) == len(cells) and present else cells


def _unlabeled(labels: np.ndarray) -> np.ndarray:
    """Marks -1 as missing where the other labels count from 0."""
    if labels.dtype != object:
        marked = (labels == UNLABELED).any() and labels.min() == UNLABELED and (labels == 0).any()
        return np.where(labels == UNLABELED, None, labels.astype(object)) if marked else labels
    present = {v for v in labels if v is not None}
    if {-1, 0} <= present and all(isinstance(v, int) and v >= -1 for v in present):
        labels = np.array([None if v == UNLABELED else v for v in labels], object)
    return labels


def encode(
    raw: dict[str, Any], names: Sequence[str] = (), unlabeled: str | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Numbers the classes of several sets of labels together.

    Class names are the distinct labels, in numerical order if all of them are whole numbers
    ("3.0" is "3"), else alphabetically; a class that occurs in one split only is a class all the
    same.

    Args:
      raw: labels by split; see `tidy`.
      names: classes that exist even if no example has them. A split all of whose labels are among
        them is taken as it is: "None" may be the name of a class.
      unlabeled: a further label that stands for a missing one.

    Returns:
      int32 labels by split, -1 where missing, and the class names.

    Raises:
      UserError: see `tidy`; fewer than two classes.
    """
    texts = {}
    for split, values in raw.items():
        exact = bool(names) and {*values} <= {*names}
        labels = np.asarray(values) if exact else tidy(values, f"labels of {split}")
        texts[split] = [None if v is None else str(v) for v in labels.tolist()]
    distinct = {v for values in texts.values() for v in values if v is not None} | {*names}
    if distinct and all(_WHOLE.fullmatch(v) for v in distinct) and not names:
        texts = {s: [v and v.partition(".")[0] for v in t] for s, t in texts.items()}
        distinct = {v for values in texts.values() for v in values if v is not None}
        texts, distinct = _without_minus_one(texts, distinct)
    distinct -= {unlabeled}
    order = sorted(distinct, key=_by_value(distinct))
    check(bool(order), "No example has a label.")
    check(len(order) >= 2, f"All labels are {order[0]!r}: one class cannot be learned.")
    number = {name: i for i, name in enumerate(order)}
    codes = {
        s: np.array([UNLABELED if v is None else number.get(v, UNLABELED) for v in t], np.int32)
        for s, t in texts.items()
    }
    return codes, tuple(order)


def _without_minus_one(
    texts: dict[str, list[str | None]], distinct: set[str]
) -> tuple[dict[str, list[str | None]], set[str]]:
    """Marks texts "-1" as missing where the other labels count from 0, in all splits alike."""
    if not {"-1", "0"} <= distinct or min(map(int, distinct)) < -1:
        return texts, distinct
    return {s: [None if v == "-1" else v for v in t] for s, t in texts.items()}, distinct - {"-1"}


def _by_value(names: set[str]) -> Any:
    whole = all(re.fullmatch(r"-?\d+", name) for name in names)
    return int if whole and len({int(name) for name in names}) == len(names) else None


def similar(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns pairs of class names that differ in case or white space only."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        key = " ".join(name.casefold().split())
        if first.setdefault(key, name) != name:
            pairs.append((first[key], name))
    return pairs


def class_notes(splits: dict[str, np.ndarray], names: Sequence[str]) -> list[str]:
    """Returns lines on classes that are probably mistakes.

    Args:
      splits: class numbers by split, -1 where missing.
      names: of the K classes.
    """
    notes = []
    if pairs := similar(names):
        listed = ", ".join(f"{a!r} and {b!r}" for a, b in pairs[:3])
        more = ", ..." if len(pairs) > 3 else ""
        notes.append(f"Class names that differ in case or spaces only: {listed}{more}.")
    seen = {s: np.bincount(v[v >= 0], minlength=len(names)) > 0 for s, v in splits.items()}
    others = [there for split, there in seen.items() if split not in ("train", "truth")]
    absent = np.flatnonzero(np.any(others, axis=0) & ~seen["train"]) if others else ()
    if len(absent):
        listed = ", ".join(repr(names[i]) for i in absent[:5]) + ", ..." * (len(absent) > 5)
        notes.append(f"Classes of validation or test without a training example: {listed}.")
    return notes


def left_out_note(split: str, missing: np.ndarray, rows: np.ndarray) -> str:
    """Returns the line that says how many examples have no label, and the first rows.

    Args:
      split: its name.
      missing: bool [N].
      rows: int [N], rows in the source's own order.
    """
    first = rows[missing][:5].tolist()
    listed = ", ".join(map(str, first)) + (", ..." if missing.sum() > len(first) else "")
    return (
        f"{missing.sum()} of {len(missing)} examples of {split} have no label and are left out "
        f"(rows {listed})."
    )
