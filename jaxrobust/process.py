"""Process-wide setup: allocator, import path, output streams, log levels, exit codes."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# From glibc's malloc.h: parameter -> value.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEP = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}


def prepare() -> None:
    """Makes the process ready to run the command line; before anything starts a thread."""
    keep_freed_memory()
    search_here_last()
    open_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for name in ("asyncio", "concurrent.futures"):  # Orbax's tasks; we say it in a line.
        logging.getLogger(name).setLevel(logging.CRITICAL)


_interrupted = False


def _interrupt(number: int, frame: Any) -> None:
    """Raises `KeyboardInterrupt`, and remembers that it did: libraries swallow it now and then,
    above all while they are imported."""
    global _interrupted
    _interrupted = True
    signal.default_int_handler(number, frame)


def was_interrupted() -> bool:
    """Returns whether there was a Ctrl-C, though perhaps nobody heard of it."""
    return _interrupted


def search_here_last() -> None:
    """Moves the current folder to the end of `sys.path`.

    A recipe may import a module that lies there, but a file `matplotlib.py` among someone's data
    must not take the place of the library. `python -m` puts the folder first.
    """
    try:
        here = str(Path.cwd())
    except OSError:  # The folder has been removed.
        here = ""
    while sys.path and sys.path[0] in ("", here) and not sys.flags.safe_path:
        del sys.path[0]
    if here and here not in sys.path:
        sys.path.append(here)


def open_streams() -> None:
    """Lets standard output and error take any text, in silence where they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Prints a line on the standard error stream; nobody to read it is no error."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Returns a time in words: "12 s", "3 min", "1.5 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def tell(text: str) -> None:
    """Prints what a command has found that is already in a file: nobody to read it is no error.

    Where the standard output is closed, broken or full, it is told so on the standard error
    stream and the command goes on.
    """
    try:
        print(text, flush=True)
    except (OSError, ValueError) as error:
        if not isinstance(error, BrokenPipeError):
            say(f"note: The standard output cannot be written ({error}).")
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


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
    An output that cannot be written (a full disk) ends it with 1 and a line; Ctrl-C with 130.
    """
    output = sys.stdout
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141
    except KeyboardInterrupt:
        say("Stopped.")
        code = 130
    except OSError as error:
        say(f"failed: The standard output cannot be written: {error.strerror or error}.")
        code = 1
    with contextlib.suppress(OSError, ValueError, AttributeError):  # for the flush at exit
        try:
            output.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
    sys.exit(code)
