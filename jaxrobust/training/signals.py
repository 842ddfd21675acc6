"""Ctrl-C, SIGTERM and a closed terminal: the step is finished, the run saved, the program left."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any

from jaxrobust.process import say, was_interrupted

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupted(Exception):
    """A run that a signal ended.

    Attributes:
      code: the exit code, 128 + the signal's number.
      saved: whether the run left a checkpoint from which the same command goes on.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number
        self.saved = True

    def farewell(self) -> str:
        """Returns the last line of a command that this ends."""
        again = "to go on" if self.saved else "to start anew: no checkpoint was written yet"
        return f"Stopped by {self}. Run the same command again {again}."


class Interrupt:
    """Within its `with` block `received` turns from 0 to the number of the first signal.

    A Ctrl-C that came before and that nobody heard of counts. A second one is not held back. Under
    `nohup`, SIGHUP goes on being ignored. Outside the main thread signals are left alone.

    Args:
      text: what to say when a signal comes.
    """

    def __init__(self, text: str = "Stopping: saving a checkpoint first."):
        self.received, self.text = signal.SIGINT if was_interrupted() else 0, text
        self._before = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                ignored = signal.getsignal(number) is signal.SIG_IGN
                if number in (signal.SIGINT, signal.SIGTERM) or not ignored:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, *_: Any) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.received:
            raise Interrupted(self.received)

    def _handle(self, number: Any, frame: Any) -> None:
        del frame
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        with contextlib.suppress(RuntimeError):  # Another line is just being written.
            say(f"\n{self.text}")
