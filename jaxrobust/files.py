"""Atomic writes that survive a power loss, and readers of arrays and JSON with one-line errors."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxrobust.errors import UserError, check

_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS}
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    MemoryError,
    OverflowError,
    TypeError,
    SyntaxError,
    NotImplementedError,
)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_SMALL = 2 << 30  # bytes up to which an archive may hold any multiple of its own size
_MOST_PACKED = 500


@contextmanager
def whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file to write that takes the place of `path` once all of it is written and synced.

    Until then, and where writing fails, what was there stays. Of several writers at once each
    writes a whole file, and the last to finish wins. A symbolic link is replaced, not followed.
    What is no regular file (`/dev/stdout`, a pipe) is written to directly.

    Args:
      path: of the file; the new one grows next to it as `.NAME.PID.RANDOM.partial`.
      mode: "w" for UTF-8 text, with lines as they are given, or "wb".

    Raises:
      OSError: the file or its folder cannot be written.
    """
    path = Path(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:
            yield file
        return
    partial = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        file = partial.open(mode, **text)
    except OSError as error:  # It is `path` that the caller knows.
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with file:
            yield file
            file.flush()
            sync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def expanded(path: str | Path) -> Path:
    """Returns a path with `~` as the home folder; as it is where nobody knows whose home it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or one without a home, as in containers
        return Path(path)


def sync(descriptor: int) -> None:
    """Waits until a file is on the disk; where its file system has no such thing, does nothing."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_folder(folder: str | Path) -> None:
    """Waits until the names of the files of a folder are on the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: str | Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
      UserError: no such file, or damaged: no UTF-8, no JSON, or no object.
    """
    path = Path(path)
    check(path.is_file(), f"No such file: {str(path)!r}.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged: it is not valid JSON ({line}).") from None
    check(isinstance(found, dict), f"{path} is damaged: it does not hold a JSON object.")
    return found


def read_npz(path: str | Path, wrong: str = "is not an .npz file") -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name.

    Args:
      wrong: what to say of a file that is not what it should be: "PATH is not an .npz file".

    Raises:
      UserError: no such file, no .npz, damaged, with pickled objects or members that are no
        arrays; more than memory holds, or more than 500 times its own size (and 2 GiB). Checked
        before anything is unpacked.
    """
    path = Path(path)
    check(path.is_file(), f"No such file: {str(path)!r}.")
    check(zipfile.is_zipfile(path), f"{path} {wrong}.")
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise UserError(f"{path} {wrong}: it cannot be read ({error}).") from None


def _check_archive(path: Path) -> None:
    """Checks what the members of an .npz file claim to hold; see `read_npz`."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total, own = sum(member.file_size for member in members), path.stat().st_size
        check(
            total <= _SMALL or total <= _MOST_PACKED * own,
            f"it would unpack to {total / 2**30:.0f} GiB, {total // max(own, 1)} times its size",
        )
        _check_memory(total)
        for member in members:
            with archive.open(member) as file:
                _check_header(file, member.file_size, f"array {member.filename!r}")


def _check_memory(size: int) -> None:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return
    check(
        size <= memory,
        f"it would take {size / 2**30:.0f} GiB of memory; this machine has "
        f"{memory / 2**30:.0f} GiB",
    )


def _check_header(file: IO[bytes], size: int, what: str) -> None:
    """Checks that a file of `size` bytes in .npy format holds as many numbers as it claims."""
    check(file.read(6) == b"\x93NUMPY", f"{what} is not in NumPy's .npy format")
    version = tuple(file.read(2))
    check(version in _HEADERS, f"{what} is in version {'.'.join(map(str, version))} of .npy")
    shape, _, dtype = _HEADERS[version](file)
    check(min(shape, default=0) >= 0, f"{what} claims a negative size, {list(shape)}")
    check(not dtype.hasobject, f"Object arrays, which are pickled, are not read: {what}")
    claimed = math.prod(shape) * dtype.itemsize
    check(
        claimed <= size,
        f"{what} claims to hold {'x'.join(map(str, shape))} numbers, {claimed:.3g} bytes, but "
        f"has {size}",
    )


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
        with path.open("rb") as file:
            start, size = file.read(6), path.stat().st_size
            file.seek(0)
            if start == b"\x93NUMPY":
                _check_header(file, size, "it")
        if not mapped:
            _check_memory(size)
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"{kind}{path} cannot be read as .npy: {error}.") from None
