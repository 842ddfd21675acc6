"""Files that are written whole or not at all, and arrays that are read with one clear error."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxrobust.errors import UserError, check

_UNREADABLE = (
    ValueError, OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error
)


@contextmanager
def whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file to write that takes the place of `path` once all of it is written.

    Until then, and where writing fails, what was there stays. What is no regular file
    (`/dev/stdout`, a pipe) is written to directly.

    Args:
      path: of the file; the new one grows beside it as `NAME.partial`.
      mode: "w" for UTF-8 text, with lines as they are given, or "wb".
    """
    path = Path(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:
            yield file
        return
    partial = path.with_name(path.name + ".partial")
    file = partial.open(mode, **text)
    try:
        with file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_npz(path: str | Path, wrong: str = "is not an .npz file") -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name.

    Args:
      wrong: what to say of a file that is not what it should be: "PATH is not an .npz file".

    Raises:
      UserError: no such file, no .npz, damaged, or with pickled objects.
    """
    path = Path(path)
    check(path.is_file(), f"No such file: {str(path)!r}.")
    check(zipfile.is_zipfile(path), f"{path} {wrong}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise UserError(f"{path} {wrong}: it cannot be read ({error}).") from None


def read_npy(path: str | Path, kind: str = "", *, mapped: bool = False) -> np.ndarray:
    """Returns the array of an .npy file; `mapped`: it stays on disk until it is used.

    Args:
      kind: what to call the file in messages, as in "Labels file ".

    Raises:
      UserError: no such file, no .npy, damaged, or with pickled objects.
    """
    path = Path(path)
    check(path.is_file(), f"No such file: {str(path)!r}.")
    check(not zipfile.is_zipfile(path), f"{kind}{path} cannot be read as .npy: it is an archive.")
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"{kind}{path} cannot be read as .npy: {error}.") from None
