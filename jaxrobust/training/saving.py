"""What a checkpoint of a run holds, and when one is saved."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrobust.methods import TrainState
from jaxrobust.training.checkpoints import Checkpoints
from jaxrobust.training.loop import Place, bad_step
from jaxrobust.training.signals import Interrupt, Interrupted


class Selection:
    """Keeps, on the host, the parameters of the best epoch on the validation data."""

    def __init__(self, metric: str, place: Place, params: Any = None):
        self._metric, self._place, self._params = metric, place, params

    def offer(self, state: TrainState, numbers: dict[str, Any]) -> None:
        value = numbers[self._metric]
        value = -value if self._metric == "negative_log_likelihood" else value
        best = self._place.selected_value
        if best is None or value > best:
            self._place.selected_value, self._place.selected_epoch = value, self._place.epoch
            self._params = _weights(state)

    def of(self, state: TrainState) -> Any:
        """Returns (params, batch_stats) of the best epoch; those of `state` if none was offered:
        there are no validation data, or no epoch has been evaluated yet."""
        return _weights(state) if self._place.selected_value is None else self._params


class Restored(NamedTuple):
    """A run as its newest whole checkpoint left it.

    Attributes:
      state: laid out as that which training starts from.
      place: see `Place`.
      selection: see `Selection`.
      problems: what was wrong with newer checkpoints.
    """

    state: TrainState
    place: Place
    selection: Selection
    problems: list[str]


def _weights(state: TrainState) -> Any:
    """Returns (params, batch_stats) on the host."""
    return jax.device_get((state.params, state.batch_stats))


def restore(checkpoints: Checkpoints, start: TrainState, metric: str) -> Restored | None:
    """Reads the newest checkpoint; None if there is none.

    Args:
      start: the state that training starts from, see `memory.init_state`; says how arrays lie.
      metric: on the validation data, that selects the epoch.

    Raises:
      RunError: see `Checkpoints.restore`.
    """
    found = checkpoints.restore({"state": start, "selected": _weights(start)})
    if found is None:
        return None
    arrays, saved, problems = found
    place = Place(**saved)
    selection = Selection(metric, place, jax.device_get(arrays["selected"]))
    return Restored(arrays["state"], place, selection, problems)


class Saver:
    """Saves a run every so many steps, every so many seconds, at its end, and upon a signal."""

    def __init__(
        self, checkpoints: Checkpoints, place: Place, selection: Selection, interrupt: Interrupt,
        *, every_steps: int, every_seconds: float,
    ):
        self._checkpoints, self._place, self._selection = checkpoints, place, selection
        self._interrupt = interrupt
        self._every_steps, self._every_seconds = every_steps, every_seconds
        self._saved_at = time.monotonic()

    def after_step(self, state: TrainState, place: Place) -> None:
        """Saves within an epoch, but no state that came of a loss that is not finite.

        Raises:
          Interrupted: a signal came.
        """
        every, stopped = self._every_steps, self._interrupt.received
        due = bool(every) and place.position % every == 0
        if (due or stopped) and all(bad_step(sums) < 0 for sums in place.sums.values()):
            self._save(state)
        if stopped:
            raise Interrupted(stopped)

    def after_epoch(self, state: TrainState, last: bool) -> None:
        """Saves after an epoch. Raises `Interrupted` if a signal came before the last one."""
        due = time.monotonic() - self._saved_at >= self._every_seconds
        stopped = self._interrupt.received
        if last or due or stopped:
            self._save(state)
        if stopped and not last:
            raise Interrupted(stopped)

    def _save(self, state: TrainState) -> None:
        sums = jax.tree.map(lambda value: np.asarray(value).item(), self._place.sums)
        place = dataclasses.asdict(dataclasses.replace(self._place, sums=sums))
        arrays = {"state": state, "selected": self._selection.of(state)}
        self._checkpoints.save(int(state.step), arrays, place)
        self._saved_at = time.monotonic()
