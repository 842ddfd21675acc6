"""The demonstration: `python -m jaxrobust.demo [FOLDER]`, what `make demo` runs.

scikit-learn's digits (no download) with wrong labels and a long tail: cross-entropy, and the best
method here without clean data, on the same data and schedule. Prints one screen; each run's folder
holds the report with its suspect images.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrobust import process
from jaxrobust.errors import RunError, UserError, report

RUNS = {"cross-entropy": "ce", "dynamic loss": "corrector"}
"""Names of the two trainings and their variants of `configs/digits_dynamic_loss.py`."""

SEEDS = "Over five seeds: 60.7 ± 2.0 % and 84.0 ± 2.5 %"


def run(folder: str | Path, settings: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Trains both, or takes what is finished; returns the contents of results.json by name.

    Args:
      folder: of the two workdirs and of comparison.png.
      settings: by full name, put over the recipes.

    Raises:
      UserError, RunError: see `runs.train.train`.
    """
    from jaxrobust import compare, compile_cache, train
    from jaxrobust import config as configuration

    compile_cache.enable()
    folder, found = Path(folder), {}
    process.tell(
        "Digits: four of ten labels redrawn, the rarest class a tenth of the largest.\n"
        "Two trainings on the same data, no clean data, about a minute on two CPU cores."
    )
    for name, variant in RUNS.items():
        config = configuration.load(f"digits_dynamic_loss:{variant}")
        given = {"log.tensorboard": False} | dict(settings or {})
        begin = time.monotonic()
        with _quiet():
            found[name] = train(configuration.override(config, given), folder / variant)
        process.tell(f"  {name}: {time.monotonic() - begin:.0f} s")
    compare.draw([folder / v for v in RUNS.values()], folder / "comparison.png")
    return found


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Keeps the progress of a training off a screen that cannot show it in one line."""
    if sys.stderr.isatty():
        return contextlib.nullcontext()
    return contextlib.redirect_stderr(io.StringIO())


def summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns what the two results say, as a table of text.

    Args:
      found: contents of results.json by name.
    """
    rows = [("", "balanced test accuracy", "wrong labels learned", "wrong labels found")]
    for name, results in found.items():
        truth, last = results["audit"]["truth"], results["last"]
        right = round(truth["recall"] * truth["wrong"])
        rows.append(
            (
                name,
                f"{100 * last['balanced_accuracy']:.1f} %",
                f"{100 * last['memorised']:.0f} %",
                f"{right} of {truth['wrong']}, {truth['flagged'] - right} right ones flagged",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def main(argv: list[str]) -> int:
    """Runs the demonstration in the folder `argv[0]`; errors give exit codes 2 and 1."""
    folder = Path(argv[0] if argv else "runs/demo")
    try:
        found = run(folder)
    except (UserError, RunError, OSError) as error:
        return report(error)
    best = folder / list(RUNS.values())[-1]
    process.tell(
        f"\n{summary(found)}\n{SEEDS} (docs/results.md).\n\n"
        f"The suspect images: {best / 'report.html'}\n"
        f"The course of both: {folder / 'comparison.png'}\n"
        "Your own data:      python -m jaxrobust.main --config=images --config.data.path=FOLDER\n"
        "                    python -m jaxrobust.main --config=table --config.data.path=FILE.csv"
    )
    return 0


if __name__ == "__main__":
    process.prepare()
    process.end(lambda: main(sys.argv[1:]))
