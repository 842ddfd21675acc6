"""New examples without labels, for a trained run to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust.data import csv_file, folder, images, tables
from jaxrobust.errors import UserError, check


def load_inputs(path: str | Path, like: tuple[int, ...]) -> tuple[Any, list[str]]:
    """Reads examples to predict.

    Args:
      path: an image, a folder of images (with or without sub-folders), an .npy array, an .npz
        with the array `x`, or a .csv table whose columns but `label`, `split` and `id` are
        features.
      like: shape of one example of the run, [H, W, C] or [D]; images are resized to it.

    Returns:
      The examples, uint8 [N, H, W, C] (perhaps decoded when asked for) or float32 [N, D], and
      a name for each.

    Raises:
      UserError: nothing there, or examples of another shape.
    """
    path = Path(path).expanduser()
    check(path.exists(), f"--input={path}: no such file or folder.")
    if path.suffix in (".npy", ".npz"):
        loaded = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            check("x" in loaded.files, f"{path} has no array 'x'.")
            loaded = loaded["x"]
        x = tables.as_examples(loaded, "x", str(path))
        names = [str(i) for i in range(len(x))]
    elif path.suffix == ".csv":
        x, names = _table(path)
    else:
        x, names = _images(path, like)
    if tuple(x.shape[1:]) != tuple(like):
        raise UserError(
            f"{path}: examples have shape {list(x.shape[1:])}, but the run was trained on "
            f"{list(like)}."
        )
    return x, names


def _table(path: Path) -> tuple[np.ndarray, list[str]]:
    columns = csv_file.read(str(path))
    features = [name for name in columns if name not in ("label", "split", "id")]
    x = np.stack([csv_file.numbers(columns[name], name, str(path)) for name in features], axis=1)
    ids = columns["id"].tolist() if "id" in columns else [str(i) for i in range(len(x))]
    return x, ids


def _images(path: Path, like: tuple[int, ...]) -> tuple[Any, list[str]]:
    check(len(like) == 3, f"{path}: the run was trained on tables of {list(like)}, not on images.")
    files = [path] if path.is_file() else sorted(
        p for p in path.rglob("*") if p.suffix.lower() in folder.IMAGE_TYPES
    )
    check(bool(files), f"{path} holds no images.")
    names = [str(p if path.is_file() else p.relative_to(path)) for p in files]
    height, width, channels = like
    check(height == width, f"The run was trained on images of {height} x {width}; use an .npy.")
    return images.LazyImages(lambda i: files[i].read_bytes(), names, height, channels), names
