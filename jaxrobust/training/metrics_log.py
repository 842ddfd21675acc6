"""Progress of a run: a bar or lines, metrics.jsonl, TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxrobust import files
from jaxrobust.process import duration, say
from jaxrobust.training.metric_table import METRICS

LOG = "metrics.jsonl"
"""Name of the file in a workdir."""


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
      quiet: whether nothing is shown, neither bar nor lines.
      select: the metric that the progress bar shows.
      kept: rows that a checkpoint holds; they take the place of what the file says.
      given_labels: test labels may be wrong: lines say agreement instead of accuracy.

    Attributes:
      missing: epochs up to `start` of which there is no row.
      restored: epochs of which the file had lost or changed the row.
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
        quiet: bool = False,
        kept: Iterable[dict[str, Any]] = (),
        given_labels: bool = False,
    ):
        self._path = Path(workdir) / LOG
        self._epochs, self._name, self._quiet = epochs, name, quiet
        self._accuracy = "agreement" if given_labels else "accuracy"
        self._in_bar = {
            "train_loss": "loss",
            "memorised": "memorised",
            f"validation_{select}": "val",
            f"test_{select}": "test",
        }
        self.missing, self.restored = put_back(self._path, start, kept)
        self._file = self._path.open("a")
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start + 1)
        self._bar, self._said = None, -math.inf
        self._first: tuple[int, float] | None = None
        if sys.stderr.isatty() and not quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

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
            f"{key.replace('accuracy', self._accuracy)} {value:.4g}"
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
            with contextlib.suppress(OSError, ValueError):  # a terminal that was closed
                self._bar.update(self._task, completed=row["epoch"], numbers=short)
        elif time.monotonic() - self._said > 1.0 or row["epoch"] == self._epochs:
            self._said = time.monotonic()
            left = self._left(row["epoch"])
            self.say(f"{self._name} epoch {row['epoch']}/{self._epochs}{left}  {numbers}")

    def _left(self, epoch: int) -> str:
        """Returns the time that is left in words, by the epochs after the first, which compiles."""
        now = time.monotonic()
        if self._first is None:
            self._first = (epoch, now)
            return ""
        done, left = epoch - self._first[0], self._epochs - epoch
        if not left or not done:
            return ""
        return f" ({duration((now - self._first[1]) / done * left)} left)"

    def say(self, text: str) -> None:
        """Prints a line on the standard error stream, above the bar where there is one."""
        if self._quiet:
            return
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
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()
        if self._board is not None:
            self._board.close()


class Silent:
    """A `Log` without output, for all processes of a distributed run but the first."""

    missing: list[int] = []  # noqa: RUF012
    restored: list[int] = []  # noqa: RUF012

    def __init__(self, workdir: Path, **options: Any):
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


def put_back(
    path: Path, epochs: int, kept: Iterable[dict[str, Any]]
) -> tuple[list[int], list[int]]:
    """Writes a metrics.jsonl anew with its rows up to an epoch, those of a checkpoint in front.

    Args:
      path: of the file.
      epochs: that are done; rows of later ones are dropped.
      kept: rows that a checkpoint holds.

    Returns:
      The epochs of which there is no row, and those of which the file had lost or changed it.
    """
    found = {row["epoch"]: row for row in read_rows(path) if row["epoch"] <= epochs}
    kept = {row["epoch"]: row for row in kept if row["epoch"] <= epochs}
    rows = found | kept
    with files.whole(path) as file:
        file.writelines(json.dumps(rows[epoch]) + "\n" for epoch in sorted(rows))
    missing = sorted(set(range(1, epochs + 1)) - rows.keys())
    return missing, sorted(epoch for epoch, row in kept.items() if found.get(epoch) != row)


def lost_rows(missing: list[int], restored: list[int]) -> list[str]:
    """Returns what to say of rows that metrics.jsonl had not: lines, perhaps none."""
    lines = []
    if restored:
        lines.append(
            f"{LOG} had lost or changed the rows of {_epochs(restored)}; put back from the "
            "checkpoint."
        )
    if missing:
        lines.append(
            f"{LOG} has lost the rows of {_epochs(missing)}; learning curves go without them."
        )
    return lines


def _epochs(numbers: list[int]) -> str:
    """Returns "epochs 1 to 3, 5" for sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs]
    shown = ", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")
    return ("epoch " if len(numbers) == 1 else "epochs ") + shown


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
            if (
                type(epoch) is int
                and epoch > 0
                and all(isinstance(v, _VALUES) for v in row.values())
            ):
                rows[epoch] = row
    return [rows[epoch] for epoch in sorted(rows)]
