"""Compiled programs kept between processes, in the user's cache folder.

XLA compiles a training step for seconds, also where the same step was compiled yesterday. JAX can
keep its programs on disk; here is where, how many, and how to switch it off:

    JAXROBUST_COMPILE_CACHE=off      nothing is kept
    JAXROBUST_COMPILE_CACHE=FOLDER   kept in FOLDER

The command line and `RobustClassifier` use it; a program of your own may call `enable()`. Where
JAX's own setting (JAX_COMPILATION_CACHE_DIR) is given, it is left alone. Several processes may
share the folder: JAX reads and writes under a lock, and removes what was not used for longest above
`MAX_BYTES`. What a process that was killed left half written is removed here.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import filelock

VARIABLE = "JAXROBUST_COMPILE_CACHE"
MAX_BYTES = 2 * 2**30
MIN_SECONDS = 0.05  # programs that compile faster are not kept: reading takes as long


def folder() -> Path | None:
    """Returns where programs are kept on this machine; None where that is switched off.

    One folder per kind of processor, since a program of one may not run on another that shares the
    home folder.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() in ("off", "0", "false", "no"):
        return None
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    if home is None and platform.system() == "Darwin":
        home = Path.home() / "Library" / "Caches"
    elif home is None and platform.system() == "Windows":
        home = os.environ.get("LOCALAPPDATA")
    return Path(home or Path.home() / ".cache") / "jaxrobust" / f"programs-{processor()}"


def processor() -> str:
    """Returns a name for the kind of processor, by the instructions that it knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        text = platform.processor() or platform.machine()
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def enable() -> Path | None:
    """Lets JAX keep its programs; called before the first of them is compiled.

    Returns:
      The folder, or None: it is switched off, cannot be written, or JAX's own setting is in force.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    try:
        place = folder()
    except RuntimeError:  # a user without a home, as in containers
        return None
    chosen: str | None = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if place is None or chosen is not None:
        return None
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(place, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_dir", str(place))
    remove_unfinished(place)
    # JAX looks once per process whether there is a cache; it may have done so before.
    compilation_cache.reset_cache()
    return place


def remove_unfinished(place: Path) -> int:
    """Removes programs that were not written to their end; returns how many.

    JAX writes `KEY-cache` and then `KEY-atime`, under the folder's lock: the first without the
    second, while nobody holds the lock, is what a process left that was killed in between. JAX
    itself would never replace it. Where the lock is held, nothing is done.
    """
    lock, removed = filelock.FileLock(place / ".lockfile"), 0
    try:
        with lock.acquire(timeout=0):
            names = {path.name for path in place.iterdir()}
            for name in names:
                if name.endswith("-cache") and name.removesuffix("-cache") + "-atime" not in names:
                    (place / name).unlink(missing_ok=True)
                    removed += 1
    except (filelock.Timeout, OSError):
        pass
    return removed
