"""Signals: the first is kept until the run is saved; a second Ctrl-C is not."""

import os
import signal

import pytest

from jaxrobust.training.signals import Interrupt, Interrupted


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_is_kept_and_the_handlers_come_back(name, capsys):
    number = getattr(signal, name)
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup")
    before = signal.getsignal(number)
    with Interrupt("Stopping.") as interrupt:
        interrupt.check()
        send(number)
        assert interrupt.received == number
        with pytest.raises(Interrupted) as stop:
            interrupt.check()
    assert stop.value.code == 128 + number and str(stop.value) == name
    assert "Stopping." in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_is_not_held_back():
    with pytest.raises(KeyboardInterrupt), Interrupt():
        send(signal.SIGTERM)
        send(signal.SIGTERM)  # waits still
        send(signal.SIGINT)


def test_under_nohup_a_closed_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            send(signal.SIGHUP)
            assert interrupt.received == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_it_says_last_is_true():
    stop = Interrupted(signal.SIGTERM)
    assert stop.farewell().endswith("Run the same command again to go on.")
    stop.saved = False
    assert stop.farewell().endswith("to start anew: no checkpoint was written yet.")
