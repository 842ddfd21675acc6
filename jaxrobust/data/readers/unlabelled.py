"""New examples without labels, for a trained run to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.data.readers import arrays as tables
from jaxrobust.data.readers import csv_columns, folder, images
from jaxrobust.errors import UserError, check


def load_inputs(
    path: str | Path, like: tuple[int, ...], feature_names: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """Reads examples to predict.

    Args:
      path: an image, a folder of images (with or without sub-folders), an .npy array, an .npz
        with the array `x`, or a .csv table.
      like: shape of one example of the run, [H, W, C] or [D]; images are resized to it.
      feature_names: columns of a table that the run was trained on, in order; without them all
        but `label`, `split` and `id` are features.

    Returns:
      The examples, uint8 [N, H, W, C] (perhaps decoded when asked for) or float32 [N, D], and
      a name for each.

    Raises:
      UserError: nothing there, a file that cannot be read, a column that is missing or not
        numeric, or examples of another shape.
    """
    path = Path(path).expanduser()
    check(path.exists(), f"--input={path}: no such file or folder.")
    if path.suffix in (".npy", ".npz"):
        arrays = files.read_npz(path) if path.suffix == ".npz" else {"x": files.read_npy(path)}
        check("x" in arrays, f"{path} has no array 'x'.")
        x = tables.as_examples(arrays["x"], "x", str(path))
        names = [str(i) for i in range(len(x))]
    elif path.suffix == ".csv":
        x, names = _table(path, feature_names)
    else:
        x, names = _images(path, like)
    if tuple(x.shape[1:]) != tuple(like):
        raise UserError(
            f"{path}: examples have shape {list(x.shape[1:])}, but the run was trained on "
            f"{list(like)}."
        )
    return x, names


def _table(path: Path, feature_names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    columns = csv_columns.read(path)
    x = csv_columns.table(columns, feature_names or csv_columns.features(columns), path)
    ids = columns["id"].tolist() if "id" in columns else [str(i) for i in range(len(x))]
    return x, ids


def _images(path: Path, like: tuple[int, ...]) -> tuple[Any, list[str]]:
    check(len(like) == 3, f"{path}: the run was trained on tables of {list(like)}, not on images.")
    found = [path] if path.is_file() else sorted(
        p for p in path.rglob("*") if p.suffix.lower() in folder.IMAGE_TYPES
    )
    check(bool(found), f"{path} holds no images.")
    names = [str(p if path.is_file() else p.relative_to(path)) for p in found]
    height, width, channels = like
    check(height == width, f"The run was trained on images of {height} x {width}; use an .npy.")
    return images.LazyImages(lambda i: found[i].read_bytes(), names, height, channels), names
