"""Reader of images on disk: class folders, a CSV file, or list files."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrobust import files
from jaxrobust.data.class_labels import encode, left_out_note
from jaxrobust.data.examples import Examples, Loaded
from jaxrobust.data.readers import csv_columns, images, list_files, walk
from jaxrobust.data.readers.arrays import group_numbers
from jaxrobust.errors import check

_SET = re.compile(r"(?<=\w)[ _-]?(set|data|dataset|images|imgs|split)$")  # after "train", "test"
_MOST_BESIDE = 5  # folders without sub-folders beside the one that holds all
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
    - a .csv or .tsv file with the columns `path` (or another of `list_files.PATHS`), `label` (or
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
    root = files.expanded(path).absolute()
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
        listings = {
            split: _Listing(*one, np.arange(len(one.ids)))
            for split, one in list_files.read_splits(root).items()
        }
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
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:  # It cannot be read: that is said when it is decoded.
        return path


def _read(paths: list[str], i: int) -> bytes:
    return images.read_file(paths[i])


def _class_folders(root: Path, notes: list[str]) -> tuple[dict[str, _Listing], tuple[str, ...]]:
    base, folders = _split_folders(root, notes)
    if base != root:
        notes.append(f"The classes are the folders in {base.relative_to(root)}.")
    classes = {split: walk.subfolders(str(folder)) for split, folder in folders.items()}
    check(
        len(classes["train"]) > 1,
        f"{folders['train']} must hold one folder of images per class; it holds "
        f"{', '.join(map(walk.printable, classes['train'])) or 'no folder'}. Expected "
        "CLASS/image.png, or pass a list file of 'path label' lines.",
    )
    listings, left_out = {}, walk.LeftOut(str(base))
    for folder in {base, *folders.values()}:
        walk.loose_images(str(folder), left_out)
    names: set[str] = set()
    for split, folder in folders.items():
        paths, labels = [], []
        for name in classes[split]:
            below = walk.images_below(str(folder / name), left_out)
            if not below:
                left_out.add("folders without images", str(folder / name))
            paths += below
            labels += [walk.printable(name).strip()] * len(below)
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


def _split_folders(root: Path, notes: list[str]) -> tuple[Path, dict[str, Path]]:
    """Returns the folder of classes or splits, and the folder of each split.

    A folder that holds nothing but one folder, as unpacked archives do, or of whose folders one
    alone has images, is looked into.

    Raises:
      UserError: two folders of the same split; splits without class folders.
    """
    base = root
    while (inner := _only_folder(base)) is not None:
        base = base / inner
    inside = walk.subfolders(str(base))
    named: dict[str, list[str]] = {}
    for name in inside:
        if split := _split_of(name):
            named.setdefault(split, []).append(name)
    below = {n: walk.subfolders(str(base / n)) for names in named.values() for n in names}
    filled = {split: [n for n in names if below[n]] for split, names in named.items()}
    if filled.get("train"):
        for split, names in filled.items():
            check(
                len(names) < 2,
                f"{base} has two folders of the split {split!r}: {', '.join(names)}. Keep one.",
            )
        used = {split: filled[split][0] for split in list_files.SPLIT_WORDS if filled.get(split)}
        notes += _unused_folders(base, [n for n in inside if n not in used.values()])
        return base, {split: base / name for split, name in used.items()}
    check(
        len(inside) < 2 or any(_split_of(name) is None for name in inside),
        f"{root} has {', '.join(f'{name}/' for name in inside)} but no class sub-folders. Expected "
        "train/CLASS/image.png, or pass a list file of 'path label' lines.",
    )
    return base, {"train": base}


def _split_of(name: str) -> str | None:
    """Returns the split that a folder is named after ("Train", "test_set"), or None."""
    word = _SET.sub("", name.lower())
    return next((split for split, words in list_files.SPLIT_WORDS.items() if word in words), None)


def _only_folder(base: Path) -> str | None:
    """Returns the one sub-folder that holds folders, if no other holds images."""
    inner = walk.subfolders(str(base))
    deep = [name for name in inner if walk.subfolders(str(base / name))]
    others = [name for name in inner if name not in deep]
    if len(deep) != 1 or len(others) > _MOST_BESIDE:
        return None
    if any(walk.images_below(str(base / name), walk.LeftOut(str(base))) for name in others):
        return None
    return deep[0]


def _unused_folders(base: Path, names: list[str]) -> list[str]:
    """Returns a note on folders next to those of the splits, where they hold images."""
    parts = []
    for name in names:
        number = len(walk.images_below(str(base / name), walk.LeftOut(str(base))))
        kind = "without class folders" if _split_of(name) else "no split"
        parts += [f"{walk.printable(name)}/ ({kind}, {number} images)"] if number else []
    return [f"Folders that are not used: {', '.join(parts)}."] if parts else []


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
    first = next(iter(columns))
    check(
        csv_columns.named(columns, list_files.PATHS) is not None
        or not os.path.isfile(list_files.spelled(file.parent, first)),
        f"{file}: the first line names an image, {first}. Write a header above it: path,label.",
    )
    ids = columns[csv_columns.column(columns, list_files.PATHS, file)]
    empty = np.flatnonzero(ids == "")
    check(not len(empty), f"{file}: row {', '.join(map(str, empty[:1]))} (from 0) names no image.")
    own = csv_columns.named(columns, csv_columns.LABELS) or "label"
    own = csv_columns.label_column(columns, label_column, file) if label_column else own
    given = columns[csv_columns.column(columns, (label_key or own,), file)]
    truth = columns.get(own) if label_key not in (None, own) else None
    groups = None
    if group_column is not None:
        groups = columns[csv_columns.column(columns, (group_column,), file)]
        groups = group_numbers({"all": groups})["all"]
    split_column = csv_columns.named(columns, ("split",))
    where = np.full(len(ids), "train")
    if split_column is not None:
        where = csv_columns.splits(columns[split_column], file)
    listings = {}
    for split in np.unique(where):
        rows = np.flatnonzero(where == split)
        # Away from training the true label is what counts, where it is known.
        labels = given if truth is None or split == "train" else truth
        listings[str(split)] = _Listing(
            [list_files.spelled(file.parent, ids[i]) for i in rows],
            ids[rows].tolist(),
            labels[rows],
            rows,
            truth[rows] if truth is not None and split == "train" else None,
            None if groups is None else groups[rows],
        )
    return listings
