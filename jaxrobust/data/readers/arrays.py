"""Arrays and tables: `npz`, a pair of `.npy` files, and `csv`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.data import annotators as annotators_of
from jaxrobust.data.class_labels import encode
from jaxrobust.data.examples import Examples, Loaded
from jaxrobust.data.readers import csv_columns
from jaxrobust.data.table import Table, from_array, is_missing, text
from jaxrobust.errors import check, nearest

_SUFFIXES = {"train": "", "validation": "_valid", "test": "_test"}


def load_npz(
    path: str | None,
    *,
    label_key: str | None,
    max_bytes: int,
    group_column: str | None = None,
    unlabeled: str | None = None,
    annotators: str | None = None,
) -> Loaded:
    """Reads arrays: images or features, and labels.

    `path` is a .npz file with the arrays `x, y` and optionally `x_valid, y_valid, x_test,
    y_test`, or a folder of such arrays in .npy files (`x.npy`, `y.npy`, ...), of which a large
    `x` stays on disk. Images are [N, H, W] or [N, H, W, C]: integers 0 ... 255 or floats in
    [0, 1] or [0, 255], which are rounded to uint8; features are [N, D], turned to float32, or to a
    `Table` where that would lose something (offsets, missing values, beyond float32's range).
    Labels are integers or strings; see `class_labels`. With a `label_key`, that array is given to
    training and `y` is the truth. With a `group_column`, that array names each example's group.
    With `annotators`, that array [N, A] holds the labels of A annotators, NaN, None or -1 where one
    gave none.

    Raises:
      UserError: an array is missing, lengths differ, pixels out of range, an infinite value
        (names the example), channels first.
    """
    check(path is not None, "An npz data set needs a path.")
    file = files.expanded(path)
    arrays = _arrays(file, max_bytes)
    given = annotators or label_key or "y"
    for key in ("x", given):
        _array(arrays, key, path)
    splits, raw, groups = {}, {}, {}
    for split, suffix in _SUFFIXES.items():
        x_key = "x" + suffix
        y_key = given if split == "train" else "y" + suffix
        if x_key not in arrays:
            continue
        check(y_key in arrays, f"{path} has {x_key!r} but not {y_key!r}.")
        if group_column is not None and (split == "train" or group_column + suffix in arrays):
            groups[split] = _array(arrays, group_column + suffix, path)
        if annotators is not None and split != "train" and given + suffix in arrays:
            y_key = given + suffix
        splits[split], raw[split] = as_examples(arrays[x_key], x_key, path), arrays[y_key]
        check(
            len(splits[split]) == len(raw[split]),
            f"{path}: {x_key!r} has {len(splits[split])} examples, {y_key!r} "
            f"{len(raw[split])} labels.",
        )
    if given != "y" and "y" in arrays:
        raw["truth"] = arrays["y"]
        check(
            len(raw["truth"]) == len(raw["train"]), f"{path}: 'y' and {given!r} differ in length."
        )
    shapes = {x.shape[1:] for x in splits.values()}
    check(len(shapes) == 1, f"{path}: the splits' examples differ in shape: {shapes}.")
    for split, named in groups.items():
        check(
            len(named) == len(raw[split]),
            f"{path}: {group_column!r} names {len(named)} groups of {len(raw[split])} examples.",
        )
    votes, raw = _votes(raw, path) if annotators is not None else ({}, raw)
    labels, names = encode(raw, unlabeled=unlabeled)
    votes = {split: np.stack([labels[key] for key in keys], 1) for split, keys in votes.items()}
    numbers = group_numbers(groups)
    examples = {
        split: Examples(
            x,
            votes[split][:, 0] if split in votes else labels[split],
            None,
            np.arange(len(x)),
            numbers.get(split),
            votes.get(split),
        )
        for split, x in splits.items()
    }
    return Loaded(examples, names, labels.get("truth"), len(splits["train"]))


def _votes(raw: dict[str, Any], path: Any) -> tuple[dict[str, Any], dict[Any, Any]]:
    """Takes arrays [N, A] of annotators apart; returns the keys of each split's, and all labels."""
    keys: dict[str, Any] = {}
    apart: dict[Any, Any] = {}
    width = raw["train"].shape[1] if np.ndim(raw["train"]) == 2 else 0
    check(
        width > 1,
        f"{path}: data.annotators needs an array [N, A] of two annotators or more; it has shape "
        f"{list(np.shape(raw['train']))}.",
    )
    for split, labels in raw.items():
        if split == "truth":
            apart[split] = labels
            continue
        labels = np.asarray(labels)
        labels = labels[:, None].repeat(width, 1) if labels.ndim == 1 else labels
        keys[split] = [(split, j) for j in range(width)]
        apart |= {key: labels[:, key[1]] for key in keys[split]}
    return keys, apart


def _array(arrays: dict[str, Any], key: str, path: Any) -> np.ndarray:
    check(
        key in arrays,
        f"{path} has no array {key!r}; it has {', '.join(sorted(arrays)) or 'none'}."
        f"{nearest(key, arrays)}",
    )
    return arrays[key]


def group_numbers(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Numbers groups, given by name or number for each split, alike in all splits: int64 [N].

    A missing name is a group of its own.
    """
    first, numbers = {}, {}
    for split, values in named.items():
        numbers[split] = np.zeros(len(values), np.int64)
        for i, value in enumerate(values.tolist()):
            key = (split, i) if is_missing(value) else text(value)
            numbers[split][i] = first.setdefault(key, len(first))
    return numbers


def _arrays(file: Path, max_bytes: int) -> dict[str, Any]:
    if file.is_dir():
        found = {f.stem: f for f in sorted(file.glob("*.npy"))}
        check(bool(found), f"{file} holds no .npy files (x.npy, y.npy).")
        return {name: _read_npy(f, max_bytes) for name, f in found.items()}
    return files.read_npz(file)


def _read_npy(file: Path, max_bytes: int) -> np.ndarray:
    mapped = files.read_npy(file, mapped=True)
    return mapped if mapped.nbytes > max_bytes and mapped.dtype == np.uint8 else np.array(mapped)


def as_examples(x: np.ndarray, key: str, path: str) -> np.ndarray | Table:
    """Returns images as uint8 [N, H, W, C] or features as float32 [N, D]; see `load_npz`.

    Args:
      x: array named `key` in `path` (for messages).

    Returns:
      The examples; features that float32 would not hold to a thousandth of their standard
      deviation, or of which some are missing (NaN), as a `Table` of the columns x0, x1, ...

    Raises:
      UserError: another shape or type, pixels out of range, infinity or (in images) NaN: names
        the example.
    """
    check(
        x.dtype.kind in "uifb" and x.ndim in (2, 3, 4) and x.size > 0,
        f"{path}: {key!r} must be images [N, H, W(, C)] or features [N, D]; got "
        f"{x.dtype} {list(x.shape)}.",
    )
    if x.dtype.kind == "f":
        wrong = np.isinf(x) if x.ndim == 2 else ~np.isfinite(x)
        bad = np.flatnonzero(wrong.any(axis=tuple(range(1, x.ndim))))
        check(not len(bad), f"{path}: example {bad[:1].tolist()} of {key!r} holds NaN or infinity.")
    if x.ndim == 2:
        return x.astype(np.float32) if fits_float32(x) else from_array(x, f"{path}: {key!r}")
    if x.ndim == 4:
        check(
            x.shape[-1] in (1, 3),
            f"{path}: {key!r} has shape {list(x.shape)}; images are [N, H, W, C] with 1 or 3 "
            "channels" + (": transpose it." if x.shape[1] in (1, 3) else "."),
        )
    x = _pixels(x, key, path)
    return x if x.ndim == 4 else x[:, :, :, None]


def fits_float32(x: np.ndarray) -> bool:
    """Returns whether features keep what they say in float32."""
    if x.dtype.kind == "f" and np.isnan(x).any():
        return False
    if x.dtype.itemsize <= 2 or x.dtype == np.float32:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        largest, spread = np.abs(x.astype(np.float64)).max(0), x.std(0, dtype=np.float64)
    changing = spread > 0
    error = largest * np.finfo(np.float32).eps
    return bool((largest < 1e37).all() and (error <= 1e-3 * spread)[changing].all())


def _pixels(x: np.ndarray, key: str, path: str) -> np.ndarray:
    """Returns uint8 pixels of integers 0 ... 255 or floats in [0, 255] or [0, 1].

    Floats are taken for [0, 1] if none exceeds 1.1 (and so may overshoot a little, as resizing
    with bicubic or Lanczos filters does) unless all are whole; overshoots are clipped.
    """
    if x.dtype == np.uint8:
        return x
    low, high = x.min(), x.max()
    floats = x.dtype.kind == "f"
    unit = x.dtype.kind == "b" or (floats and high <= 1.1)
    if floats and high > 1 and unit:
        unit = bool((x != np.round(x)).any())
    dim = floats and not unit and high < 8 and bool((x != np.round(x)).any())
    slack = (0.1 if unit else 2.0) if floats and not dim else 0
    check(
        not dim and low >= -slack and high <= (1 if unit else 255) + slack,
        f"{path}: pixels of {key!r} lie in [{low:g}, {high:g}]; use [0, 255] or [0, 1].",
    )
    return np.clip(np.round(x * (255 if unit else 1)), 0, 255).astype(np.uint8)


def load_csv(
    path: str | None,
    *,
    label_key: str | None,
    label_column: str | None = None,
    group_column: str | None = None,
    unlabeled: str | None = None,
    annotators: str | None = None,
) -> Loaded:
    """Reads a table: one example per row, mixed features in columns; see `tabular`.

    The label is the column `label_column`, or else `label`, `class`, `target`, or the last; a
    column `split` (train, validation, test) and a column `id` are understood; all others but the
    group are features. With `annotators` (names or patterns of columns, separated by commas),
    these hold a label per annotator, and a `label_column` is the truth. With a `label_key`, that
    column is given to training and the label, if there is one, is the truth.

    Raises:
      UserError: see `csv_columns.read`; a column that is not there; a label column of which
        nearly every row is a class of its own.
    """
    check(path is not None, "A csv data set needs a path: set --config.data.path=FILE.")
    sheet = csv_columns.read(path)
    columns, notes = sheet.columns, list(sheet.notes)
    check(
        len(columns) > 1,
        f"{path} has one column, {next(iter(columns))!r}, and no feature columns. Columns are "
        "separated by commas, semicolons, tabs or bars.",
    )
    csv_columns.check_header(columns, path)
    own = csv_columns.label_column(columns, label_column, path)
    if annotators is not None:
        check(label_key is None, "data.annotators and data.label_key are both set; use one.")
        return _of_annotators(sheet, path, annotators, label_column, group_column, unlabeled)
    given = own if label_key is None else csv_columns.column(columns, (label_key,), path)
    named = label_column is not None or own.lower() in csv_columns.LABELS
    truth = columns[own] if given != own and named else None
    csv_columns.check_classes(columns[given], given, path)
    if label_key is None and not named:
        notes.append(
            f"The labels are the last column, {own!r}; --config.data.label_column=NAME takes "
            "another."
        )
    group = group_column and csv_columns.column(columns, (group_column,), path)
    split_column, id_column = (csv_columns.named(columns, (n,)) for n in ("split", "id"))
    roles = {given, split_column, id_column, group} | ({own} if truth is not None else set())
    features = [name for name in columns if name not in roles]
    x = csv_columns.table(sheet, features, path)
    where = np.full(len(x), "train")
    if split_column is not None:
        where = csv_columns.splits(columns[split_column], path)
    check("train" in where, f"{path}: no row belongs to the split 'train'.")
    rows = {str(split): np.flatnonzero(where == split) for split in np.unique(where)}
    raw = {
        split: (columns[given] if truth is None or split == "train" else truth)[r]
        for split, r in rows.items()
    }
    if truth is not None:
        raw["truth"] = truth[rows["train"]]
    labels, names = encode(raw, unlabeled=unlabeled)
    groups = group_numbers({"all": columns[group]})["all"] if group else None
    ids = None if id_column is None else columns[id_column]
    splits = {
        split: Examples(
            x[r],
            labels[split],
            None if ids is None else ids[r].tolist(),
            r,
            None if groups is None else groups[r],
        )
        for split, r in rows.items()
    }
    return Loaded(
        splits, names, labels.get("truth"), len(x), tuple(notes), feature_names=tuple(features)
    )


def _of_annotators(
    sheet: csv_columns.Sheet,
    path: str,
    wanted: str,
    label_column: str | None,
    group_column: str | None,
    unlabeled: str | None,
) -> Loaded:
    """Reads a table whose labels are in a column per annotator, see `load_csv`."""
    columns, notes = sheet.columns, list(sheet.notes)
    raters = annotators_of.columns(wanted, columns, path)
    own = [] if label_column is None else [csv_columns.column(columns, (label_column,), path)]
    unused = [n for n in columns if n.lower() in csv_columns.LABELS and n not in (*raters, *own)]
    if unused:
        notes.append(
            f"Column {', '.join(map(repr, unused))} is not used: the labels are the annotators'. "
            f"Right labels, to measure by, are named by --config.data.label_column={unused[0]}."
        )
    group = group_column and csv_columns.column(columns, (group_column,), path)
    split_column, id_column = (csv_columns.named(columns, (n,)) for n in ("split", "id"))
    roles = {*raters, *own, *unused, split_column, id_column, group}
    x = csv_columns.table(sheet, [name for name in columns if name not in roles], path)
    where = np.full(len(x), "train")
    if split_column is not None:
        where = csv_columns.splits(columns[split_column], path)
    raw: dict[Any, Any] = {name: columns[name] for name in raters}
    if own:
        raw["truth"] = columns[own[0]]
    labels, names = encode(raw, unlabeled=unlabeled)
    votes = np.stack([labels[name] for name in raters], 1)
    groups = group_numbers({"all": columns[group]})["all"] if group else None
    ids = None if id_column is None else columns[id_column]
    splits = {
        str(split): Examples(
            x[r],
            votes[r, 0],
            None if ids is None else ids[r].tolist(),
            r,
            None if groups is None else groups[r],
            votes[r],
        )
        for split in np.unique(where)
        for r in (np.flatnonzero(where == split),)
    }
    check("train" in splits, f"{path}: no row belongs to the split 'train'.")
    truth = labels["truth"][where == "train"] if own else None
    return Loaded(splits, names, truth, len(x), tuple(notes), feature_names=tuple(x.columns))
