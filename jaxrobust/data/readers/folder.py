"""Images on disk: class folders, a CSV file, or list files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrobust.data.examples import Examples, Loaded, encode
from jaxrobust.data.readers import csv_columns, images
from jaxrobust.errors import UserError, check

IMAGE_TYPES = frozenset(".png .jpg .jpeg .bmp .gif .webp .tif .tiff .ppm .pgm".split())
_SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}


class _Listing(NamedTuple):
    """The images of one split: full paths, ids (paths as the user knows them), labels, rows."""

    paths: list[str]
    ids: list[str]
    labels: np.ndarray
    rows: np.ndarray
    true_labels: np.ndarray | None = None


def load(
    path: str | None,
    *,
    label_key: str | None,
    image_size: int | None,
    on_unreadable: str,
    max_bytes: int,
    num_classes: int | None = None,
) -> Loaded:
    """Reads images from disk; with `num_classes`, of the first classes only.

    `path` is one of:

    - a folder of class folders, or with such folders below `train`, `val` (or `validation`) and
      `test`; classes are the names of the folders.
    - a .csv file with the columns `path`, `label` and optionally `split`; paths relative to it.
      With a `label_key`, that column is given to training and `label` is the truth.
    - a list file with a line "path label" an image, as ImageNet-LT and WebVision ship
      (`ImageNet_LT_train.txt`, `info/train_filelist_google.txt`). The lists of the other splits
      lie beside it: `train` replaced by `val` or `test`, or `val_filelist.txt`. Images are
      looked for below the list's folder, the folder above it, and `val_images_256` and `images`
      in either.

    Raises:
      UserError: nothing there, a file that is no list, a file named in a list is missing, an
        image cannot be read.
    """
    check(path is not None, "A folder data set needs a path: set data.path.")
    root = Path(path).expanduser()
    check(root.exists(), f"No such folder or file: {str(path)!r}.")
    is_csv = root.suffix == ".csv"
    check(label_key is None or is_csv, "Only a .csv file can hold more than one label.")
    names: tuple[str, ...] = ()
    if root.is_dir():
        listings, names = _class_folders(root)
    elif is_csv:
        listings = _csv_listing(root, label_key)
    else:
        listings = _list_files(root)
    check("train" in listings, f"{path} holds no images of the split 'train'.")
    raw = {split: one.labels for split, one in listings.items()}
    if listings["train"].true_labels is not None:
        raw["truth"] = listings["train"].true_labels
    labels, names = encode(raw, names)
    in_order = listings.values() if is_csv else [listings["train"]]  # a .csv numbers all splits
    num_rows = sum(len(one.ids) for one in in_order)
    if num_classes is not None:
        listings, labels = _of_first_classes(listings, labels, num_classes)
    splits, notes, channels = {}, [], None
    for split, one in listings.items():
        lazy = images.LazyImages(partial(_read, one.paths), one.paths, image_size, channels)
        channels = lazy.channels  # those of the training images, for all
        x, kept = images.load(lazy, on_unreadable, max_bytes)
        if len(kept) < len(one.ids):
            notes.append(images.skipped_note(split, one.ids, kept))
        splits[split] = Examples(x, labels[split][kept], [one.ids[i] for i in kept], one.rows[kept])
        if split == "train" and "truth" in labels:
            labels["truth"] = labels["truth"][kept]
    return Loaded(splits, names, labels.get("truth"), num_rows, tuple(notes))


def _of_first_classes(
    listings: dict[str, _Listing], labels: dict[str, np.ndarray], num_classes: int
) -> tuple[dict[str, _Listing], dict[str, np.ndarray]]:
    """Leaves out, before anything is decoded, what `sources.load` would leave out afterwards."""
    inside = {name: values < num_classes for name, values in labels.items()}
    if "truth" in labels:
        inside["train"] = inside["truth"] = inside["train"] & inside["truth"]
    check(inside["train"].any(), f"No example has one of the first {num_classes} classes.")
    fewer = {}
    for split, one in listings.items():
        rows = np.flatnonzero(inside[split])
        if len(rows):
            paths, ids = ([names[i] for i in rows] for names in (one.paths, one.ids))
            fewer[split] = _Listing(paths, ids, one.labels[rows], one.rows[rows])
    return fewer, {name: values[inside[name]] for name, values in labels.items()}


def _read(paths: list[str], i: int) -> bytes:
    return Path(paths[i]).read_bytes()


def _class_folders(root: Path) -> tuple[dict[str, _Listing], tuple[str, ...]]:
    folders = {
        split: root / name
        for split, choices in _SPLIT_FOLDERS.items()
        for name in choices
        if (root / name).is_dir()
    }
    if "train" not in folders or not _subfolders(folders["train"]):
        folders = {"train": root}
    classes = {split: _subfolders(folder) for split, folder in folders.items()}
    words = {name for choices in _SPLIT_FOLDERS.values() for name in choices}
    check(
        folders["train"] != root or len(classes["train"]) < 2 or not words >= {*classes["train"]},
        f"{root} holds {', '.join(classes['train'])}, and these no folder a class: sort the images "
        "into such folders, or name a list file with a line 'path label' an image.",
    )
    names = tuple(sorted({name for group in classes.values() for name in group}))
    check(
        len(classes["train"]) > 1,
        f"{folders['train']} must hold one folder of images a class; it holds "
        f"{', '.join(classes['train']) or 'no folder'}.",
    )
    listings = {}
    for split, folder in folders.items():
        files = [(f, name) for name in classes[split] for f in _images_below(folder / name)]
        if files:
            paths = [str(f) for f, _ in files]
            ids = [f.relative_to(root).as_posix() for f, _ in files]
            labels = np.array([name for _, name in files])
            listings[split] = _Listing(paths, ids, labels, np.arange(len(files)))
    check(bool(listings), f"{root} holds no images ({', '.join(sorted(IMAGE_TYPES))}).")
    return listings, names


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    found = (
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_TYPES and not name.startswith(".")
    )
    return sorted(found)


def _csv_listing(file: Path, label_key: str | None) -> dict[str, _Listing]:
    columns = csv_columns.read(file)
    ids = columns[csv_columns.column(columns, ("path", "file", "filename", "image"), file)]
    given = columns[csv_columns.column(columns, (label_key or "label",), file)]
    truth = columns.get("label") if label_key not in (None, "label") else None
    where = (
        csv_columns.splits(columns["split"], file)
        if "split" in columns
        else np.full(len(ids), "train")
    )
    listings = {}
    for split in np.unique(where):
        rows = np.flatnonzero(where == split)
        paths = [str(file.parent / ids[i]) for i in rows]
        _check_exists(paths, file)
        # Away from training the true label is what counts, where it is known.
        labels = given if truth is None or split == "train" else truth
        listings[str(split)] = _Listing(
            paths,
            ids[rows].tolist(),
            labels[rows],
            rows,
            truth[rows] if truth is not None and split == "train" else None,
        )
    return listings


def _check_exists(paths: list[str], file: Path) -> None:
    missing = next((p for p in paths if not os.path.isfile(p)), None)
    check(missing is None, f"{file} names {missing}, which does not exist.")


def _list_files(file: Path) -> dict[str, _Listing]:
    listings = {"train": _one_list(file)}
    for split, choices in _SPLIT_FOLDERS.items():
        if split == "train" or "train" not in file.name:
            continue
        beside = [file.name.replace("train", word) for word in choices]
        beside += [f"{word}_filelist.txt" for word in choices]
        found = next((file.parent / n for n in beside if (file.parent / n).is_file()), None)
        if found is not None:
            listings[split] = _one_list(found)
    return listings


def _one_list(file: Path) -> _Listing:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(
            f"{file} is no text: use a folder of images, a .csv file, or a list of images."
        ) from None
    lines = [line.rsplit(maxsplit=1) for line in text.splitlines() if line.strip()]
    check(bool(lines), f"{file} is empty.")
    odd = next((i for i, line in enumerate(lines) if len(line) != 2), None)
    check(odd is None, f"{file}: line {odd} (from 0) does not read 'path label'.")
    ids, labels = [line[0] for line in lines], np.array([line[1] for line in lines])
    above = [file.parent, file.parent.parent]
    roots = [f / below for f in above for below in ("", "val_images_256", "images")]
    root = next((r for r in roots if (r / ids[0]).is_file()), None)
    if root is None:
        raise UserError(f"{file} names {ids[0]}, which is in none of {', '.join(map(str, roots))}.")
    paths = [str(root / one) for one in ids]
    _check_exists(paths, file)
    return _Listing(paths, ids, labels, np.arange(len(ids)))
