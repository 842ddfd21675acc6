"""The command line: `python -m jaxrobust.main --config=… --workdir=…`.

Nothing but the standard library is imported before `process.prepare` has moved the current folder
to the end of the import path; what a command needs is imported by `cli`.
"""

from __future__ import annotations

import sys
from typing import Any

from jaxrobust import process


def parse(argv: list[str]) -> Any:
    """Parses a command line; see `cli.parse`."""
    from jaxrobust import cli

    return cli.parse(argv)


def run(argv: list[str]) -> int:
    """Runs a command line, whose first word is the program; returns the exit code."""
    from jaxrobust import cli

    return cli.run(argv)


def entry() -> None:
    """The console script."""
    process.prepare()
    process.end(lambda: run(sys.argv))


if __name__ == "__main__":
    entry()
