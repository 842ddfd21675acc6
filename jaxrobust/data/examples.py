"""Data sets on the host: examples with labels, and subsets of them.

Symbols: N examples, K classes, [H, W, C] images as uint8, [D] features as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.data.class_labels import left_out_note
from jaxrobust.data.table import Table
from jaxrobust.errors import UserError, check


class Examples(NamedTuple):
    """One split of a data set.

    Attributes:
      x: uint8 [N, H, W, C] or float32 [N, D]; a `Table` of mixed columns; or, where that would
        not fit, an object with `len`, `[i]`, `shape` and `dtype` that reads an example when asked.
      labels: int32 [N], the labels given to training.
      ids: N names (paths, TFDS ids), or None.
      rows: int64 [N], each example's row in the source's own order, or None for 0 ... N-1.
      groups: int64 [N], numbers of groups (patients, bursts, copies of a file) that no split may
        separate, the same in all splits; or None.
      votes: int32 [N, A], labels of A annotators, -1 where one gave none, or None.
    """

    x: Any
    labels: np.ndarray
    ids: list[str] | None = None
    rows: np.ndarray | None = None
    groups: np.ndarray | None = None
    votes: np.ndarray | None = None


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


class Joined:
    """Several random-access `x`, one after the other, read when asked for."""

    def __init__(self, parts: Sequence[Any]):
        self.parts = parts

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.parts[0].dtype

    def __len__(self) -> int:
        return sum(len(p) for p in self.parts)

    def __getitem__(self, i: int) -> np.ndarray:
        for part in self.parts:
            if i < len(part):
                return np.asarray(part[int(i)])
            i -= len(part)
        raise IndexError(i)


def in_memory(x: Any) -> bool:
    """Returns whether `x` is an array or a table that is wholly in memory."""
    return isinstance(x, (np.ndarray, Table)) and not isinstance(x, np.memmap)


def take(examples: Examples, positions: np.ndarray) -> Examples:
    """Returns the examples at `positions`; of data that is not in memory, a view."""
    x, labels, ids, rows, groups, votes = examples
    return Examples(
        x[positions] if in_memory(x) else View(x, positions),
        labels[positions],
        None if ids is None else [ids[i] for i in positions],
        positions.astype(np.int64) if rows is None else rows[positions],
        None if groups is None else groups[positions],
        None if votes is None else votes[positions],
    )


def thumbnails(x: Any, positions: np.ndarray, side: int = 32) -> np.ndarray:
    """Returns images of a lazy `x` by `positions`, thinned out to at most `side` x `side`."""

    def thin(image: Any) -> Any:
        step = [max(1, -(-s // side)) for s in image.shape[:2]]
        return image[:: step[0], :: step[1]]

    return np.stack([thin(np.asarray(x[int(i)])) for i in positions])


def labeled_only(loaded: Loaded) -> Loaded:
    """Leaves out the examples without a label (code -1), with a note for each split.

    Raises:
      UserError: none of the training examples has a label, or an example has one, but no true
        label where true labels are known (names its row).
    """
    splits, notes, truth = dict(loaded.splits), list(loaded.notes), loaded.true_labels
    for split, examples in loaded.splits.items():
        missing = examples.labels < 0
        if not missing.any():
            continue
        check(not missing.all() or split != "train", "No training example has a label.")
        notes.append(left_out_note(split, missing, rows_of(examples)))
        kept = np.flatnonzero(~missing)
        splits[split] = take(examples, kept)
        if missing.all():
            del splits[split]
        if split == "train" and truth is not None:
            truth = truth[kept]
    if truth is not None and (truth < 0).any():
        row = rows_of(splits["train"])[np.argmax(truth < 0)]
        raise UserError(f"The example of row {row} has a given label, but no true label.")
    return loaded._replace(splits=splits, true_labels=truth, notes=tuple(notes))
