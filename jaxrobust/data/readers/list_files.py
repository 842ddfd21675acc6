"""List files of images, a line "path label" per image, as people and data sets write them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrobust.data.readers import csv_columns
from jaxrobust.errors import UserError, check

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
PATHS = (
    "path", "file", "filename", "image", "filepath", "file_path", "file_name", "image_path",
    "image_file", "image_name", "img_path", "img",
)  # fmt: skip
"""Column names of an image's path, preferred first."""

_FOLDERS = ("", "val_images_256", "images")
_SEPARATORS = ("\t", None, ",", ";")  # None: white space
_QUOTED = re.compile(r"""(["'])(.+?)\1[\s,;]+(.+)""")


class ImageList(NamedTuple):
    """The images that a list file names.

    Attributes:
      paths: N full paths.
      ids: N paths as the file writes them.
      labels: object [N], strings.
    """

    paths: list[str]
    ids: list[str]
    labels: np.ndarray


def read_splits(file: Path) -> dict[str, ImageList]:
    """Reads a list file as the training split, and the lists of other splits next to it.

    Args:
      file: of the training images. Where its name contains `train`, the other lists are found by
        that word replaced by `val` or `test`, or as `val_filelist.txt`.

    Raises:
      UserError: see `read`.
    """
    listings = {"train": read(file)}
    for split, choices in SPLIT_WORDS.items():
        if split == "train" or "train" not in file.name:
            continue
        names = [file.name.replace("train", word) for word in choices]
        names += [f"{word}_filelist.txt" for word in choices]
        found = next((file.parent / n for n in names if (file.parent / n).is_file()), None)
        if found is not None:
            listings[split] = read(found)
    return listings


def read(file: Path) -> ImageList:
    """Reads one list file.

    Path and label are separated by a tab, white space, comma or semicolon; either may be in
    quotes. Blank lines, lines that begin with `#`, and a header are skipped.

    Raises:
      UserError: no text, no lines, a line of another form (names it), or none of the images lies
        below the list's folder or the folder above it.
    """
    check(file.is_file(), f"{file} is no regular file.")
    limit = csv_columns.MAX_BYTES
    check(file.stat().st_size <= limit, f"{file} is too large for a list of images.")
    data = file.read_bytes()
    check(
        data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" not in data[:4096],
        f"{file} is no text: use a folder of images, a .csv file, or a list of images.",
    )
    text, _ = csv_columns.decoded(data, file)
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines())]
    lines = [(i, line) for i, line in lines if line and not line.startswith("#")]
    check(bool(lines), f"{file} is empty.")
    pairs = _pairs(lines, file)
    if pairs[0][0].lower() in PATHS and len(pairs) > 1:
        del pairs[0]
    ids, labels = [one for one, _ in pairs], np.array([label for _, label in pairs], object)
    root = _root(file, pairs)
    return ImageList([spelled(root, one) for one in ids], ids, labels)


def _pairs(lines: list[tuple[int, str]], file: Path) -> list[tuple[str, str]]:
    """Returns path and label of every line, split by the first separator that fits all of them."""
    best: list[tuple[str, str] | None] = []
    for separator in _SEPARATORS:
        parts = [_split(line, separator) for _, line in lines]
        if sum(map(bool, parts)) > sum(map(bool, best)) or not best:
            best = parts
    odd = next((i for (i, _), pair in zip(lines, best, strict=True) if pair is None), None)
    check(odd is None, f"{file}: line {odd} (from 0) does not read 'path label'.")
    return [pair for pair in best if pair is not None]


def _split(line: str, separator: str | None) -> tuple[str, str] | None:
    if match := _QUOTED.fullmatch(line):
        return match[2].strip(), _unquoted(match[3])
    parts = line.rsplit(separator, 1)
    if len(parts) != 2 or not all(part.strip() for part in parts):
        return None
    path = parts[0] if separator else parts[0].rstrip(" ,;")
    return _unquoted(path), _unquoted(parts[1])


def _unquoted(word: str) -> str:
    word = word.strip()
    if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'":
        return word[1:-1].strip()
    return word


def _root(file: Path, pairs: list[tuple[str, str]]) -> Path:
    """Returns the folder that the paths of a list are relative to."""
    roots = [f / below for f in (file.parent, file.parent.parent) for below in _FOLDERS]

    def holding(names: list[str]) -> Path | None:
        found = (r for name in names for r in roots if os.path.isfile(spelled(r, name)))
        return next(found, None)

    root = holding([name for name, _ in pairs[:100]])
    if root is None:
        first = pairs[0][0]
        hint = ""
        if holding([label for _, label in pairs[:100]]) is not None:
            hint = " The files are named last: write 'path label', not 'label path'."
        elif os.path.isabs(first) or re.match(r"[A-Za-z]:[\\/]", first):
            hint = " Make the paths relative to the list's folder."
        raise UserError(
            f"{file} names {first}, which is in none of {', '.join(map(str, roots))}.{hint}"
        )
    return root


def spelled(folder: Path, name: str) -> str:
    """Returns the path of a file as it is on disk.

    Accents may be composed or decomposed, and folders separated by the backslashes of Windows.
    """
    path = os.path.join(folder, name)
    if os.path.exists(path):
        return path
    slashed = os.path.join(folder, name.replace("\\", "/"))
    if slashed != path and os.path.exists(slashed):
        return slashed
    if not path.isascii():
        forms = (unicodedata.normalize(f, n) for n in (path, slashed) for f in ("NFC", "NFD"))
        return next((p for p in forms if os.path.exists(p)), path)
    return path
