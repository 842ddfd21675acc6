"""What a data set is on the host: examples with labels, and how some of them are taken.

Symbols: N examples, K classes, [H, W, C] images as uint8, [D] features as float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxrobust.errors import UserError, check


class Examples(NamedTuple):
    """One split of a data set.

    Attributes:
      x: uint8 [N, H, W, C] or float32 [N, D]; or, where that would not fit, an object with
        `len`, `[i]`, `shape` and `dtype` that reads an example when asked.
      labels: int32 [N], the labels given to training.
      ids: N names (paths, TFDS ids), or None.
      rows: int64 [N], each example's row in the source's own order, or None for 0 ... N-1.
    """

    x: Any
    labels: np.ndarray
    ids: list[str] | None = None
    rows: np.ndarray | None = None


class Source(NamedTuple):
    """A data set.

    Attributes:
      name: as given to `load`.
      train, test, validation: splits; test and validation may be None.
      class_names: K names; labels index them.
      true_labels: int32 [N] of the training split if known apart from the given labels;
        None means that the given labels are taken to be the truth.
      num_rows: how many rows the training split's own order has (see `Examples.rows`).
      notes: what the user should know of how it was read.
      feature_names: D names of a table's columns; () if they have none.
    """

    name: str
    train: Examples
    test: Examples | None
    validation: Examples | None
    class_names: tuple[str, ...]
    true_labels: np.ndarray | None = None
    num_rows: int | None = None
    notes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """What a reader gives back, before a test share is held out.

    Attributes:
      splits: by name: train, and perhaps validation and test.
      class_names: K names.
      true_labels: int32 [N] of the training split, or None (see `Source`).
      num_rows: how many rows the training split's own order has.
      notes: what the user should know.
      feature_names: see `Source`.
    """

    splits: dict[str, Examples]
    class_names: tuple[str, ...]
    true_labels: np.ndarray | None
    num_rows: int
    notes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()


def rows_of(examples: Examples) -> np.ndarray:
    """Returns int64 [N], each example's row in the source's own order."""
    return np.arange(len(examples.labels)) if examples.rows is None else examples.rows


def positions(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns int64 [M], where in `rows` [N], in any order, each of `wanted` [M] is.

    Raises:
      UserError: some of `wanted` are not there.
    """
    order = np.argsort(rows, kind="stable")
    place = np.searchsorted(rows, wanted, sorter=order)
    missing = (place == len(rows)) | (rows[order[place % len(rows)]] != wanted)
    check(
        not missing.any(),
        f"{missing.sum()} of {len(wanted)} rows are missing, e.g. row {wanted[missing][:1]}.",
    )
    return order[place]


class View:
    """Some rows of a random-access `x`, in a given order, read when asked for.

    It has `shape` and `dtype` where `x` has.
    """

    def __init__(self, x: Any, rows: np.ndarray):
        if isinstance(x, View):
            x, rows = x.x, x.rows[rows]
        self.x, self.rows = x, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.x.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.x.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.asarray(self.x[int(self.rows[i])])


def in_memory(x: Any) -> bool:
    """Returns whether `x` is an array that is wholly in memory."""
    return isinstance(x, np.ndarray) and not isinstance(x, np.memmap)


def take(examples: Examples, positions: np.ndarray) -> Examples:
    """Returns the examples at `positions`; of data that is not in memory, a view."""
    x, labels, ids, rows = examples
    return Examples(
        x[positions] if in_memory(x) else View(x, positions),
        labels[positions],
        None if ids is None else [ids[i] for i in positions],
        positions.astype(np.int64) if rows is None else rows[positions],
    )


def thumbnails(x: Any, positions: np.ndarray, side: int = 32) -> np.ndarray:
    """Returns images of a lazy `x` by `positions`, thinned out to at most `side` x `side`."""

    def thin(image):
        step = [max(1, -(-s // side)) for s in image.shape[:2]]
        return image[:: step[0], :: step[1]]

    return np.stack([thin(np.asarray(x[int(i)])) for i in positions])


def encode(
    raw: dict[str, np.ndarray], names: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Numbers the classes of several sets of labels together.

    Class names are the distinct labels, in numerical order if all of them are integers, else
    alphabetically; a class that occurs in one split only is a class all the same.

    Args:
      raw: labels by split: integers, whole floats, booleans or strings, [N] each.
      names: classes that exist even if no example has them.

    Returns:
      int32 labels by split, and the class names.

    Raises:
      UserError: a label that is empty, missing or not whole; fewer than two classes.
    """
    tidy = {split: _tidy(np.asarray(values), split) for split, values in raw.items()}
    text = any(v.dtype.kind in "US" for v in tidy.values()) or bool(names)
    if text:
        tidy = {split: v.astype(str) for split, v in tidy.items()}
    together = np.concatenate([*tidy.values(), *([np.asarray(names, str)] if names else [])])
    classes, codes = np.unique(together, return_inverse=True)
    codes = codes.astype(np.int32)
    if text and (order := _numerical_order(classes)) is not None:
        codes = np.argsort(order).astype(np.int32)[codes]
        classes = classes[order]
    check(len(classes) >= 2, f"All labels are {str(classes[0])!r}: one class cannot be learned.")
    ends = np.cumsum([len(v) for v in tidy.values()])
    parts = np.split(codes, ends)[: len(tidy)]
    return dict(zip(tidy, parts, strict=True)), tuple(str(c) for c in classes)


def _tidy(values: np.ndarray, split: str) -> np.ndarray:
    check(values.ndim == 1, f"Labels of {split} must be [N]; got shape {list(values.shape)}.")
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
        if len(wrong):
            raise UserError(
                f"Label of {split} example {wrong[0]} is {values[wrong[0]]}, not a class."
            )
        return values.astype(np.int64)
    if values.dtype.kind in "US":
        values = np.char.strip(values.astype(str))
        empty = np.flatnonzero(values == "")
        check(not len(empty), f"Label of {split} example {empty[:1].tolist()} is missing.")
        return values
    check(values.dtype.kind in "iu", f"Labels of {split} have type {values.dtype}.")
    return values


def _numerical_order(classes: np.ndarray) -> np.ndarray | None:
    """The order of class names by value, if they are distinct integers."""
    try:
        values = classes.astype(np.int64)
    except ValueError:
        return None
    return np.argsort(values) if len(np.unique(values)) == len(values) else None
