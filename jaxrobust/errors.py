"""Errors that the command line turns into one line and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from jaxrobust import process

T = TypeVar("T")


class UserError(ValueError):
    """Wrong use: a bad setting, file or argument. The command line exits with 2."""


class RunError(RuntimeError):
    """The run itself failed: a non-finite loss, a full disk. The command line exits with 1."""


@contextmanager
def writing(path: str | Path, advice: str = "") -> Iterator[None]:
    """Turns an `OSError` while a file or folder is written into a `RunError` that names the file.

    Args:
      path: named if the error itself names none.
      advice: a sentence that follows.
    """
    try:
        yield
    except OSError as error:
        line = f"Cannot write {error.filename or path}: {error.strerror or error}. {advice}"
        raise RunError(line.strip()) from error


def report(error: UserError | RunError | OSError) -> int:
    """Prints an error as one line on the standard error stream; returns the exit code.

    What cannot be printed in a line, as a line break in a file's name, is escaped.

    Raises:
      BrokenPipeError: that was the error: nobody reads on, which `process.end` ends without a word.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    wrong_use = isinstance(error, UserError)
    line = str(error)
    if isinstance(error, OSError) and error.strerror:
        line = f"{error.filename or 'Input or output'}: {error.strerror}."
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    process.say(f"{'error' if wrong_use else 'failed'}: {line}")
    return 2 if wrong_use else 1


def check(condition: object, message: str) -> None:
    """Raises `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def present(value: T | None, message: str) -> T:
    """Returns a value; raises `UserError(message)` if it is None."""
    if value is None:
        raise UserError(message)
    return value


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """Returns " Did you mean 'x'?" for the choice nearest to `name`, or an empty string.

    Args:
      name: what was given; capitals do not count.
      choices: what there is.
      cutoff: least similarity, from 0 to 1.
    """
    lower = {str(choice).lower(): str(choice) for choice in choices}
    found = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=cutoff)
    return f" Did you mean {lower[found[0]]!r}?" if found else ""


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
    """Returns `name` if it is among `choices`; else raises `UserError` naming the nearest one."""
    choices = list(choices)
    check(
        name in choices,
        f"Unknown {kind} {name!r}.{nearest(name, choices)} Known: {', '.join(sorted(choices))}.",
    )
    return name
