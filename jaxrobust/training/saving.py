"""Content of a run's checkpoints, and when one is saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrobust.errors import RunError
from jaxrobust.methods import TrainState
from jaxrobust.training import label_wave
from jaxrobust.training.checkpoints import Checkpoints, Found
from jaxrobust.training.loop import Place, bad_step
from jaxrobust.training.metric_table import METRICS
from jaxrobust.training.metrics_log import LOG, read_rows
from jaxrobust.training.signals import Interrupt, Interrupted


class Selection:
    """Keeps, on the host, the parameters of the best epoch on the validation data."""

    def __init__(self, metric: str, place: Place, params: Any = None):
        self._metric, self._place, self._params = metric, place, params

    def offer(self, state: TrainState, numbers: dict[str, Any]) -> None:
        score = METRICS[self._metric].score(numbers[self._metric])
        best = self._place.selected_value
        if best is None or score > best:
            self._place.selected_value, self._place.selected_epoch = score, self._place.epoch
            self._params = _weights(state)

    def of(self, state: TrainState) -> Any:
        """Returns (params, batch_stats) of the best epoch; those of `state` if none was offered:
        there are no validation data, or no epoch has been evaluated yet."""
        return _weights(state) if self._place.selected_value is None else self._params


class Wave:
    """Keeps, on the host, the parameters of the first minimum of prediction changes.

    Args:
      place: whose `changes` grow by one an epoch.
      params: of the minimum so far, from a checkpoint.
    """

    def __init__(self, place: Place, params: Any = None):
        self._place, self._params = place, params

    @property
    def epoch(self) -> int:
        """The epoch of the minimum so far; 0 before there is one."""
        changes, position = self._place.changes, label_wave.first_minimum(self._place.changes)
        return 0 if position is None else self._place.epoch - len(changes) + position + 1

    def offer(self, state: TrainState) -> None:
        """Takes the weights of an epoch that has just ended, if it is the minimum so far."""
        if self.epoch == self._place.epoch:
            self._params = _weights(state)

    def of(self, state: TrainState) -> Any:
        """Returns (params, batch_stats) of the minimum; those of `state` before there is one."""
        return self._params if self.epoch and self._params is not None else _weights(state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A run as its newest whole checkpoint left it.

    Attributes:
      state: laid out as that which training starts from.
      place: see `Place`.
      selection: see `Selection`.
      wave: see `Wave`; None if the run does not look for it.
      record: the fingerprint of the run that saved it, see `Saver`.
      problems: what was wrong with newer checkpoints.
      rows: those of metrics.jsonl when it was saved.
    """

    state: TrainState
    place: Place
    selection: Selection
    wave: Wave | None
    record: str
    problems: list[str]
    rows: list[dict[str, Any]]


def _weights(state: TrainState) -> Any:
    """Returns (params, batch_stats) on the host."""
    return jax.device_get((state.params, state.network_state))


def target(start: TrainState) -> dict[str, Any]:
    """Returns a pytree laid out as a checkpoint's arrays.

    "state"; "selected" and, where Label Wave is looked for, "label_wave", both on the host.
    """
    arrays = {"state": start, "selected": _weights(start)}
    return arrays | ({"label_wave": _weights(start)} if _waves(start) else {})


def _waves(state: TrainState) -> bool:
    return "predicted" in state.dynamics


def restored(found: Found | None, metric: str, epochs: int) -> Restored | None:
    """Returns a run out of a checkpoint that was read; None for None.

    Args:
      found: see `Checkpoints.restore` and `target`.
      metric: on the validation data, that selects the epoch.
      epochs: of the whole run.

    Raises:
      RunError: what it says of the progress is not what this version writes.
    """
    if found is None:
        return None
    place, record = progress(found)
    if place.epoch > epochs:
        raise RunError(f"Checkpoint {found.folder} is of epoch {place.epoch}; there are {epochs}.")
    selection = Selection(metric, place, jax.device_get(found.arrays["selected"]))
    state, wave = found.arrays["state"], None
    if _waves(state):
        wave = Wave(place, jax.device_get(found.arrays["label_wave"]))
    rows = read_rows(found.folder / LOG)
    return Restored(
        state=state,
        place=place,
        selection=selection,
        wave=wave,
        record=record,
        problems=found.problems,
        rows=rows,
    )


def progress(found: Found) -> tuple[Place, str]:
    """Returns the progress that a checkpoint holds, and the fingerprint of its run.

    Raises:
      RunError: it is not what this version writes.
    """
    saved = dict(found.place)
    try:
        record, place = saved.pop("record"), Place(**saved)
        numbers = (place.epoch, place.pass_index, place.position, place.selected_epoch)
        right = all(type(n) is int and n >= 0 for n in numbers) and isinstance(place.sums, dict)
        right &= isinstance(place.changes, list)
        right &= isinstance(record, str)
        right &= isinstance(place.selected_value, (int, float, type(None)))
    except (KeyError, TypeError):
        right = False
    if not right:
        raise RunError(
            f"Checkpoint {found.folder} does not say how far the run is: another version of "
            "jaxrobust wrote it. Use that one, or another workdir."
        )
    return place, record


class Saver:
    """Saves a run every so many steps, every so many seconds, at its end, and upon a signal.

    Where there are several processes they decide together: all save, and all leave, after the
    same step, whichever of them got the signal.

    Args:
      checkpoints: where to save.
      place: the progress, kept up to date by the loop.
      selection: the parameters selected so far.
      wave: those of Label Wave so far, or None.
      interrupt: holds the signal that came to this process.
      every_steps: within an epoch, or None.
      every_seconds: least time between two checkpoints after an epoch.
      record: a fingerprint of the configuration and the data, saved along.
      before: called before each save.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        place: Place,
        selection: Selection,
        interrupt: Interrupt,
        *,
        every_steps: int | None,
        every_seconds: float,
        record: str,
        wave: Wave | None = None,
        before: Callable[[], None] = lambda: None,
    ):
        self._checkpoints, self._place, self._selection = checkpoints, place, selection
        self._interrupt, self._record, self._before = interrupt, record, before
        self._every_steps, self._every_seconds = every_steps, every_seconds
        self._saved_at, self._wave = time.monotonic(), wave
        self._agree = _Agreement()

    def after_step(self, state: TrainState, place: Place) -> None:
        """Saves within an epoch, but no state that came of a loss that is not finite.

        Raises:
          Interrupted: a signal came, to this process or another.
        """
        due = bool(self._every_steps) and place.position % self._every_steps == 0
        stopped = self._agree.at_step(self._interrupt.received)
        if (due or stopped) and all(bad_step(sums) < 0 for sums in place.sums.values()):
            self._save(state)
        if stopped:
            raise Interrupted(stopped)

    def check(self, *_: Any) -> None:
        """Raises `Interrupted` if a signal came to any process; all of them must ask."""
        stopped = self._agree.at_step(self._interrupt.received)
        if stopped:
            raise Interrupted(stopped)

    def after_epoch(self, state: TrainState, last: bool) -> None:
        """Saves after an epoch. Raises `Interrupted` if a signal came."""
        seconds = time.monotonic() - self._saved_at
        stopped, due = self._agree.now(
            self._interrupt.received, int(seconds >= self._every_seconds)
        )
        if last or due or stopped:
            self._save(state)
        if stopped:
            raise Interrupted(stopped)

    def _save(self, state: TrainState) -> None:
        self._before()
        sums = jax.tree.map(lambda value: np.asarray(value).tolist(), self._place.sums)
        place = dataclasses.asdict(dataclasses.replace(self._place, sums=sums))
        arrays = {"state": state, "selected": self._selection.of(state)}
        if self._wave is not None:
            arrays["label_wave"] = self._wave.of(state)
        self._checkpoints.save(int(np.max(state.step)), arrays, place | {"record": self._record})
        self._saved_at = time.monotonic()


class _Agreement:
    """Numbers on which all processes agree: the maximum over the processes.

    To ask the others waits for the device, so steps are asked about once a second or so: after a
    number of steps that is agreed on too.
    """

    def __init__(self):
        self._steps, self._interval, self._asked = 0, 1, time.monotonic()

    def now(self, *values: int) -> tuple[int, ...]:
        if jax.process_count() == 1:
            return values
        from jax.experimental import multihost_utils

        said = multihost_utils.process_allgather(np.asarray(values, np.int32))
        return tuple(int(v) for v in said.reshape(-1, len(values)).max(0))

    def at_step(self, value: int) -> int:
        if jax.process_count() == 1:
            return value
        self._steps += 1
        if self._steps < self._interval:
            return 0
        took = int(1000 * (time.monotonic() - self._asked))
        value, took = self.now(value, took)
        self._interval = min(max(1, self._interval * 1000 // max(took, 1)), 2 * self._interval)
        self._steps, self._asked = 0, time.monotonic()
        return value
