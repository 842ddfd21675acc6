"""Lock of a workdir: one process at a time trains in it, or changes what is there.

The file `lock` names its owner: host, process, and when that process started. It outlives a kill;
the next run on the same host sees that its owner is gone and takes it over. The lock of another
host is never broken: whether its owner still runs cannot be seen from here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxrobust import files
from jaxrobust.errors import RunError, UserError, check

Held = Callable[[], None]
"""Takes a lock that was removed again; raises `RunError` where another process has it now."""
_HOUR = 3600.0


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[Held]:
    """Holds the lock of a workdir, which is there, within a `with` block.

    Args:
      workdir: folder of the run; leftovers of its killed writers (`*.partial`) are removed.

    Yields:
      A function to call before something is written: somebody may have removed the lock.

    Raises:
      UserError: another process holds the lock, or it is unknown whether one does; or something in
        the folder is neither file nor folder.
      OSError: the folder cannot be written.
    """
    path = workdir / "lock"
    owner = {
        **_place(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "token": secrets.token_hex(8),
    }
    for entry in workdir.iterdir():
        kinds = entry.is_file(), entry.is_dir(), entry.is_symlink()
        check(any(kinds), f"{entry} is no file but a pipe or a device: remove it.")
    with _alone(workdir):
        _take(path, owner)
    try:
        for left in workdir.glob(".*.partial"):
            _remove_leftover(left)
        yield lambda: _check_held(path, owner)
    finally:
        with contextlib.suppress(OSError, UserError):
            if files.read_json(path) == owner:
                path.unlink()


def _take(path: Path, owner: dict[str, Any]) -> None:
    """Writes the lock, unless its owner may still run."""
    if os.path.lexists(path):
        _check_gone(path)
        path.unlink()
    new = path.with_name(f".lock.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        try:
            file = new.open("x", encoding="utf-8")
        except OSError as error:  # It is `path` that the user knows.
            raise type(error)(error.errno, error.strerror, str(path)) from None
        with file:
            file.write(json.dumps(owner) + "\n")
            file.flush()
            files.sync(file.fileno())
        try:
            os.link(new, path)  # fails where another host has been quicker
        except FileExistsError:
            raise _in_use(path, "another process has just taken it") from None
        except OSError:  # a file system without links
            os.replace(new, path)
    finally:
        with contextlib.suppress(OSError):  # A read-only mount refuses even what is not there.
            new.unlink()
    files.sync_folder(path.parent)


def _check_held(path: Path, owner: dict[str, Any]) -> None:
    """Checks that a lock is still this process's; takes it again if it is gone.

    Raises:
      RunError: another process has taken it.
    """
    try:
        if files.read_json(path) == owner:
            return
    except UserError:
        pass
    try:
        with _alone(path.parent):
            if os.path.lexists(path):
                raise _in_use(path, "it has taken the lock that this process held")
            _take(path, owner)
    except UserError as error:
        raise RunError(f"{error} This process stops, so that their files do not mix.") from None


def _check_gone(path: Path) -> None:
    """Checks that the process that a lock names has ended.

    Raises:
      UserError: it runs, or runs elsewhere, or the lock cannot be read.
    """
    remove = f"If it does not run any more, remove {path} and run the same command again."
    try:
        owner = files.read_json(path)
        pid, started = int(owner["pid"]), str(owner["started"])
        place = {key: owner[key] for key in _place()}
    except (UserError, KeyError, TypeError, ValueError):
        raise _in_use(path, f"its file cannot be read. {remove}") from None
    if place != _place():
        raise _in_use(
            path,
            f"process {pid} on host {place['host']}, which cannot be seen from "
            f"{_place()['host']}, holds it. {remove}",
        )
    if _started(pid) == started:
        raise _in_use(
            path,
            f"process {pid} on this host is training in it. Wait for it, stop "
            f"it (kill {pid}), or use another --workdir",
        )


def _in_use(path: Path, why: str) -> UserError:
    return UserError(f"{path.parent} is in use by another process: {why.rstrip('.')}.")


def _place() -> dict[str, str]:
    """Returns where a process identifier has its meaning: the host, and the container in it."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {"host": socket.gethostname(), "namespace": namespace}


def _started(pid: int) -> str:
    """Returns when a process started, in words that are compared alone; "" if there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes of this host from looking at the lock at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems cannot; `link` still can.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_leftover(path: Path) -> None:
    """Removes what a writer of this host, killed more than an hour ago, has left."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int(path.name.split(".")[-3])
        if time.time() - path.stat().st_mtime > _HOUR and not _started(pid):
            path.unlink()
