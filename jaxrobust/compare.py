"""Puts finished runs side by side: `python -m jaxrobust.compare WORKDIR WORKDIR …`.

Prints a table; writes it as `comparison.txt`, and the learning curves as `comparison.png`, into
the folder that holds the first workdir.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jaxrobust.errors import RunError, UserError, check
from jaxrobust.training import figures, results
from jaxrobust.training.log import read_rows


def compare(workdirs: list[Path]) -> str:
    """Returns a table of the results of finished runs.

    Raises:
      UserError: no workdirs, or one without the results of a finished run.
    """
    check(len(workdirs) > 0, "Name the workdirs of finished runs.")
    runs = {}
    for workdir in workdirs:
        path = workdir / "results.json"
        check(path.is_file(), f"{workdir} holds no finished run (no results.json).")
        runs[workdir.name] = json.loads(path.read_text())
    return results.table(runs)


def draw(workdirs: list[Path], path: Path) -> Path:
    """Draws balanced test accuracy and memorised wrong labels of the runs over the epochs."""
    figure, (left, right) = figures.canvas(9.6, 3.8, 1, 2)
    for i, workdir in enumerate(workdirs):
        rows = read_rows(workdir / "metrics.jsonl")
        colour = figures.COLOURS[i % len(figures.COLOURS)]
        figures.series(left, rows, "test_balanced_accuracy", workdir.name, colour)
        figures.series(right, rows, "memorised", workdir.name, colour)
    left.set(xlabel="epoch", ylim=(0, 1.02), title="Balanced accuracy on clean test data")
    right.set(xlabel="epoch", ylim=(0, 1.02), title="Share of wrong labels memorised")
    left.legend(frameon=False, loc="lower right")
    return figures.save(figure, path)


def main(argv: list[str]) -> int:
    try:
        workdirs = [Path(a) for a in argv]
        table = compare(workdirs)
        print(table)
        folder = workdirs[0].parent
        try:
            (folder / "comparison.txt").write_text(table + "\n")
            draw(workdirs, folder / "comparison.png")
        except OSError as error:
            raise RunError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    written = [folder / "comparison.txt", folder / "comparison.png"]
    written += [w / "figures" for w in workdirs if (w / "figures").is_dir()]
    print("Wrote " + ", ".join(map(str, written)) + ".")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
