"""Ctrl-C and SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import signal
import sys
import threading


class Interrupted(Exception):
    """A run that a signal ended, after it was saved. `code` is the exit code: 128 + signal."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Interrupt:
    """Within its `with` block `received` turns from 0 to the number of the first signal.

    A second Ctrl-C is not held back. Outside the main thread signals are left alone.
    """

    def __init__(self):
        self.received = 0
        self._before = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        del frame
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        print("\nStopping: saving a checkpoint first.", file=sys.stderr, flush=True)
