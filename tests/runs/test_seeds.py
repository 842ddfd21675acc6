"""Several seeds of a run: each is the run of that seed alone, with the same data."""

import json

import jax
import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust.errors import UserError
from jaxrobust.runs import results, seeds
from jaxrobust.training.checkpoints import read
from jaxrobust.training.metrics_log import Log, read_rows

SMALL = {
    "network.name": "mlp",
    "train.epochs": 3,
    "train.batch_size": 64,
    "log.tensorboard": False,
    "log.figures": False,
    "data.subset": 300,
    "data.noise.kind": "symmetric",
    "data.noise.rate": 0.3,
    "checkpoint.every_seconds": 0.0,
}


def config_of(recipe="digits_dal", **settings):
    config = configuration.load(recipe)
    return configuration.override(config, SMALL | settings)


def several(recipe="digits_dal", **settings):
    return config_of(recipe, **({"train.seeds": (4, 7, 2)} | settings))


def alone(recipe="digits_dal", seed=7, **settings):
    return config_of(recipe, **{"seed": seed, "data.seed": 4}, **settings)


def state_in(workdir):
    return read(workdir / "checkpoints").arrays["state"]


def assert_same_training(a, b):
    def close(x, y):
        # The same numbers but for the order of sums, which three epochs of steps magnify.
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

    jax.tree.map(close, state_in(a), state_in(b))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    outcome = jaxrobust.train(several(), folder / "all")
    jaxrobust.train(alone(), folder / "alone")
    return folder, outcome


def test_each_seed_is_the_run_of_that_seed_alone(trained):
    folder, outcome = trained
    assert_same_training(folder / "all" / "seed_7", folder / "alone")
    own, single = (results.load(folder / name) for name in ("all/seed_7", "alone"))
    assert own["noise"] == single["noise"] and own["last"]["epoch"] == single["last"]["epoch"]
    for key in ("accuracy", "balanced_accuracy"):
        assert own["last"][key] == pytest.approx(single["last"][key], abs=0.01)
    losses = [
        [row["train_loss"] for row in read_rows(folder / name / "metrics.jsonl")]
        for name in ("all/seed_7", "all/seed_2", "alone")
    ]
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-4)
    assert abs(losses[1][0] - losses[2][0]) > 1e-4  # another seed is another training
    assert [row["seed"] for row in outcome["runs"]] == [4, 7, 2] and outcome["data_seed"] == 4


def test_results_hold_mean_and_deviation_of_the_rows(trained):
    folder, outcome = trained
    values = [row["last"]["accuracy"] for row in outcome["runs"]]
    assert outcome["last"]["accuracy"] == pytest.approx(np.mean(values))
    assert outcome["deviation"]["last"]["accuracy"] == pytest.approx(np.std(values, ddof=1))
    assert json.loads((folder / "all" / "results.json").read_text())["runs"] == outcome["runs"]
    text = results.table({"all": outcome})
    assert "mean ± deviation" in text and "all/seed_7 (last)" in text and " ± " in text


def test_the_folder_of_a_seed_is_a_finished_run(trained):
    folder, _ = trained
    own = folder / "all" / "seed_2"
    assert jaxrobust.train(alone(seed=2), own) == results.load(own)
    images = np.zeros((3, 8, 8, 1), np.uint8)
    assert jaxrobust.load(own).predict_proba(images).shape == (3, 10)
    with pytest.raises(UserError, match="a run per seed: load one of them, such as .*seed_4"):
        jaxrobust.load(folder / "all")
    with pytest.raises(UserError, match="another configuration: train.seeds"):
        jaxrobust.train(several(**{"train.seeds": (1, 2)}), folder / "all")


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(trained, tmp_path, monkeypatch):
    folder, _ = trained
    write, written = Log.write, []

    def stopped(self, row):
        written.append(row)
        if len(written) == 5:  # in the second epoch, between the seeds
            raise KeyboardInterrupt
        write(self, row)

    monkeypatch.setattr(Log, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        jaxrobust.train(several(), tmp_path / "all")
    monkeypatch.undo()
    outcome = jaxrobust.train(several(), tmp_path / "all")
    before = results.load(folder / "all")
    assert outcome["runs"] == before["runs"] and outcome["deviation"] == before["deviation"]
    for seed in (4, 7, 2):
        a, b = (state_in(f / "all" / f"seed_{seed}") for f in (tmp_path, folder))
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["digits_dynamic_loss", "digits_curvenet"])
def test_learned_methods_train_several_seeds(recipe, tmp_path):
    settings = {"method.warmup_epochs": 1, "method.probe_epochs": 2, "optimizer.milestones": ()}
    jaxrobust.train(several(recipe, **settings), tmp_path / "all")
    jaxrobust.train(alone(recipe, **settings), tmp_path / "alone")
    own, single = (
        [row["train_loss"] for row in read_rows(tmp_path / name / "metrics.jsonl")]
        for name in ("all/seed_7", "alone")
    )
    np.testing.assert_allclose(own, single, rtol=1e-3)


def test_seeds_that_take_turns_are_their_single_runs_to_the_bit(tmp_path, monkeypatch):
    settings = {"train.epochs": 1, "train.seeds": (4, 7)}
    monkeypatch.setattr(seeds, "together", lambda experiment: False)
    jaxrobust.train(several(**settings), tmp_path / "all")
    jaxrobust.train(alone(**{"train.epochs": 1}), tmp_path / "alone")
    a, b = state_in(tmp_path / "all" / "seed_7"), state_in(tmp_path / "alone")
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_method_without_seeds_says_so(tmp_path):
    config = config_of("digits_dal", **{"method.name": "blend", "train.seeds": (0, 1)})
    with pytest.raises(UserError, match="blend has no seeds"):
        jaxrobust.train(config, tmp_path / "run")
    with pytest.raises(UserError, match="train.seeds=.*different whole numbers"):
        configuration.validate(several(**{"train.seeds": (1, 1)}))
