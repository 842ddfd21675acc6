"""Walk through folders of images as people have them: what is read, what is left out and why."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator

from jaxrobust.data.readers import images

_SYSTEM_FOLDERS = frozenset(
    (
        "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "__pycache__",
        "system volume information", "#snapshot", "thumbs", ".",
    )
)  # fmt: skip
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "folder.ini"))
_HEIC = (".heic", ".heif")


class LeftOut:
    """What a walk below `base` met and left out: counts by kind, and an example of each."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, path: str) -> None:
        self.counts[kind] += 1
        self.examples.setdefault(kind, printable(os.path.relpath(path, self.base)))

    def notes(self) -> list[str]:
        """Returns the line that counts and names all of it; none if there is nothing."""
        if not self.counts:
            return []
        parts = [f"{n} {kind} (e.g. {self.examples[kind]})" for kind, n in self.counts.items()]
        heic = any(kind.startswith(_HEIC) for kind in self.counts)
        remedy = " HEIC is read once pillow-heif is installed: pip install pillow-heif." * heic
        return [f"Left out: {', '.join(parts)}.{remedy}"]


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder belongs to a system, not to the data."""
    return (
        name.startswith((".", "._", "~$"))
        or name.lower() in _SYSTEM_FOLDERS
        or name.lower() in _SYSTEM_FILES
    )


def printable(name: str) -> str:
    """Returns a file name as text: accents composed (NFC), bytes that are no UTF-8 as \\xNN."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def subfolders(folder: str) -> list[str]:
    """Returns the names of the sub-folders and links to folders that are not a system's."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not is_hidden(e.name) and _is_dir(e))


def images_below(folder: str, left_out: LeftOut) -> list[str]:
    """Returns the paths of all images in a folder and below, in order.

    Links to folders are followed, but not back to a folder that lies above. Of what is no
    regular file (pipes, devices, broken links) nothing is opened.

    Args:
      folder: where to look.
      left_out: gets what is no image of a known type.
    """
    return sorted(_walk(folder, left_out, {os.path.realpath(folder)}))


def loose_images(folder: str, left_out: LeftOut) -> None:
    """Adds the images that lie in a folder itself, where each belongs in a class folder."""
    with os.scandir(folder) as scan:
        for entry in sorted(scan, key=lambda e: e.name):
            if not is_hidden(entry.name) and not _is_dir(entry) and _why_not(entry.path) is None:
                left_out.add("images outside the class folders", entry.path)


def _walk(folder: str, left_out: LeftOut, above: set[str]) -> Iterator[str]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda e: e.name)
    except OSError:
        left_out.add("folders that cannot be opened", folder)
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if _is_dir(entry):
            real = os.path.realpath(entry.path)
            if real in above:
                left_out.add("links to a folder above", entry.path)
            else:
                yield from _walk(entry.path, left_out, above | {real})
        elif (kind := _why_not(entry.path)) is None:
            yield entry.path
        else:
            left_out.add(kind, entry.path)


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _why_not(path: str) -> str | None:
    """Returns what a path is, if no image of a known type."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "broken links"
    if not stat.S_ISREG(mode):
        return "pipes, sockets or devices"
    suffix = os.path.splitext(path)[1].lower()
    if suffix in images.types():
        return None
    if not suffix:
        return None if images.looks_like_image(path) else "files without a suffix"
    return f"{printable(suffix)} files"
