"""The two errors that the program turns into one line and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong use: a bad setting, file or argument. The command line exits with 2."""


class RunError(RuntimeError):
    """The run itself failed: a non-finite loss, a full disk. The command line exits with 1."""


def check(condition: bool, message: str) -> None:
    """Raises `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the choice nearest to `name`, or an empty string."""
    found = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
    """Returns `name` if it is among `choices`; else raises `UserError` naming the nearest one."""
    choices = list(choices)
    check(
        name in choices,
        f"Unknown {kind} {name!r}.{nearest(name, choices)} Known: {', '.join(sorted(choices))}.",
    )
    return name
