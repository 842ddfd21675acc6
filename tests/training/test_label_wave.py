"""Label Wave: the first minimum of prediction changes, on planted sequences and in runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, assert_same, settings, train_until_killed

import jaxrobust
from jaxrobust.data import batches
from jaxrobust.methods import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.runs import predict
from jaxrobust.training import dynamics
from jaxrobust.training.label_wave import PATIENCE, first_minimum, smooth
from jaxrobust.training.loop import Feed, Place, Runner
from jaxrobust.training.metrics_log import read_rows

SMALL = TINY | {"eval.label_wave": True, "train.epochs": 9}


def test_the_first_minimum_stands_though_later_values_are_lower():
    wave = [0.6, 0.5, 0.3, 0.2, 0.25, 0.4, 0.5, 0.3, 0.1, 0.0, 0.0]
    assert first_minimum(wave, window=1) == 3
    smoothed = [np.mean(wave[max(0, i - 2) : i + 1]) for i in range(len(wave))]
    np.testing.assert_allclose(smooth(wave, 3), smoothed)
    assert first_minimum(wave) == int(np.argmin(smoothed[:8])) == 4


def test_the_minimum_stands_only_after_the_patience():
    dip = [0.5, 0.4, *[0.45] * (PATIENCE - 1), 0.1, 0.2]
    assert first_minimum(dip, window=1) == PATIENCE + 1
    assert first_minimum([0.5, 0.4, *[0.45] * PATIENCE, 0.1], window=1) == 1
    assert first_minimum([]) is None
    assert first_minimum([0.5, 0.4, 0.3]) == 2


def test_changes_are_counted_as_examples_are_met():
    """A step that names planted classes; the rows of the last batch that only fill it count not."""
    planted = np.array([[0, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 1, 2, 2, 1], [0, 1, 2, 2, 1]])
    classes = jnp.asarray(planted)

    def step(state, batch, meta_batch, key, epoch):
        logits = jax.nn.one_hot(classes[epoch, batch["index"]], 3)
        return state._replace(step=state.step + 1), StepInfo(logits, {"loss": jnp.zeros(())})

    def order(state, key, epoch):
        return batches.shuffled(key, jnp.arange(5, dtype=jnp.int32), 2)

    method = Method(None, (Stage("a", 4, (Pass("train", step, order),)),))
    seen = dynamics.empty(5, 3, 4, predicted=True)
    state = TrainState(jnp.int32(0), {}, {}, {}, {}, {}, {}, seen)
    feed = Feed({"labels": jnp.zeros(5, jnp.int32), "x": jnp.zeros((5, 1))})
    runner, place, found = Runner(method, feed, None, jax.random.key(0), loop="epoch"), Place(), []
    for _ in range(4):
        state, row = runner.epoch(state, place, lambda *_: None)
        found.append(row["train_prediction_changes"])
    np.testing.assert_allclose(found, [1, 2 / 5, 2 / 5, 0], rtol=1e-6)
    np.testing.assert_array_equal(state.dynamics["predicted"], planted[-1])


def test_a_run_reports_the_epoch_and_its_weights(tmp_path):
    results = jaxrobust.train(settings(small=SMALL), tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    changes = [row["train_prediction_changes"] for row in rows]
    assert changes[0] == 1 and all(0 < c < 1 for c in changes[1:])
    epoch = first_minimum(changes[1:]) + 2
    assert results["label_wave"]["epoch"] == epoch
    of_epoch = rows[epoch - 1]["test_accuracy"]
    assert results["label_wave"]["accuracy"] == pytest.approx(of_epoch)
    again = predict.evaluate(tmp_path, save=False)
    assert again["label_wave"] == results["label_wave"]
    model = jaxrobust.load(tmp_path, which="label_wave")
    assert model.epoch == epoch


def test_killed_at_any_epoch_the_wave_goes_on(tmp_path):
    whole = jaxrobust.train(settings(small=SMALL), tmp_path / "whole")
    train_until_killed(settings(small=SMALL), tmp_path / "killed", 6)
    resumed = jaxrobust.train(settings(small=SMALL), tmp_path / "killed")
    assert resumed["label_wave"] == whole["label_wave"]
    waves = [predict.open_workdir(tmp_path / name)[1]["wave"] for name in ("whole", "killed")]
    assert_same(*(wave.of(None) for wave in waves))


def test_a_fresh_network_begins_a_new_wave(tmp_path):
    """CurveNet's second training: the probe's changes are not its own."""
    curvenet = {
        "train.epochs": 3,
        "method.probe_epochs": 4,
        "optimizer.milestones": (2,),
        "method.meta_batch_size": 16,
        "eval.label_wave": True,
    }
    results = jaxrobust.train(settings("digits_curvenet:ce", small=TINY | curvenet), tmp_path)
    changes = [row["train_prediction_changes"] for row in read_rows(tmp_path / "metrics.jsonl")]
    place = predict.open_workdir(tmp_path)[1]["place"]
    assert place.changes == pytest.approx(changes[5:])
    assert results["label_wave"]["epoch"] in (6, 7)
