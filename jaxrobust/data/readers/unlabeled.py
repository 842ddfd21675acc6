"""New examples without labels, for a trained run to predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.data import column_types
from jaxrobust.data.readers import arrays as tables
from jaxrobust.data.readers import csv_columns, images, walk
from jaxrobust.data.table import Table, from_array
from jaxrobust.data.tabular import Encoder
from jaxrobust.errors import UserError, check


def load_inputs(
    path: str | Path, like: tuple[int, ...], encoder: Encoder | None = None
) -> tuple[Any, list[str]]:
    """Reads examples to predict.

    Args:
      path: an image, a folder of images (with or without sub-folders), an .npy array, an .npz
        with the array `x`, or a table in a .csv or .tsv file.
      like: shape of one example as the network takes it, [H, W, C] or [F]; images are resized.
      encoder: of a run that was trained on a table. The columns of a file are found by name,
        those of an array by place. Without an encoder all columns but `label`, `split` and `id`
        must be numbers.

    Returns:
      The examples, uint8 [N, H, W, C] (perhaps decoded when asked for) or float32 [N, F], and
      a name for each.

    Raises:
      UserError: nothing there, a file that cannot be read, a column that is missing or not
        numeric, or examples of another shape.
    """
    path = files.expanded(path)
    check(path.exists(), f"--input={path}: no such file or folder.")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        arrays = files.read_npz(path) if suffix == ".npz" else {"x": files.read_npy(path)}
        check("x" in arrays, f"{path} has no array 'x'.")
        x = _array(arrays["x"], path, encoder)
        names = [str(i) for i in range(len(x))]
    elif suffix in csv_columns.SUFFIXES:
        x, names = _table(path, encoder)
    else:
        x, names = _images(path, like)
    if tuple(x.shape[1:]) != tuple(like):
        raise UserError(
            f"{path}: examples have shape {list(x.shape[1:])}, but the run was trained on "
            f"{list(like)}."
        )
    return x, names


def _array(x: np.ndarray, path: Path, encoder: Encoder | None) -> np.ndarray:
    if encoder is not None:
        check(
            x.ndim == 2 and x.shape[1] == len(encoder.inputs) and x.dtype.kind in "biuf",
            f"{path}: 'x' has shape {list(x.shape)}; the run was trained on a table of "
            f"{len(encoder.inputs)} columns.",
        )
        return encoder.transform(from_array(x, str(path), encoder.inputs))
    examples = tables.as_examples(x, "x", str(path))
    return _numbers(examples) if isinstance(examples, Table) else examples


def _table(path: Path, encoder: Encoder | None) -> tuple[np.ndarray, list[str]]:
    sheet = csv_columns.read(path)
    names = [n for n in sheet.columns if n.casefold() not in ("label", "split", "id")]
    if encoder is not None:
        names = [name for name in encoder.inputs if name in sheet.columns] or names
    x = csv_columns.table(sheet, names, path)
    own = csv_columns.named(sheet.columns, ("id",))
    ids = [str(i) for i in range(len(x))] if own is None else sheet.columns[own].tolist()
    return _numbers(x) if encoder is None else encoder.transform(x), ids


def _numbers(table: Table) -> np.ndarray:
    """Returns a table of numbers as float32 [N, D]; raises `UserError` naming what is none."""
    parts, wrong = [], []
    for name in table.columns:
        column = column_types.Column(name=name, kind="number", series=(name,))
        numbers, problem = column_types.series(column, table)
        missing = np.flatnonzero(np.isnan(numbers[:, 0]))
        if not problem and len(missing):
            problem = f"column {name!r}, row {missing[0]} (from 0): no number"
        parts.append(numbers)
        wrong += [problem] if problem else []
    check(not wrong, f"{table.origin}: {'; '.join(wrong)}.")
    return np.concatenate(parts, axis=1).astype(np.float32)


def _images(path: Path, like: tuple[int, ...]) -> tuple[Any, list[str]]:
    check(len(like) == 3, f"{path}: the run was trained on tables of {list(like)}, not on images.")
    left_out = walk.LeftOut(str(path))
    found = [str(path)] if path.is_file() else walk.images_below(str(path), left_out)
    check(bool(found), " ".join([f"{path} holds no images.", *left_out.notes()]))
    base = path.parent if path.is_file() else path
    names = [
        walk.printable(str(path) if path.is_file() else os.path.relpath(p, base)) for p in found
    ]
    height, width, channels = like
    check(height == width, f"The run was trained on images of {height} x {width}; use an .npy.")
    return images.LazyImages(lambda i: images.read_file(found[i]), names, height, channels), names
