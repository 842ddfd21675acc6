"""`train`: what it leaves behind, what it promises about selection, resuming and errors."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from helpers import Killed, train_until_killed

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.errors import RunError, UserError
from jaxrobust.runs import experiment, fit, predict, train
from jaxrobust.training.checkpoints import read
from jaxrobust.training.metrics_log import read_rows


def settings(**overrides):
    """A run that takes a second: digits, a small perceptron, three epochs; `a__b` sets a.b."""
    made = configuration.load("digits_losses:ce")
    small = {
        "network.name": "mlp",
        "network.width": 32,
        "train.epochs": 3,
        "train.batch_size": 128,
        "data.noise.kind": "symmetric",
        "data.noise.rate": 0.4,
        "log.figures": False,
        "log.tensorboard": False,
        "checkpoint.every_seconds": 0.0,
    }
    chosen = {key.replace("__", "."): value for key, value in overrides.items()}
    made.update_from_flattened_dict(small | chosen)
    return made


@pytest.fixture
def tiny():
    return settings


def params_of(workdir):
    return predict.open_workdir(workdir)[1]["state"].params


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_leaves_what_it_promises(tiny, tmp_path):
    results = jaxrobust.train(tiny(log__figures=True, log__tensorboard=True), tmp_path / "w")
    names = {p.name for p in (tmp_path / "w").iterdir()}
    assert {
        "config.json",
        "environment.json",
        "noise.npz",
        "metrics.jsonl",
        "results.json",
        "checkpoints",
        "figures",
        "tensorboard",
    } <= names
    assert {p.name for p in (tmp_path / "w" / "figures").iterdir()} == {
        "learning_curves.png",
        "confusion.png",
        "per_class_accuracy.png",
        "reliability.png",
    }
    assert json.loads((tmp_path / "w" / "results.json").read_text()) == results
    assert results["selection_split"] == "validation"
    assert results["last"]["epoch"] == 3 and 1 <= results["selected"]["epoch"] <= 3
    for which in ("last", "selected"):
        assert 0 <= results[which]["memorised"] <= 1
        assert len(results[which]["per_class"]) == 10
    assert 0.3 < results["noise"]["realised_rate"] < 0.42
    assert results["noise"]["requested_rate"] == 0.4
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["test_accuracy"] == results["last"]["accuracy"]


def test_training_learns(tiny, tmp_path):
    results = jaxrobust.train(
        tiny(train__epochs=12, data__noise__rate=0.0, data__noise__kind="none"), tmp_path
    )
    assert results["last"]["accuracy"] > 0.9
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["train_loss"] < 0.3 * rows[0]["train_loss"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny, tmp_path):
    runs = [jaxrobust.train(tiny(seed=s), tmp_path / str(i)) for i, s in enumerate((0, 0, 1))]
    assert runs[0]["last"] == runs[1]["last"] != runs[2]["last"]
    assert_same(params_of(tmp_path / "0"), params_of(tmp_path / "1"))
    assert runs[0]["noise"]["fingerprint"] == runs[2]["noise"]["fingerprint"]


def test_a_finished_run_returns_its_results_without_training(tiny, tmp_path, monkeypatch):
    first = jaxrobust.train(tiny(), tmp_path)
    monkeypatch.setattr(train, "assemble", None)
    assert jaxrobust.train(tiny(), tmp_path) == first


def test_another_configuration_is_refused_with_the_difference(tiny, tmp_path):
    jaxrobust.train(tiny(), tmp_path)
    with pytest.raises(UserError, match="seed: 0 -> 7; train.epochs: 3 -> 4"):
        jaxrobust.train(tiny(seed=7, train__epochs=4), tmp_path)


@pytest.mark.parametrize("best_is_last", [True, False])
def test_nothing_is_evaluated_twice(tiny, tmp_path, monkeypatch, best_is_last):
    """At the end what the last epoch's evaluation gave is used again."""
    assemble, calls = train.assemble, []

    def counted(config, **given):
        made = assemble(config, **given)

        def forward(params, batch_stats, x):
            parts = ("train", "validation", "test")
            calls.append(next(n for n in parts if getattr(made.data, n).x is x))
            return made.forward(params, batch_stats, x)

        return dataclasses.replace(made, forward=forward)

    def offer(self, state, numbers):
        if self._place.epoch == (2 if best_is_last else 1):
            return offer_always(self, state, numbers)

    offer_always = train.Selection.offer
    monkeypatch.setattr(train, "assemble", counted)
    monkeypatch.setattr(train.Selection, "offer", offer)
    results = jaxrobust.train(tiny(train__epochs=2, log__figures=True), tmp_path)
    assert (results["selected"] == results["last"]) is best_is_last
    parts = ["validation", "test"]
    end = ["train"] if best_is_last else ["train", *parts, "train"]
    assert calls == [*parts, *parts, *end]


def test_what_is_learned_is_looked_at_only_where_it_is_told(tmp_path, monkeypatch):
    """Of a probe when it ends, to keep its curves; of what follows in every epoch."""
    assemble, calls = train.assemble, []

    def counted(config, **given):
        made = assemble(config, **given)

        def report(state):
            calls.append(int(state.step))
            return made.method.report(state)

        return dataclasses.replace(made, method=made.method._replace(report=report))

    monkeypatch.setattr(train, "assemble", counted)
    config = configuration.load("digits_curvenet:ce")
    config.update_from_flattened_dict(
        {
            "network.name": "mlp",
            "network.width": 16,
            "train.epochs": 2,
            "train.batch_size": 256,
            "method.probe_epochs": 4,
            "optimizer.milestones": (1,),
            "method.meta_batch_size": 16,
            "data.noise.kind": "symmetric",
            "data.noise.rate": 0.4,
            "log.figures": False,
            "log.tensorboard": False,
        }
    )
    jaxrobust.train(config, tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert calls[:3] == [row["step"] for row in rows[3:]] and len(rows) == 6
    assert calls[3:] == [rows[-1]["step"]]  # for the audit
    assert ["weight_auroc" in row for row in rows] == [False] * 4 + [True] * 2
    assert (tmp_path / "curves.npz").exists()


@pytest.fixture(scope="module", params=["epoch", "step"])
def undisturbed(request, tmp_path_factory):
    """A configuration that saves after every call, its whole run, and the run's folder."""
    made = settings(
        train__loop=request.param,
        train__batch_size=512,
        checkpoint__every_steps=1 if request.param == "step" else None,
    )
    folder = tmp_path_factory.mktemp("whole")
    return made, jaxrobust.train(made, folder), folder


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_run_killed_after_any_checkpoint_ends_the_same(undisturbed, tmp_path, after):
    config, whole, folder = undisturbed
    after = min(after, 3) if config.train.loop == "epoch" else after
    train_until_killed(config, tmp_path, after)
    resumed = jaxrobust.train(config, tmp_path)
    for which in ("last", "selected"):
        assert resumed[which] == whole[which]
    assert_same(params_of(folder), params_of(tmp_path))
    assert read_rows(folder / "metrics.jsonl") == read_rows(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("owner, name", [(train.Checkpoints, "restore"), (train.Log, "__init__")])
def test_checkpoints_are_closed_when_a_run_cannot_begin(tiny, tmp_path, monkeypatch, owner, name):
    def fail(*args, **kwargs):
        raise OSError("no more files")

    closed = []
    monkeypatch.setattr(owner, name, fail)
    monkeypatch.setattr(train.Checkpoints, "close", lambda self: closed.append(self))
    with pytest.raises(RunError, match="no more files"):
        jaxrobust.train(tiny(), tmp_path)
    assert len(closed) == 1


def test_one_call_an_epoch_equals_one_call_a_step(tiny, tmp_path):
    ends = [jaxrobust.train(tiny(train__loop=loop), tmp_path / loop) for loop in ("epoch", "step")]
    a, b = (params_of(tmp_path / loop) for loop in ("epoch", "step"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)
    assert ends[0]["last"]["accuracy"] == pytest.approx(ends[1]["last"]["accuracy"], abs=0.01)


def test_streamed_data_give_the_same_run_as_data_on_the_device(tiny, tmp_path):
    for residency in ("device", "stream"):
        jaxrobust.train(tiny(train__loop="step", data__residency=residency), tmp_path / residency)
    a, b = (params_of(tmp_path / residency) for residency in ("device", "stream"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a, b)
    rows = [read_rows(tmp_path / r / "metrics.jsonl") for r in ("device", "stream")]
    assert rows[0][-1]["test_accuracy"] == rows[1][-1]["test_accuracy"]


def test_selection_never_sees_the_test_data(tiny, tmp_path, monkeypatch):
    """A planted leak would show: with other test labels the same epoch must be selected."""
    config = tiny(train__epochs=6)
    first = jaxrobust.train(config, tmp_path / "a")
    assemble = train.assemble

    def other_test_labels(config, **given):
        made = assemble(config, **given)
        test = made.data.test
        shuffled = np.random.default_rng(0).permutation(test.labels)
        data = made.data._replace(test=test._replace(labels=shuffled))
        return dataclasses.replace(made, data=data)

    monkeypatch.setattr(train, "assemble", other_test_labels)
    second = jaxrobust.train(config, tmp_path / "b")
    assert first["selected"]["epoch"] == second["selected"]["epoch"]
    assert first["selected"]["accuracy"] > 0.5 > second["selected"]["accuracy"]
    assert_same(*(read(tmp_path / run / "checkpoints").arrays["selected"] for run in "ab"))


def test_without_validation_nothing_is_selected(tiny, tmp_path):
    results = jaxrobust.train(tiny(data__validation__fraction=0.0), tmp_path)
    assert results["selection_split"] is None and results["selected"] == results["last"]


def classes_predicted(workdir, x, which):
    np.save(workdir / "x.npy", x)
    path = predict.predict(workdir, workdir / "x.npy", which=which)
    return [line.split(",")[1] for line in path.read_text().splitlines()[1:]]


def test_without_validation_the_last_network_predicts(tiny, tmp_path, capsys):
    config = tiny(
        data__validation__fraction=0.0,
        train__epochs=8,
        data__noise__kind="none",
        data__noise__rate=0.0,
    )
    results = jaxrobust.train(config, tmp_path)
    assert results["last"]["accuracy"] > 0.8
    test = experiment.load_data(config).test
    found = {which: classes_predicted(tmp_path, test.x, which) for which in ("selected", "last")}
    assert found["selected"] == found["last"]
    right = np.mean(np.array(found["selected"], int) == test.labels)
    assert right == pytest.approx(results["last"]["accuracy"], abs=1e-6)
    capsys.readouterr()
    assert main.run(["", "--mode=evaluate", f"--workdir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path.name} (last)" in said and "selected" not in said
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert again == {key: results[key] for key in again} and set(again) == {
        "measured_on",
        "selection_split",
        "selection_metric",
        "last",
        "selected",
    }


def test_before_the_first_evaluated_epoch_the_last_network_counts(tiny, tmp_path, monkeypatch):
    save = train.Checkpoints.save

    def save_then_die(self, *args):
        save(self, *args)
        raise Killed

    monkeypatch.setattr(train.Checkpoints, "save", save_then_die)
    config = tiny(eval__every=2)
    with pytest.raises(Killed):
        jaxrobust.train(config, tmp_path)
    run = predict.open_workdir(tmp_path)[1]
    assert run["place"].epoch == 1 and run["place"].selected_value is None
    assert_same(run["selected"], (run["state"].params, run["state"].batch_stats))
    assert predict.evaluate(tmp_path)["selection_split"] is None
    monkeypatch.setattr(train.Checkpoints, "save", save)
    results = jaxrobust.train(config, tmp_path)
    assert results["selection_split"] == "validation" and results["selected"]["epoch"] in (2, 3)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, tmp_path):
    config = tiny(
        optimizer__learning_rate=1e30,
        optimizer__schedule="step",
        train__epochs=4,
        optimizer__warmup_epochs=2,
        optimizer__warmup_start=1e-3,
    )
    with pytest.raises(RunError, match=r"not finite at step \d+ \(epoch [23]\)") as error:
        jaxrobust.train(config, tmp_path)
    assert "optimizer.learning_rate" in str(error.value)
    step = int(str(error.value).split("step ")[1].split()[0])
    kept = predict.open_workdir(tmp_path)[1]["state"]
    assert 0 < int(kept.step) <= step
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.params))


def test_validation_metadata_training_and_test_are_disjoint(tiny):
    data = experiment.load_data(tiny(data__metadata__kind="clean", data__metadata__per_class=5))
    rows = [set(part.index) for part in (data.train, data.metadata, data.validation)]
    assert sum(map(len, rows)) == len(set.union(*rows))
    np.testing.assert_array_equal(np.bincount(data.metadata.labels), np.full(10, 5))
    np.testing.assert_array_equal(data.metadata.labels, data.metadata.true_labels)


def test_another_runs_manifest_gives_the_same_labels(tiny, tmp_path):
    jaxrobust.train(tiny(), tmp_path / "a")
    config = tiny(
        seed=5,
        data__manifest=str(tmp_path / "a" / "noise.npz"),
        data__noise__kind="none",
        data__noise__rate=0.0,
    )
    one, two = experiment.load_data(tiny()), experiment.load_data(config)
    np.testing.assert_array_equal(one.train.labels, two.train.labels)
    np.testing.assert_array_equal(one.train.index, two.train.index)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"train__batch_size": 5000}, r"train.batch_size=5000 exceeds the \d+ training examples"),
        ({"data__name": "digitz"}, "digitz"),
        ({"loss__tau": 2.0}, "Loss 'ce' has no 'tau'"),
        ({"network__name": "vgg19_bn"}, "at least 32 x 32 pixels"),
        (
            {
                "data__labels_file": "nowhere.npy",
                "data__noise__kind": "none",
                "data__noise__rate": 0.0,
            },
            "nowhere.npy",
        ),
        ({"augment__kind": "strong", "augment__cutout": 16}, "Cutout of 16 is larger"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(tiny, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        jaxrobust.train(tiny(**overrides), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("loss", ["dal", "nlnl", "ldam", "ce_sr", "logit_adjusted", "focal"])
def test_losses_that_ask_for_more_get_it(tiny, tmp_path, loss):
    plain = {"loss__scale": 1.0} if loss == "ldam" else {}  # 30 is for logits that are cosines.
    config = tiny(loss__name=loss, train__epochs=4, **plain)
    assert jaxrobust.train(config, tmp_path)["last"]["accuracy"] > 0.2


def test_deferred_reweighting_starts_when_told(tiny, tmp_path):
    settings = {
        "train__epochs": 3,
        "data__imbalance__kind": "exponential",
        "data__imbalance__factor": 0.1,
        "loss__reweight_beta": 0.99,
        "train__batch_size": 64,
    }
    for name, start in (("never", None), ("late", 2)):
        jaxrobust.train(tiny(loss__reweight_from=start, **settings), tmp_path / name)
    never, late = (
        [row["train_loss"] for row in read_rows(tmp_path / name / "metrics.jsonl")]
        for name in ("never", "late")
    )
    np.testing.assert_allclose(never[:2], late[:2], rtol=1e-4)
    assert abs(never[2] / late[2] - 1) > 0.01


def test_the_examples_are_held_once(tiny):
    made = experiment.assemble(tiny(data__metadata__kind="clean", data__metadata__per_class=3))
    assert made.data.train.x is made.feed.arrays["x"]
    assert len(made.feed.arrays["x"]) == len(made.data.train.labels) + 30
    assert all(isinstance(part.x, jax.Array) for part in (made.data.test, made.data.validation))
    streamed = experiment.assemble(tiny(data__residency="stream"))
    assert "x" not in streamed.feed.arrays and len(streamed.feed.host_x) == 1132


def test_the_dry_run_counts_all_that_lies_on_the_device_and_the_view_as_the_network_sees_it(
    tiny, tmp_path
):
    rng = np.random.default_rng(0)
    said = {}
    for side in (96, 300):  # Both are seen at 224 x 224.
        x = rng.integers(0, 256, (60, side, side, 3), np.uint8)
        np.savez(tmp_path / "d.npz", x=x, y=np.arange(60) % 2)
        config = tiny(
            data__name="npz",
            data__path=str(tmp_path / "d.npz"),
            train__batch_size=8,
            network__width=8,
            data__test_fraction=0.5,
            data__validation__fraction=0.5,
        )
        text = predict.describe(config)
        found = re.search(r"activations: about (\d+) MiB; one step adds about (\d+) MiB", text)
        said[side] = [int(number) for number in found.groups()]
        state = fit.state_shapes(experiment.assemble(config))
        held = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state))
        assert said[side][0] == round((held + x.nbytes) / 2**20)
    assert said[96][1] == said[300][1] > 8 * 224 * 224 * 3 * 4 / 2**20
