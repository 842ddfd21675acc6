"""Reader of images on disk: class folders, a CSV file, or list files."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrobust.data.class_labels import encode, left_out_note
from jaxrobust.data.examples import Examples, Loaded
from jaxrobust.data.readers import csv_columns, images, walk
from jaxrobust.data.readers.arrays import group_numbers
from jaxrobust.errors import check

_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
_MOST_COPIES = 0.3  # share of images that are copies up to which splits keep copies together
_HASHED_BYTES = 4 << 30


class _Listing(NamedTuple):
    """The images of one split: full paths, ids (paths as the user knows them), labels, rows."""

    paths: list[str]
    ids: list[str]
    labels: np.ndarray
    rows: np.ndarray
    true_labels: np.ndarray | None = None
    groups: np.ndarray | None = None

    def take(self, kept: np.ndarray) -> _Listing:
        """Returns the images at the positions `kept`."""
        names = ([values[i] for i in kept] for values in (self.paths, self.ids))
        arrays = (self.labels, self.rows, self.true_labels, self.groups)
        return _Listing(*names, *(None if a is None else a[kept] for a in arrays))


def load(
    path: str | None,
    *,
    label_key: str | None,
    image_size: int | None,
    on_unreadable: str,
    max_bytes: int,
    num_classes: int | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    unlabeled: str | None = None,
) -> Loaded:
    """Reads images from disk; with `num_classes`, of the first classes only.

    `path` is one of:

    - a folder of class folders, or with such folders below `train`, `val` (or `valid`,
      `validation`, `dev`) and `test`, in any case; classes are the names of the folders that hold
      images.
    - a .csv or .tsv file with the columns `path` (or `file`, `filename`, `image`), `label` (or
      `label_column`) and optionally `split`; paths relative to it. With a `label_key`, that column
      is given to training and the label is the truth.
    - a list file with a line "path label" per image, as ImageNet-LT and WebVision ship
      (`ImageNet_LT_train.txt`, `info/train_filelist_google.txt`). The lists of the other splits
      lie beside it: `train` replaced by `val` or `test`, or `val_filelist.txt`. Images are
      looked for below the list's folder, the folder above it, and `val_images_256` and `images`
      in either.

    Hidden and system files are no images. Other files that are not read, empty folders and images
    that occur more than once (same file or same bytes) are counted in the notes.

    Raises:
      UserError: nothing there, a file that is no list, a file named in a list is missing, an
        image cannot be read.
    """
    check(path is not None, "A folder data set needs a path: set --config.data.path=FOLDER.")
    root = Path(path).expanduser().absolute()
    check(root.exists(), f"No such folder or file: {str(path)!r}.")
    is_csv = root.suffix.lower() in csv_columns.SUFFIXES
    check(label_key is None or is_csv, "Only a .csv file can hold more than one label.")
    check(
        is_csv or (label_column is None and group_column is None),
        "data.label_column and data.group_column are columns of a .csv file of paths.",
    )
    names: tuple[str, ...] = ()
    notes: list[str] = []
    if root.is_dir():
        listings, names = _class_folders(root, notes)
    elif is_csv:
        listings = _csv_listing(root, label_key, label_column, group_column, notes)
    else:
        listings = _list_files(root)
    listings = _existing(listings, root, on_unreadable, notes)
    check("train" in listings, f"{path} holds no images of the split 'train'.")
    raw = {split: one.labels for split, one in listings.items()}
    if listings["train"].true_labels is not None:
        raw["truth"] = listings["train"].true_labels
    labels, names = encode(raw, names, unlabeled)
    in_order = listings.values() if is_csv else [listings["train"]]  # a .csv numbers all splits
    num_rows = max(int(one.rows.max()) for one in in_order) + 1
    listings, labels = _labeled(listings, labels, notes)
    if num_classes is not None:
        listings, labels = _of_first_classes(listings, labels, num_classes)
    listings = _keep_copies_together(listings, labels, notes)
    splits, channels = {}, None
    for split, one in listings.items():
        lazy = images.LazyImages(
            partial(_read, one.paths), one.ids, image_size, channels, one.paths
        )
        channels = lazy.channels  # those of the training images, for all
        x, kept = images.load(lazy, on_unreadable, max_bytes)
        if len(kept) < len(one.ids):
            notes.append(images.skipped_note(split, one.ids, kept))
        one = one.take(kept)
        splits[split] = Examples(x, labels[split][kept], one.ids, one.rows, one.groups)
        if split == "train" and "truth" in labels:
            labels["truth"] = labels["truth"][kept]
    return Loaded(splits, names, labels.get("truth"), num_rows, tuple(notes))


def _existing(
    listings: dict[str, _Listing], file: Path, on_unreadable: str, notes: list[str]
) -> dict[str, _Listing]:
    """Checks that what a list names is there; what is not is an error, or left out."""
    existing = {}
    for split, one in listings.items():
        there = np.array([os.path.isfile(path) for path in one.paths], bool)
        if not there.all():
            missing = np.flatnonzero(~there)
            line = f"{len(missing)} of {len(there)} files of {split}, e.g. {one.ids[missing[0]]}"
            check(
                on_unreadable == "skip",
                f"{file} names {one.ids[missing[0]]}, which does not exist "
                f"({len(missing)} of {len(there)} files). "
                "--config.data.on_unreadable=skip leaves such files out.",
            )
            notes.append(f"Left out, because they do not exist: {line}.")
        if there.any():
            existing[split] = one.take(np.flatnonzero(there))
    return existing


def _labeled(
    listings: dict[str, _Listing], labels: dict[str, np.ndarray], notes: list[str]
) -> tuple[dict[str, _Listing], dict[str, np.ndarray]]:
    """Leaves out images without a label, before anything is decoded."""
    for split in list(listings):
        missing = labels[split] < 0
        if not missing.any():
            continue
        notes.append(left_out_note(split, missing, listings[split].rows))
        kept = np.flatnonzero(~missing)
        listings[split] = listings[split].take(kept)
        labels[split] = labels[split][kept]
        if split == "train" and "truth" in labels:
            labels["truth"] = labels["truth"][kept]
    check(len(labels["train"]) > 0, "No training image has a label.")
    return {split: one for split, one in listings.items() if one.ids}, labels


def _of_first_classes(
    listings: dict[str, _Listing], labels: dict[str, np.ndarray], num_classes: int
) -> tuple[dict[str, _Listing], dict[str, np.ndarray]]:
    """Leaves out, before anything is decoded, what `sources.load` would leave out afterwards."""
    inside = {name: values < num_classes for name, values in labels.items()}
    if "truth" in labels:
        inside["train"] = inside["truth"] = inside["train"] & inside["truth"]
    check(inside["train"].any(), f"No example has one of the first {num_classes} classes.")
    fewer = {
        split: one.take(np.flatnonzero(inside[split]))
        for split, one in listings.items()
        if inside[split].any()
    }
    return fewer, {name: values[inside[name]] for name, values in labels.items()}


def _keep_copies_together(
    listings: dict[str, _Listing], labels: dict[str, np.ndarray], notes: list[str]
) -> dict[str, _Listing]:
    """Puts images that occur more than once (same path or same bytes) into one group.

    Where most images are copies of others, groups would leave nothing to hold out.
    """
    paths = [path for one in listings.values() for path in one.paths]
    ids = [name for one in listings.values() for name in one.ids]
    together = np.concatenate([labels[split] for split in listings])
    content = _content(paths)
    numbers, first, counts = np.unique(content, return_index=True, return_counts=True)[0:3]
    copies = len(content) - len(numbers)
    if not copies:
        return listings
    grouped = copies <= _MOST_COPIES * len(content)
    place = np.searchsorted(numbers, content)
    differ = int((np.bincount(place, together != together[first][place]) > 0).sum())
    example = first[np.argmax(counts)]
    notes.append(
        f"{copies} of {len(content)} images occur more than once (same file or same bytes), e.g. "
        f"{ids[example]}; {differ} of them with different labels. "
        + ("Copies are never separated by a split." if grouped else "Splits may separate copies.")
    )
    return _grouped(listings, content) if grouped else listings


def _grouped(listings: dict[str, _Listing], content: np.ndarray) -> dict[str, _Listing]:
    """Joins groups that share a content; images without a group are one of their own."""
    ends = np.cumsum([len(one.paths) for one in listings.values()])
    own = [one.groups for one in listings.values()]
    if any(groups is None for groups in own):
        groups = content
    else:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        given = np.concatenate(own)
        n = int(max(given.max(), content.max())) + 1
        edges = coo_array((np.ones(len(given)), (given, n + content)), shape=(2 * n, 2 * n))
        groups = connected_components(edges, directed=False)[1][given]
    parts = np.split(groups.astype(np.int64), ends[:-1])
    return {
        split: one._replace(groups=part)
        for (split, one), part in zip(listings.items(), parts, strict=True)
    }


def _content(paths: list[str]) -> np.ndarray:
    """Returns int64 [N], equal for files of equal bytes; a size of its own needs no reading."""
    real = [os.path.realpath(path) for path in paths]
    sizes = {path: os.path.getsize(path) for path in dict.fromkeys(real)}
    number = Counter(sizes.values())
    same = [path for path, size in sizes.items() if number[size] > 1]
    hashed: dict[str, str] = {}
    if sum(sizes[path] for path in same) <= _HASHED_BYTES:
        with ThreadPoolExecutor(4) as pool:
            hashed = dict(zip(same, pool.map(_digest, same), strict=True))
    keys: dict[str, int] = {}
    return np.array([keys.setdefault(hashed.get(p, p), len(keys)) for p in real], np.int64)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _read(paths: list[str], i: int) -> bytes:
    return images.read_file(paths[i])


def _class_folders(root: Path, notes: list[str]) -> tuple[dict[str, _Listing], tuple[str, ...]]:
    base, folders = _split_folders(root)
    if base != root:
        notes.append(f"The classes are the folders in {base.relative_to(root)}.")
    classes = {split: walk.subfolders(str(folder)) for split, folder in folders.items()}
    check(
        len(classes["train"]) > 1,
        f"{folders['train']} must hold one folder of images per class; it holds "
        f"{', '.join(map(walk.printable, classes['train'])) or 'no folder'}.",
    )
    listings, left_out = {}, walk.LeftOut(str(base))
    names: set[str] = set()
    for split, folder in folders.items():
        paths, labels = [], []
        for name in classes[split]:
            below = walk.images_below(str(folder / name), left_out)
            if not below:
                left_out.add("folders without images", str(folder / name))
            paths += below
            labels += [walk.printable(name)] * len(below)
        names |= {*labels}
        if paths:
            ids = [walk.printable(Path(f).relative_to(base).as_posix()) for f in paths]
            rows = np.arange(len(paths))
            listings[split] = _Listing(paths, ids, np.array(labels, object), rows)
    kinds = ", ".join(sorted(images.types()))
    why = "".join(f" {line}" for line in left_out.notes())
    check(bool(listings), f"{root} holds no images ({kinds}).{why}")
    notes += left_out.notes()
    return listings, tuple(sorted(names))


def _split_folders(root: Path) -> tuple[Path, dict[str, Path]]:
    """Returns the folder of classes or splits, and the folder of each split.

    A folder that holds nothing but one folder, as unpacked archives do, is looked into.
    """
    words = {word: split for split, choices in _SPLIT_WORDS.items() for word in choices}
    base = root
    while len(inner := walk.subfolders(str(base))) == 1 and walk.subfolders(str(base / inner[0])):
        base = base / inner[0]
    found = {words[name.lower()]: base / name for name in inner if name.lower() in words}
    below = {split: walk.subfolders(str(folder)) for split, folder in found.items()}
    if "train" in found and below["train"]:
        return base, {split: found[split] for split in _SPLIT_WORDS if below.get(split)}
    check(
        len(inner) < 2 or not {name.lower() for name in inner} <= {*words},
        f"{root} has {', '.join(f'{name}/' for name in inner)} but no class sub-folders. Expected "
        "train/CLASS/image.png, or pass a list file of 'path label' lines.",
    )
    return base, {"train": base}


def _csv_listing(
    file: Path,
    label_key: str | None,
    label_column: str | None,
    group_column: str | None,
    notes: list[str],
) -> dict[str, _Listing]:
    sheet = csv_columns.read(file)
    columns = sheet.columns
    notes += sheet.notes
    ids = columns[csv_columns.column(columns, ("path", "file", "filename", "image"), file)]
    own = csv_columns.label_column(columns, label_column, file) if label_column else "label"
    given = columns[csv_columns.column(columns, (label_key or own,), file)]
    truth = columns.get(own) if label_key not in (None, own) else None
    groups = None
    if group_column is not None:
        groups = columns[csv_columns.column(columns, (group_column,), file)]
        groups = group_numbers({"all": groups})["all"]
    where = (
        csv_columns.splits(columns["split"], file)
        if "split" in columns
        else np.full(len(ids), "train")
    )
    listings = {}
    for split in np.unique(where):
        rows = np.flatnonzero(where == split)
        # Away from training the true label is what counts, where it is known.
        labels = given if truth is None or split == "train" else truth
        listings[str(split)] = _Listing(
            [_spelled(file.parent, ids[i]) for i in rows],
            ids[rows].tolist(),
            labels[rows],
            rows,
            truth[rows] if truth is not None and split == "train" else None,
            None if groups is None else groups[rows],
        )
    return listings


def _spelled(folder: Path, name: str) -> str:
    """Returns the path of a file, its accents composed or decomposed as they are on disk."""
    path = os.path.join(folder, name)
    if not path.isascii() and not os.path.exists(path):
        forms = (os.path.join(folder, unicodedata.normalize(form, name)) for form in ("NFC", "NFD"))
        return next((p for p in forms if os.path.exists(p)), path)
    return path


def _list_files(file: Path) -> dict[str, _Listing]:
    listings = {"train": _one_list(file)}
    for split, choices in _SPLIT_WORDS.items():
        if split == "train" or "train" not in file.name:
            continue
        beside = [file.name.replace("train", word) for word in choices]
        beside += [f"{word}_filelist.txt" for word in choices]
        found = next((file.parent / n for n in beside if (file.parent / n).is_file()), None)
        if found is not None:
            listings[split] = _one_list(found)
    return listings


def _one_list(file: Path) -> _Listing:
    check(file.is_file(), f"{file} is no regular file.")
    limit = csv_columns.MAX_BYTES
    check(file.stat().st_size <= limit, f"{file} is too large for a list of images.")
    data = file.read_bytes()
    check(
        data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" not in data[:4096],
        f"{file} is no text: use a folder of images, a .csv file, or a list of images.",
    )
    text, _ = csv_columns.decoded(data, file)
    split = [line.strip().rsplit("\t" if "\t" in line else None, 1) for line in text.splitlines()]
    lines = [line for line in split if line and line != [""]]
    check(bool(lines), f"{file} is empty.")
    odd = next((i for i, line in enumerate(lines) if len(line) != 2), None)
    check(odd is None, f"{file}: line {odd} (from 0) does not read 'path label'.")
    ids, labels = [line[0].strip() for line in lines], np.array([line[1] for line in lines], object)
    above = [file.parent, file.parent.parent]
    roots = [f / below for f in above for below in ("", "val_images_256", "images")]
    found = (r for name in ids[:100] for r in roots if os.path.isfile(_spelled(r, name)))
    root = next(found, None)
    check(
        root is not None,
        f"{file} names {ids[0]}, which is in none of {', '.join(map(str, roots))}.",
    )
    paths = [_spelled(root, one) for one in ids]
    return _Listing(paths, ids, labels, np.arange(len(ids)))
