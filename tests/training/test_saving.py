"""When a run is saved, and how several processes agree on it."""

import types

import numpy as np
import pytest

from jaxrobust.errors import RunError
from jaxrobust.methods import TrainState
from jaxrobust.training import saving
from jaxrobust.training.checkpoints import Found
from jaxrobust.training.loop import Place
from jaxrobust.training.signals import Interrupted


def test_processes_ask_each_other_about_once_a_second(monkeypatch):
    """After one step, and then after as many as take a second, but never more than twice as many
    as the last time; what the others say counts."""
    clock, asked = [0.0], []
    monkeypatch.setattr(saving.jax, "process_count", lambda: 2)
    monkeypatch.setattr(saving.time, "monotonic", lambda: clock[0])
    agree = saving._Agreement()

    def now(*values):
        asked.append((round(10 * clock[0]), values[0]))
        return (15 if len(asked) == 3 else 0, values[1])

    monkeypatch.setattr(agree, "now", now)
    said = []
    for _ in range(36):  # a tenth of a second each
        clock[0] += 0.1
        said.append(agree.at_step(2))
    assert [step for step, _ in asked] == [1, 3, 7, 15, 25, 35]
    assert {value for _, value in asked} == {2}
    assert [i + 1 for i, value in enumerate(said) if value] == [7] and said[6] == 15


def test_one_process_asks_nobody():
    agree = saving._Agreement()
    assert agree.at_step(2) == 2 and agree.now(3, 4) == (3, 4)


class Kept:
    """Stands for checkpoints: keeps what is saved."""

    def __init__(self):
        self.saved = []

    def save(self, step, arrays, place):
        self.saved.append((step, place["epoch"], place["position"], place["record"]))


def saver(place, every_steps=None, every_seconds=1e9, received=0):
    kept, calls = Kept(), []
    selection = types.SimpleNamespace(of=lambda state: None)
    made = saving.Saver(
        kept,
        place,
        selection,
        types.SimpleNamespace(received=received),
        every_steps=every_steps,
        every_seconds=every_seconds,
        record="r",
        before=lambda: calls.append(len(kept.saved)),
    )
    return made, kept.saved, calls


def state(step):
    return TrainState(np.int32(step), {}, {}, {}, {}, {}, {}, {})


def sums(bad=-1):
    return {"train": {"count": np.float32(1), "bad_step": np.int32(bad)}}


def test_within_an_epoch_it_saves_every_so_many_steps():
    place = Place(sums=sums())
    made, saved, calls = saver(place, every_steps=3)
    for position in range(1, 8):
        place.position = position
        made.after_step(state(position), place)
    assert saved == [(3, 0, 3, "r"), (6, 0, 6, "r")] and calls == [0, 1]
    made, saved, _ = saver(place)
    made.after_step(state(9), place)
    assert saved == []


def test_no_state_of_a_bad_loss_is_saved():
    place = Place(position=3, sums=sums(bad=2))
    made, saved, _ = saver(place, every_steps=3)
    made.after_step(state(3), place)
    assert saved == []


def test_a_signal_saves_and_leaves_within_an_epoch_and_after_one():
    for leave in ("after_step", "after_epoch"):
        place = Place(position=1, sums=sums())
        made, saved, _ = saver(place, received=15)
        with pytest.raises(Interrupted) as stop:
            made.after_step(state(1), place) if leave == "after_step" else made.after_epoch(
                state(1), False
            )
        assert stop.value.code == 143 and len(saved) == 1
    made, saved, _ = saver(Place(), received=2)
    with pytest.raises(Interrupted):
        made.check()
    assert saved == []


def test_after_an_epoch_it_saves_when_it_is_time_or_the_last(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: clock[0])
    made, saved, _ = saver(Place(), every_seconds=10)
    for now, last in ((9, False), (10, False), (19, False), (20, False), (21, True)):
        clock[0] = now
        made.after_epoch(state(now), last)
    assert [step for step, *_ in saved] == [10, 20, 21]


@pytest.mark.parametrize("epoch, fine", [(3, True), (4, False)])
def test_progress_beyond_the_last_epoch_is_refused(tmp_path, epoch, fine):
    place = vars(Place(epoch=epoch)) | {"record": "r"}
    arrays = {"state": state(1), "selected": {"w": np.zeros(2)}}
    found = Found(arrays=arrays, place=place, problems=[], step=1, folder=tmp_path)
    if fine:
        again = saving.restored(found, "accuracy", 3)
        assert again.place.epoch == 3 and again.record == "r" and again.rows == []
    else:
        with pytest.raises(RunError, match="is of epoch 4; there are 3"):
            saving.restored(found, "accuracy", 3)
