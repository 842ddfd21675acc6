"""What concerns a whole process: how its memory is kept, who may speak, and how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# From glibc's malloc.h: parameter -> value.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEP = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}


def prepare() -> None:
    """Makes the process ready to run the command line; before anything starts a thread."""
    keep_freed_memory()
    for name in ("asyncio", "concurrent.futures"):  # Orbax's tasks; we say it in a line.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.path.insert(0, str(Path.cwd()))


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed for the next allocation; returns whether it does.

    On CPU, XLA takes its temporary memory anew at every step, and the system hands out and clears
    every page of it again: a fifth of the processor time of a ResNet-32 step. One arena, grown and
    not shrunk, is used again instead. The price: memory once used stays with the process. Must
    be called before there are threads. Only with glibc; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(parameter, value) for parameter, value in _KEEP.items()])
    return False


def end(command: Callable[[], int]) -> NoReturn:
    """Runs a command and ends the process with the exit code that it returns.

    A reader that has gone (`| head`) ends it as it ends any program: without a word, and with 141.
    """
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        code = 141
    sys.exit(code)
