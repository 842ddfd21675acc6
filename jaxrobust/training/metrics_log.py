"""Progress of a run: a bar or lines, metrics.jsonl, TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxrobust import files
from jaxrobust.process import say
from jaxrobust.training.metric_table import METRICS


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Log:
    """Writes one row of numbers per epoch; a resumed run drops the rows it will write again.

    Args:
      workdir: its folder, which is there.
      epochs: of the whole run.
      start: epochs that are done.
      tensorboard: whether events are written too.
      name: of the method, at the head of each line.
      select: the metric that the progress bar shows.

    Attributes:
      missing: epochs up to `start` of which metrics.jsonl has no row.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        epochs: int,
        start: int = 0,
        tensorboard: bool = True,
        name: str = "",
        select: str = "balanced_accuracy",
    ):
        self._path = Path(workdir) / "metrics.jsonl"
        self._epochs, self._name = epochs, name
        self._in_bar = {
            "train_loss": "loss",
            "memorised": "memorised",
            f"validation_{select}": "val",
            f"test_{select}": "test",
        }
        rows = [row for row in read_rows(self._path) if row["epoch"] <= start]
        self.missing = sorted(set(range(1, start + 1)) - {row["epoch"] for row in rows})
        with files.whole(self._path) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self._file = self._path.open("a")
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start + 1)
        self._bar, self._said = None, -math.inf
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=12),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[numbers]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(name, total=epochs, completed=start, numbers="")

    def write(self, row: dict[str, Any]) -> None:
        """Adds the numbers of an epoch; `row["epoch"]` counts finished epochs, from 1."""
        row = {key: _finite(value) for key, value in row.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        numbers = "  ".join(
            f"{key} {value:.4g}"
            for key, value in row.items()
            if key in _SHOWN and value is not None
        )
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, (int, float)) and key != "epoch":
                    self._board.add_scalar(key, value, row["epoch"])
        if self._bar is not None:
            short = "  ".join(
                f"{name} {row[key]:.3g}"
                for key, name in self._in_bar.items()
                if row.get(key) is not None
            )
            self._bar.update(self._task, completed=row["epoch"], numbers=short)
        elif time.monotonic() - self._said > 1.0 or row["epoch"] == self._epochs:
            self._said = time.monotonic()
            self.say(f"{self._name} epoch {row['epoch']}/{self._epochs}  {numbers}")

    def say(self, text: str) -> None:
        """Prints a line on the standard error stream, above the bar where there is one."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.console.print(text, highlight=False, markup=False)
        else:
            say(text)

    def sync(self) -> None:
        """Waits until the rows are on the disk: before a checkpoint that comes after them."""
        files.sync(self._file.fileno())

    def close(self) -> None:
        """Ends the bar and closes the files."""
        self._file.close()
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()


class Silent:
    """A `Log` that says nothing, for all processes of a distributed run but the first."""

    missing: list[int] = []  # noqa: RUF012

    def __init__(self, workdir: Path, **options):
        del workdir, options

    def write(self, row: dict[str, Any]) -> None:
        del row

    def say(self, text: str) -> None:
        del text

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


_VALUES = (int, float, str, list, type(None))
_LOGGED = [name for name, metric in METRICS.items() if metric.log]
_SHOWN = {
    "train_loss",
    "train_accuracy",
    *(prefix + name for prefix in ("", "validation_", "test_") for name in _LOGGED),
}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl; a line that is damaged or cut short is left out.

    Args:
      path: of the file; no rows if it is not there.

    Returns:
      A row per epoch, each with an integer "epoch"; the last one that is written of an epoch.
    """
    rows: dict[int, dict[str, Any]] = {}
    if Path(path).is_file():
        for line in Path(path).read_bytes().splitlines():
            try:
                row = json.loads(line.decode())
            except (ValueError, RecursionError):
                continue
            epoch = row.get("epoch") if isinstance(row, dict) else None
            if isinstance(epoch, int) and all(isinstance(v, _VALUES) for v in row.values()):
                rows[epoch] = row
    return [rows[epoch] for epoch in sorted(rows)]
