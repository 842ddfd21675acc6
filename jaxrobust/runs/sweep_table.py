"""The table of a sweep: mean ± deviation over seeds, as CSV, Markdown and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.errors import writing
from jaxrobust.plots import sweep as figure
from jaxrobust.plots.run import save
from jaxrobust.training.metric_table import METRICS

COLUMNS = {
    f"{which}_{name}": f"{metric.heading}, {which}"
    for name, metric in METRICS.items()
    for which in metric.sweep
}
"""Numbers of `results.json`, as `which_name`, and their column headings."""

Row = dict[str, Any]


def summarize(runs: Sequence[Any], results: Mapping[str, Any]) -> list[Row]:
    """Returns a row for every noise, imbalance and method.

    Args:
      runs: with `name, noise, imbalance, method`.
      results: run name -> contents of `results.json`, or None where there are none.

    Returns:
      Rows with `noise, imbalance, method, seeds` (finished runs), and for each of `COLUMNS` its
      mean and, with `_deviation`, the sample deviation over seeds; None where there is none.
    """
    groups: dict[tuple[str, str, str], list] = {}
    for run in runs:
        group = groups.setdefault((run.noise, run.imbalance, run.method), [])
        if results[run.name] is not None:
            group.append(results[run.name])
    return [
        {"noise": noise, "imbalance": imbalance, "method": method, "seeds": len(found)}
        | _statistics(found)
        for (noise, imbalance, method), found in groups.items()
    ]


def _statistics(found: list[dict[str, Any]]) -> Row:
    row: Row = {}
    for column in COLUMNS:
        which, _, name = column.partition("_")
        values = [r[which].get(name) for r in found]
        values = [v for v in values if v is not None]
        row[column] = float(np.mean(values)) if values else None
        row[f"{column}_deviation"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return row


def markdown(rows: list[Row]) -> str:
    """Returns the table; fractions are in percent."""
    head = ["noise", "imbalance", "method", "seeds", *COLUMNS.values()]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [str(row[name]) for name in head[:4]]
        for column in COLUMNS:
            metric = METRICS[column.partition("_")[2]]
            cells.append(metric.text(row[column], row[f"{column}_deviation"]))
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(rows: list[Row], folder: Path) -> list[Path]:
    """Writes `sweep.csv` (shares, not percent), `sweep.md` and `sweep.png`; returns the paths.

    Raises:
      RunError: the folder cannot be written.
    """
    paths = [folder / f"sweep.{kind}" for kind in ("csv", "md", "png")]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path, table in zip(paths, (text.getvalue(), markdown(rows) + "\n"), strict=False):
            with files.whole(path) as file:
                file.write(table)
        save(figure.draw(rows), paths[2])
    return paths
