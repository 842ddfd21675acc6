"""Arrays and tables: `npz`, a pair of `.npy` files, and `csv`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.data.examples import Examples, Loaded, encode
from jaxrobust.data.readers import csv_columns
from jaxrobust.errors import check, nearest

_SUFFIXES = {"train": "", "validation": "_valid", "test": "_test"}


def load_npz(path: str | None, *, label_key: str | None, max_bytes: int) -> Loaded:
    """Reads arrays: images or features, and labels.

    `path` is a .npz file with the arrays `x, y` and optionally `x_valid, y_valid, x_test,
    y_test`, or a folder of such arrays in .npy files (`x.npy`, `y.npy`, ...), of which a large
    `x` stays on disk. Images are [N, H, W] or [N, H, W, C]: integers 0 ... 255 or floats in
    [0, 1] or [0, 255], which are rounded to uint8; features are [N, D], turned to float32.
    Labels are integers or strings. With a `label_key`, that array is given to training and `y`
    is the truth.

    Raises:
      UserError: an array is missing, lengths differ, pixels out of range, a value not finite
        (names the example), channels first.
    """
    check(path is not None, "An npz data set needs a path.")
    file = Path(path).expanduser()
    arrays = _arrays(file, max_bytes)
    given = label_key or "y"
    for key in ("x", given):
        check(
            key in arrays,
            f"{path} has no array {key!r}; it has {', '.join(sorted(arrays)) or 'none'}."
            f"{nearest(key, arrays)}",
        )
    splits, raw = {}, {}
    for split, suffix in _SUFFIXES.items():
        x_key = "x" + suffix
        y_key = given if split == "train" else "y" + suffix
        if x_key not in arrays:
            continue
        check(y_key in arrays, f"{path} has {x_key!r} but not {y_key!r}.")
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
    labels, names = encode(raw)
    examples = {
        split: Examples(x, labels[split], None, np.arange(len(x))) for split, x in splits.items()
    }
    return Loaded(examples, names, labels.get("truth"), len(splits["train"]))


def _arrays(file: Path, max_bytes: int) -> dict[str, Any]:
    if file.is_dir():
        found = {f.stem: f for f in sorted(file.glob("*.npy"))}
        check(bool(found), f"{file} holds no .npy files (x.npy, y.npy).")
        return {name: _read_npy(f, max_bytes) for name, f in found.items()}
    return files.read_npz(file)


def _read_npy(file: Path, max_bytes: int) -> np.ndarray:
    mapped = files.read_npy(file, mapped=True)
    return mapped if mapped.nbytes > max_bytes and mapped.dtype == np.uint8 else np.array(mapped)


def as_examples(x: np.ndarray, key: str, path: str) -> np.ndarray:
    """Returns images as uint8 [N, H, W, C] or features as float32 [N, D]; see `load_npz`.

    Args:
      x: array named `key` in `path` (for messages).

    Raises:
      UserError: another shape or type, pixels out of range, NaN (names the example).
    """
    check(
        x.dtype.kind in "uifb" and x.ndim in (2, 3, 4) and x.size > 0,
        f"{path}: {key!r} must be images [N, H, W(, C)] or features [N, D]; got "
        f"{x.dtype} {list(x.shape)}.",
    )
    if x.dtype.kind == "f":
        finite = np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
        bad = np.flatnonzero(~finite)
        check(not len(bad), f"{path}: example {bad[:1].tolist()} of {key!r} holds NaN or infinity.")
    if x.ndim == 2:
        return x.astype(np.float32)
    if x.ndim == 4:
        check(
            x.shape[-1] in (1, 3),
            f"{path}: {key!r} has shape {list(x.shape)}; images are [N, H, W, C] with 1 or 3 "
            "channels" + (": transpose it." if x.shape[1] in (1, 3) else "."),
        )
    x = _pixels(x, key, path)
    return x if x.ndim == 4 else x[:, :, :, None]



def _pixels(x: np.ndarray, key: str, path: str) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    low, high = x.min(), x.max()
    check(
        low >= 0 and high <= 255,
        f"{path}: pixels of {key!r} lie in [{low:g}, {high:g}]; use [0, 255] or [0, 1].",
    )
    scale = 255 if high <= 1 and x.dtype.kind in "fb" else 1
    return np.round(x * scale).astype(np.uint8)


def load_csv(path: str | None, *, label_key: str | None) -> Loaded:
    """Reads a table: one example a row, features in columns.

    The label is the column `label`, or else the last one; a column `split` (train, validation,
    test) and a column `id` are understood; all others are numeric features. With a `label_key`,
    that column is given to training and `label`, if there is one, is the truth.

    Raises:
      UserError: names a column that is not numeric, or row and column of a missing or infinite
        value.
    """
    check(path is not None, "A csv data set needs a path.")
    columns = csv_columns.read(path)
    own = "label" if "label" in columns else list(columns)[-1]
    given = csv_columns.column(columns, (label_key or own,), path)
    features = csv_columns.features(columns, given)
    x = csv_columns.table(columns, features, path)
    where = np.full(len(x), "train")
    if "split" in columns:
        where = csv_columns.splits(columns["split"], path)
    check("train" in where, f"{path}: no row belongs to the split 'train'.")
    rows = {str(split): np.flatnonzero(where == split) for split in np.unique(where)}
    truth = columns["label"] if given != "label" and "label" in columns else None
    raw = {
        split: (columns[given] if truth is None or split == "train" else truth)[r]
        for split, r in rows.items()
    }
    if truth is not None:
        raw["truth"] = truth[rows["train"]]
    labels, names = encode(raw)
    splits = {
        split: Examples(
            x[r], labels[split], columns["id"][r].tolist() if "id" in columns else None, r
        )
        for split, r in rows.items()
    }
    return Loaded(splits, names, labels.get("truth"), len(x), feature_names=tuple(features))
