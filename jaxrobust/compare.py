"""Puts finished runs side by side: `python -m jaxrobust.compare WORKDIR WORKDIR …`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jaxrobust.errors import UserError, check
from jaxrobust.training import results


def compare(workdirs: list[str]) -> str:
    """Returns a table of the results of `workdirs`.

    Raises:
      UserError: a folder without the results of a finished run.
    """
    check(len(workdirs) > 0, "Name the workdirs of finished runs.")
    runs = {}
    for workdir in workdirs:
        path = Path(workdir) / "results.json"
        check(path.is_file(), f"{workdir} holds no finished run (no results.json).")
        runs[Path(workdir).name] = json.loads(path.read_text())
    return results.table(runs)


def main(argv: list[str]) -> int:
    try:
        print(compare(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("Look at: " + ", ".join(f"{w}/figures" for w in argv))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
