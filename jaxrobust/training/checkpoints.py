"""Checkpoints: one small room around Orbax's `CheckpointManager`.

A checkpoint holds the arrays (`TrainState` and the selected parameters) and, as JSON, the place
in the run and a digest of the arrays, so that a damaged file is noticed and the one before taken.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrobust.errors import RunError


def digest(tree: Any) -> str:
    """Returns a fingerprint of a pytree's values, types and shapes."""
    h = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        h.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


class Checkpoints:
    """The checkpoints of a run, newest last; `keep` of them stay."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.folder, options=self._options)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, arrays: Any, place: dict) -> None:
        """Writes a checkpoint, whole or not at all; older ones go once it is there.

        Args:
          step: its number; if there is one of that number, the next that is free.

        Raises:
          RunError: the disk is full, or the folder cannot be written.
        """
        step = max([step, *(newest + 1 for newest in self.steps()[-1:])])
        place = place | {"digest": digest(arrays)}
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), place=ocp.args.JsonSave(place)
        )
        try:
            self._manager.save(step, args=items, force=True)
            self._manager.wait_until_finished()
        except Exception as error:  # Orbax wraps the operating system's errors in many types.
            raise RunError(f"Could not save step {step}: {_reason(error)}") from error

    def restore(self, target: Any) -> tuple[Any, dict, list[str]] | None:
        """Reads the newest checkpoint that is whole.

        Args:
          target: a pytree of arrays of the same structure; says shapes, types and devices.

        Returns:
          `(arrays, place, problems)`, or None if there is none. `problems` tells of newer ones
          that were damaged; these are removed.

        Raises:
          RunError: there are checkpoints, but none can be read, or they hold another structure.
        """
        problems = []
        for step in reversed(self.steps()):
            self._check_structure(step, target)
            try:
                return *self._read(step, target), problems
            except Exception as error:  # Whatever is wrong with it, the one before may be right.
                first = (str(error).splitlines() or [type(error).__name__])[0][:200]
                problems.append(f"Checkpoint {step} is damaged ({first}); taking the one before.")
                self._discard(step)
        if problems:
            raise RunError(
                f"No checkpoint in {self.folder} can be read. Remove the workdir to start anew. "
                + problems[0]
            )
        return None

    def _read(self, step: int, target: Any) -> tuple[Any, dict]:
        abstract = jax.tree.map(_abstract, target)
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(abstract), place=ocp.args.JsonRestore()
            ),
        )
        arrays, place = items["arrays"], items["place"]
        if place.pop("digest") != digest(arrays):
            raise ValueError("its contents do not match its digest")
        return arrays, place

    def _check_structure(self, step: int, target: Any) -> None:
        try:
            found = ocp.PyTreeCheckpointHandler().metadata(self.folder / str(step) / "arrays")
            held = len(jax.tree.leaves(found))
        except Exception:  # Whatever is wrong with it, reading it will tell.
            return
        wanted = len(jax.tree.leaves(target))
        if held != wanted:
            raise RunError(
                f"Checkpoint {step} in {self.folder} holds {held} arrays, this version of "
                f"jaxrobust {wanted}: another version wrote it. Use that one, or another workdir."
            )

    def _discard(self, step: int) -> None:
        damaged = self.folder.parent / "damaged"
        damaged.mkdir(exist_ok=True)
        shutil.rmtree(damaged / str(step), ignore_errors=True)
        shutil.move(self.folder / str(step), damaged / str(step))
        self._manager.close()
        self._manager = ocp.CheckpointManager(self.folder, options=self._options)

    def close(self) -> None:
        self._manager.close()


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _reason(error: BaseException) -> str:
    text = str(error)
    full = getattr(error, "errno", None) == errno.ENOSPC or any(
        s in text for s in ("No space left", "ENOSPC", "RESOURCE_EXHAUSTED", "Disk quota")
    )
    if full:
        return "the disk is full. Free some space and run the same command again; it resumes."
    return (text.splitlines() or [type(error).__name__])[0][:300]
