"""Compiled programs kept between runs of the suite, shared by workers and child processes.

XLA's compiler takes most of the suite's time. `environment()` names a folder in the user's cache,
one per version of JAX and kind of processor; `make_atomic()` lets several processes write into it;
`prune()` bounds its size. Child processes read it and write nothing, since they do not write
atomically and may be killed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

MAX_BYTES = 3 * 2**30
NEVER = "1e9"  # seconds: no compilation takes that long, so nothing is written


def folder() -> Path:
    """Returns JAX_COMPILATION_CACHE_DIR, or the folder of these versions on this processor."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        flags = next(
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        flags = platform.processor()
    kind = hashlib.sha256(flags.encode()).hexdigest()[:8]
    return home / "jaxrobust-tests" / f"jax-{version('jax')}-{version('jaxlib')}-{kind}"


def environment() -> dict[str, str]:
    """Returns the settings of JAX for a process that reads the cache and writes nothing."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": NEVER,
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def make_atomic() -> None:
    """Lets this process write every program: whole files only, and none for a reader to miss.

    With JAXROBUST_TESTS_CACHE=read it goes on to write none.
    """
    if os.environ.get("JAXROBUST_TESTS_CACHE") == "read":
        return
    import jax
    from jax._src import lru_cache

    def path(self, key):
        return Path(str(self.path)) / f"{key}-cache"

    def get(self, key):
        try:
            value = path(self, key).read_bytes()
            os.utime(path(self, key))
        except FileNotFoundError:
            return None
        return value

    def put(self, key, value):
        with tempfile.NamedTemporaryFile(dir=str(self.path), prefix="new-", delete=False) as file:
            file.write(value)
        os.replace(file.name, path(self, key))

    lru_cache.LRUCache.get, lru_cache.LRUCache.put = get, put
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def prune(limit: int = MAX_BYTES) -> int:
    """Deletes what was not used for longest until at most `limit` bytes are kept.

    Returns the number of bytes that are kept.
    """
    files = []
    for path in folder().glob("*"):
        try:
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
        except FileNotFoundError:
            continue
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size
    return total


def resident_bytes() -> int:
    """Returns the memory that this process holds now, or 0 where that is not known."""
    if not sys.platform.startswith("linux"):
        return 0
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
