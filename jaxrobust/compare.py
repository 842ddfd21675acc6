"""Puts finished runs side by side: `python -m jaxrobust.compare WORKDIR WORKDIR …`.

Prints a table; writes it as `comparison.txt`, and the learning curves as `comparison.png`, into
the folder that holds the first workdir.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jaxrobust import files, process
from jaxrobust.errors import RunError, UserError, check, report, writing
from jaxrobust.plots import run as figures
from jaxrobust.runs import results
from jaxrobust.training.metrics_log import read_rows


def compare(workdirs: list[Path]) -> str:
    """Returns a table of the results of finished runs.

    Raises:
      UserError: no workdirs, or one without the results of a finished run.
    """
    check(len(workdirs) > 0, "Name the workdirs of finished runs.")
    runs = zip(names(workdirs), map(results.load, workdirs), strict=True)
    return results.table(dict(runs))


def names(workdirs: list[Path]) -> list[str]:
    """Returns what to call each run: its folder's name, or its path where names repeat."""
    found = [workdir.name or str(workdir) for workdir in workdirs]
    return [
        str(workdir) if found.count(name) > 1 else name
        for workdir, name in zip(workdirs, found, strict=True)
    ]


def draw(workdirs: list[Path], path: Path) -> Path:
    """Draws balanced test accuracy and memorised wrong labels of the runs over the epochs."""
    figure, (left, right) = figures.canvas(9.6, 3.8, 1, 2)
    for i, (workdir, name) in enumerate(zip(workdirs, names(workdirs), strict=True)):
        rows = read_rows(workdir / "metrics.jsonl")
        color = figures.COLORS[i % len(figures.COLORS)]
        figures.series(left, rows, "test_balanced_accuracy", name, color)
        figures.series(right, rows, "memorised", name, color)
    left.set(xlabel="epoch", ylim=(0, 1.02), title="Balanced accuracy on clean test data")
    right.set(xlabel="epoch", ylim=(0, 1.02), title="Share of wrong labels memorised")
    left.legend(frameon=False, loc="lower right")
    return figures.save(figure, path)


def main(argv: list[str]) -> int:
    """Prints and writes the comparison of the workdirs `argv`; errors give exit codes 2 and 1."""
    try:
        workdirs = [Path(a) for a in argv]
        table = compare(workdirs)
        print(table)
        folder = workdirs[0].parent
        with writing(folder):
            with files.whole(folder / "comparison.txt") as file:
                file.write(table + "\n")
            draw(workdirs, folder / "comparison.png")
    except (UserError, RunError, OSError) as error:
        return report(error)
    written = [folder / "comparison.txt", folder / "comparison.png"]
    written += [w / "figures" for w in workdirs if (w / "figures").is_dir()]
    print("Wrote " + ", ".join(map(str, written)) + ".")
    return 0


if __name__ == "__main__":
    process.prepare()
    process.end(lambda: main(sys.argv[1:]))
