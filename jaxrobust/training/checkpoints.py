"""Checkpoints: Orbax's `CheckpointManager`, a digest of every file, readers that move nothing.

A checkpoint holds the arrays (`TrainState` and the selected parameters), as JSON the progress of
the run, and copies of files that go with it. `digest.json`, written last, names the SHA-256 of
every other file: a checkpoint is damaged if and only if one of them differs. Only the process that
trains (`Checkpoints`) writes, moves and deletes; `read` leaves everything where it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrobust import files
from jaxrobust.errors import RunError, UserError, check

if TYPE_CHECKING:  # Orbax takes longer to import than the rest of a dry run
    import orbax.checkpoint as ocp

_DIGEST = "digest.json"
_UNFINISHED = "its digest is not there: it was not finished"
# Orbax and TensorStore read these in a path as patterns, separators or schemes.
_NUMBER = re.compile("0|[1-9][0-9]*")
_SPECIAL = set("[]{}*?\\:%#")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint that was read.

    Attributes:
      arrays: the pytree that was saved.
      place: the progress that was saved with it.
      problems: a line for each newer checkpoint that could not be used.
      step: its number.
      folder: that holds it, and its copies of other files.
    """

    arrays: Any
    place: dict[str, Any]
    problems: list[str]
    step: int
    folder: Path


class Checkpoints:
    """The checkpoints of a run that trains, newest last; `keep` of them stay.

    Args:
      folder: of the checkpoints; made if it is not there.
      keep: how many to keep, at least 1.
      beside: files that each checkpoint gets a copy of, those of them that are there.

    Attributes:
      unfinished: lines for checkpoints that `restore` could not use where it found none to use.

    Raises:
      UserError: the path holds characters that cannot be used here, see `check_path`.
    """

    def __init__(self, folder: Path, keep: int = 2, beside: Sequence[Path] = ()):
        self.folder, self._keep = Path(folder).absolute(), keep
        self._beside, self.unfinished = tuple(beside), []
        check_path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._alias, self._descriptor = _plain_path(self.folder)
        if jax.process_index() == 0:
            for left in self.folder.glob("*.orbax-checkpoint-tmp*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._alias, options=options)

    def steps(self) -> list[int]:
        """Returns the numbers of the checkpoints there are, oldest first."""
        return saved_steps(self.folder)

    def save(self, step: int, arrays: Any, place: dict) -> None:
        """Writes a checkpoint, whole or not at all; older ones go once it is on the disk.

        Args:
          step: its number; if there is one of that number, the next that is free.
          arrays: pytree of arrays.
          place: progress, as JSON has it.

        Raises:
          RunError: the disk is full, or the folder cannot be written.
        """
        import orbax.checkpoint as ocp

        step = max([step, *(newest + 1 for newest in self.steps()[-1:])])
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), place=ocp.args.JsonSave(place)
        )
        try:
            with _quiet():
                self._check_space(arrays)
                self._manager.save(step, args=items, force=True)
                self._manager.wait_until_finished()
                if jax.process_index() == 0:
                    for path in filter(Path.is_file, self._beside):
                        shutil.copyfile(path, self.folder / str(step) / path.name)
                    _write_digest(self.folder / str(step))
        except Exception as error:  # Orbax wraps the operating system's errors in many types.
            self._remove_unfinished(step)
            raise RunError(f"Could not save step {step}: {_reason(error)}") from error
        for old in self.steps()[: -self._keep]:
            self._manager.delete(old)

    def _check_space(self, arrays: Any) -> None:
        needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
        if shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _remove_unfinished(self, step: int) -> None:
        if jax.process_index() == 0:
            for left in self.folder.glob(f"{step}*"):
                if left.name.partition(".")[0] == str(step) and not (left / _DIGEST).exists():
                    shutil.rmtree(left, ignore_errors=True)

    def restore(self, target: Any) -> Found | None:
        """Reads the newest checkpoint that is whole; moves damaged ones to `damaged`.

        Args:
          target: a pytree of arrays of the same structure; gives shapes, types and devices.

        Returns:
          The checkpoint, or None if there is none that was finished.

        Raises:
          RunError: all are damaged; or the newest whole one cannot be read, or holds arrays of
            another structure: nothing is moved then.
        """
        found, broken = _newest_whole(self.folder, self.steps())
        if found is None and broken and not all(p == _UNFINISHED for p in broken.values()):
            raise _none_left(self.folder, broken)
        place = None if found is None else _read_place(self.folder, found)
        arrays = None if found is None else _read_arrays(self._alias, found, target)
        for step in broken:
            self._set_aside(step)
        if found is None:
            self.unfinished = _problems(broken, "beginning anew")
            return None
        return Found(
            arrays=arrays,
            place=place or {},
            problems=_problems(broken),
            step=found,
            folder=self.folder / str(found),
        )

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            damaged = self.folder.parent / "damaged"
            check(
                damaged.is_dir() or not os.path.lexists(damaged),
                f"{damaged} is no folder, but damaged checkpoints go there: move it away.",
            )
            damaged.mkdir(exist_ok=True)
            shutil.rmtree(damaged / str(step), ignore_errors=True)
            shutil.move(self.folder / str(step), damaged / str(step))
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self._manager.close()
        self._manager = self._open()

    def close(self) -> None:
        """Ends Orbax's threads."""
        self._manager.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def saved_steps(folder: Path) -> list[int]:
    """Returns the numbers of the finished checkpoints of a folder, oldest first."""
    if not folder.is_dir():
        return []
    names = (p.name for p in folder.iterdir() if p.is_dir())
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def read(folder: Path, target: Any = None) -> Found | None:
    """Reads the newest whole checkpoint of a folder without changing anything there.

    Args:
      folder: of the checkpoints.
      target: as in `Checkpoints.restore`; None for NumPy arrays in dictionaries and lists.

    Returns:
      The checkpoint, or None if there is none.

    Raises:
      RunError: as in `Checkpoints.restore`.
    """
    folder = Path(folder).absolute()
    step, broken = _newest_whole(folder, saved_steps(folder))
    if step is None:
        if broken and not all(p == _UNFINISHED for p in broken.values()):
            raise _none_left(folder, broken)
        return None
    alias, descriptor = _plain_path(folder)
    try:
        arrays = _read_arrays(alias, step, target)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return Found(
        arrays=arrays,
        place=_read_place(folder, step),
        problems=_problems(broken),
        step=step,
        folder=folder / str(step),
    )


def check_path(path: Path) -> None:
    """Checks that checkpoints can be kept below a path.

    Raises:
      UserError: it holds characters that Orbax takes for patterns, where there is no way round.
    """
    special = sorted(_SPECIAL & set(str(path)))
    check(
        not special or (_has_descriptors() and jax.process_count() == 1),
        f"The workdir {path} holds {' '.join(special)}, which checkpoints cannot have in their "
        "path here. Use another --workdir, or rename it.",
    )


def _has_descriptors() -> bool:
    return sys.platform == "linux" and Path("/proc/self/fd").is_dir()


def _plain_path(folder: Path) -> tuple[Path, int | None]:
    """Returns a path to a folder without special characters, and the descriptor it goes through."""
    if not _SPECIAL & set(str(folder)):
        return folder, None
    check_path(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    return Path(f"/proc/self/fd/{descriptor}") / folder.name, descriptor


def _newest_whole(folder: Path, steps: list[int]) -> tuple[int | None, dict[int, str]]:
    """Returns the newest step whose files are as they were written, and what is wrong with newer
    ones, by step."""
    broken: dict[int, str] = {}
    for step in reversed(steps):
        problem = _damage(folder / str(step))
        if problem is None:
            return step, broken
        broken[step] = problem
    return None, broken


def _damage(folder: Path) -> str | None:
    """Returns what of a checkpoint is not as it was written, or None.

    Raises:
      RunError: it cannot be told: no permission, too many open files, another version.
    """
    if not (folder / _DIGEST).is_file():
        with contextlib.suppress(OSError, ValueError):
            if "digest" in json.loads((folder / "place" / "metadata").read_text()):
                raise RunError(
                    f"Checkpoint {folder} was written by an earlier version of "
                    "jaxrobust. Use that one, or another workdir."
                )
        return _UNFINISHED
    try:
        expected = files.read_json(folder / _DIGEST)["files"]
        for name, value in expected.items():
            if ".." in Path(name).parts or not (folder / name).is_file():  # nor is it a pipe
                return f"{name} is missing"
            if _hash(folder / name) != value:
                return f"{name} does not match its digest"
    except (UserError, KeyError, AttributeError, TypeError):
        return f"{_DIGEST} cannot be read"
    except OSError as error:
        if error.errno == errno.EIO:
            return f"{Path(str(error.filename)).name} cannot be read from the disk"
        raise RunError(f"Checkpoint {folder} cannot be read: {error.strerror}.") from error
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_digest(folder: Path) -> None:
    """Writes digest.json of a checkpoint's files, all of them on the disk before it."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            files.sync_folder(path)
            continue
        hashes[path.relative_to(folder).as_posix()] = _hash(path)
        with path.open("rb") as file:
            files.sync(file.fileno())
    with files.whole(folder / _DIGEST) as file:
        file.write(json.dumps({"version": 1, "files": hashes}, indent=1))
    files.sync_folder(folder.parent)


def _read_place(folder: Path, step: int) -> dict[str, Any]:
    return files.read_json(folder / str(step) / "place" / "metadata")


def _read_arrays(folder: Path, step: int, target: Any) -> Any:
    """Reads the arrays of a checkpoint whose files are whole.

    Raises:
      RunError: they are of another structure than `target`, or cannot be read.
    """
    import orbax.checkpoint as ocp

    path = folder / str(step) / "arrays"
    try:
        with _quiet():
            described = ocp.PyTreeCheckpointHandler().metadata(path)
            described = getattr(described, "tree", described)
            if target is None:
                kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), described)
                return ocp.PyTreeCheckpointer().restore(path, restore_args=kinds)
            _check_structure(path, described, target)
            reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
            abstract = jax.tree.map(_abstract, target)
            return reader.restore(path, args=ocp.args.StandardRestore(abstract))
    except RunError:
        raise
    except Exception as error:  # of any type
        raise RunError(f"{path} is whole but cannot be read: {_reason(error)}") from error


def _check_structure(path: Path, described: Any, target: Any) -> None:
    saved, wanted = _shapes(described), _shapes(target)
    for name in sorted(saved | wanted):
        if saved.get(name) != wanted.get(name):
            has, needs = (
                "absent" if entry is None else f"{entry[0]}{list(entry[1])}"
                for entry in (saved.get(name), wanted.get(name))
            )
            raise RunError(
                f"Checkpoint {path.parent} does not fit this run: {name} is {has} in it, here "
                f"{needs}. Other data, settings or another version of jaxrobust wrote it; use "
                "those, or another workdir."
            )


def _shapes(tree: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns type and shape of every array by its name, however its containers are kept."""

    def name(key: jax.Array) -> str:
        names = (getattr(key, attribute, None) for attribute in ("key", "idx", "name"))
        return str(next(found for found in names if found is not None))

    return {
        ".".join(map(name, path)): (str(np.dtype(leaf.dtype)), tuple(leaf.shape))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _problems(broken: dict[int, str], then: str = "taking the one before") -> list[str]:
    return [
        f"Checkpoint {step} is {'not finished' if problem == _UNFINISHED else 'damaged'} "
        f"({problem}); {then}."
        for step, problem in broken.items()
    ]


def _none_left(folder: Path, broken: dict[int, str]) -> RunError:
    return RunError(
        f"No checkpoint in {folder} can be read. Remove the workdir to start anew. "
        + _problems(broken)[0].partition(";")[0]
        + "."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the tracebacks of Orbax's threads and tasks to itself: its error is said in a line."""
    hook, level = threading.excepthook, logging.root.manager.disable
    threading.excepthook = lambda args: None
    logging.disable(logging.CRITICAL)
    try:
        yield
    except BaseException:
        gc.collect()  # Tasks that nobody waited for report their errors when they go.
        raise
    finally:
        threading.excepthook = hook
        logging.disable(level)


def _reason(error: BaseException) -> str:
    text = str(error)
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(
        s in text for s in ("No space left", "ENOSPC", "RESOURCE_EXHAUSTED", "Disk quota")
    )
    if full:
        return "the disk is full. Free some space and run the same command again; it resumes."
    return (text.splitlines() or [type(error).__name__])[0][:300]
