"""The dynamic loss as a method: what each stage does, and what it leaves alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import train_until_killed

import jaxrobust
from jaxrobust import config
from jaxrobust.errors import UserError
from jaxrobust.methods import dynamic_loss_steps, metadata
from jaxrobust.runs import build_method, predict, results
from jaxrobust.training import loop
from jaxrobust.training.metrics_log import read_rows


def phi(made):
    return jax.device_get(made.state.meta_params)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_warm_up_fits_the_corrector_and_leaves_the_margins(small):
    made = small()
    before = phi(made)
    first = made.epoch()
    second = made.epoch()
    assert not same(before["corrector"], phi(made)["corrector"])
    assert same(before["margin"], phi(made)["margin"])
    assert second["train_fitting_loss"] < first["train_fitting_loss"]
    assert second["train_loss"] < first["train_loss"]


def test_fitting_ends_after_its_steps(small):
    made = small(fit_steps=4)  # An epoch has four steps.
    made.epoch()
    after_one = phi(made)
    made.epoch()
    assert same(after_one, phi(made))


def test_every_later_epoch_learns_both_parts_and_fine_tunes(small):
    made = small()
    for _ in range(2):
        made.epoch()
    before = phi(made)
    row = made.epoch()
    assert not same(before["corrector"], phi(made)["corrector"])
    assert not same(before["margin"], phi(made)["margin"])
    assert row["train_meta_grad_norm"] > 0 and row["fine_tune_train_loss"] > 0
    assert 0 < row["train_effective_sample_size"] <= 1


def test_with_a_meta_learning_rate_of_zero_nothing_is_learned(small):
    made = small(meta_lr=0.0)
    before = phi(made)
    for _ in range(4):
        made.epoch()
    assert same(before, phi(made))


def test_metadata_are_balanced_disjoint_from_the_train_part_and_drawn_anew(small):
    made = small()
    for _ in range(3):
        made.epoch()
    first = np.asarray(made.state.memory["meta_rows"])
    rest = np.asarray(made.state.memory["train_rows"])
    assert sorted([*first, *rest]) == list(range(60))
    np.testing.assert_array_equal(np.bincount(made.labels[first]), [5, 5, 5])
    made.epoch()
    assert set(first) != set(np.asarray(made.state.memory["meta_rows"]))


def test_ranks_are_refreshed_every_epoch(small):
    made = small()
    made.epoch()
    first = np.asarray(made.state.memory["rank"])
    assert first.min() == 0 and first.max() == 9  # floor(19 * 10 / 21)
    made.epoch()
    assert (first != np.asarray(made.state.memory["rank"])).any()


def test_steps_an_epoch_are_what_the_schedule_is_told(small):
    made = small()
    stages = dynamic_loss_steps(
        60, np.array([20, 20, 20]), batch_size=16, epochs=4, warmup_epochs=2
    )
    ends = []
    for _ in range(4):
        made.epoch()
        ends.append(int(made.state.step))
    expected = np.cumsum([steps for epochs, steps in stages for _ in range(epochs)])
    np.testing.assert_array_equal(ends, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"corrector": False},
        {"margin": False},
        {"shared_weight": True},
        {"fine_tune": False},
        {"mixup_alpha": 0.5},
        {"meta_every": 2},
        {"skip": 1},
        {"steps": 2},
        {"mode": "finite_difference"},
    ],
    ids=str,
)
def test_every_option_runs_and_learns_to_classify(small, options):
    made = small(**options)
    for _ in range(4):
        row = made.epoch()
    assert row["train_accuracy"] > 0.8
    report = made.method.report(made.state)
    assert report["rank_weights"].shape == (10, 3) and report["margins"].shape == (3,)


def test_meta_every_skips_epochs(small):
    made = small(meta_every=2)
    norms, moved = [], []
    for _ in range(4):
        before = phi(made)
        norms.append(made.epoch().get("train_meta_grad_norm"))
        moved.append(not same(before["margin"], phi(made)["margin"]))
    assert norms[2] > 0 and norms[3] == 0
    assert moved == [False, False, True, False]


def test_one_call_an_epoch_equals_one_call_a_step(small):
    ends = []
    for kind in ("epoch", "step"):
        made = small(loop=kind)
        for _ in range(4):
            made.epoch()
        ends.append(jax.device_get((made.state.params, made.state.meta_params)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4), *ends)


def test_a_class_too_small_for_metadata_is_named():
    with pytest.raises(UserError, match="smallest given class has 3 examples"):
        dynamic_loss_steps(43, np.array([20, 20, 3]), batch_size=8, epochs=4)


@pytest.fixture(scope="module")
def tiny():
    made = config.load("digits_dynamic_loss")
    made.network.name, made.network.width = "mlp", 16
    made.train.epochs, made.method.warmup_epochs, made.train.batch_size = 4, 2, 128
    made.data.noise.kind, made.data.noise.rate = "symmetric", 0.4
    made.data.imbalance.kind, made.data.imbalance.factor = "none", 1.0
    made.log.tensorboard, made.log.figures_every = False, 3
    made.checkpoint.every_seconds = 0.0
    return made


def test_a_run_shows_what_it_learned(tiny, tmp_path, monkeypatch):
    draw, drawn = results.draw_learned, []

    def draws(experiment, workdir):
        draw(experiment, workdir)
        drawn.append(len(read_rows(workdir / "metrics.jsonl")))

    monkeypatch.setattr(results, "draw_learned", draws)
    jaxrobust.train(tiny, tmp_path)
    assert drawn == [3, 4]  # After the epochs that are drawn, and at the end.
    figures = {
        str(p.relative_to(tmp_path / "figures")) for p in (tmp_path / "figures").rglob("*.png")
    }
    assert {
        "weight_by_rank.png",
        "margins.png",
        "learned.png",
        "epochs/0003_margins.png",
        "epochs/0003_weight_by_rank.png",
    } <= figures
    row = read_rows(tmp_path / "metrics.jsonl")[-1]
    for name in (
        "corrected_accuracy_clean",
        "corrected_accuracy_wrong",
        "metadata_clean_share",
        "weight_auroc",
    ):
        assert 0 <= row[name] <= 1
    assert row["metadata_clean_share"] > 0.64  # Better than the data, 36 % of which is wrong.
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["method"] == "dynamic_loss"
    assert {"corrector", "dynamics"} <= set(written["audit"]["sources"])


@pytest.fixture(scope="module")
def by_step(tiny, tmp_path_factory):
    """The configuration with a checkpoint after every step, and its undisturbed run."""
    made = config.from_mapping(json.loads(config.to_json(tiny)))
    made.train.loop, made.checkpoint.every_steps = "step", 1
    made.train.batch_size, made.train.epochs, made.method.warmup_epochs = 512, 3, 1
    made.log.figures = False
    folder = tmp_path_factory.mktemp("whole")
    return made, jaxrobust.train(made, folder), read_rows(folder / "metrics.jsonl"), folder


@pytest.mark.parametrize(
    "after, stage",
    [
        pytest.param(1, "warm-up", marks=pytest.mark.slow),
        (5, "look-ahead"),
        pytest.param(7, "fine-tuning", marks=pytest.mark.slow),
    ],
)
def test_killed_within_any_stage_it_ends_the_same(by_step, tmp_path, after, stage):
    made, whole, rows, folder = by_step
    saved = train_until_killed(made, tmp_path, after)
    last = saved[-1]
    assert {"warm-up": (0, 0), "look-ahead": (1, 0), "fine-tuning": (1, 1)}[stage] == (
        last["epoch"],
        last["pass_index"],
    ) and last["position"] > 0
    assert jaxrobust.train(made, tmp_path)["last"] == whole["last"]
    assert read_rows(tmp_path / "metrics.jsonl") == rows
    states = (predict.open_workdir(f)[1]["state"] for f in (tmp_path, folder))
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, states))


def test_an_epoch_is_read_back_when_all_its_passes_have_been_sent_off(small, monkeypatch):
    made, events = small(), []
    made.epoch(), made.epoch()

    def watch(target, name):
        call = getattr(target, name)

        def seen(*args):
            events.append(name)
            return call(*args)

        monkeypatch.setattr(target, name, seen)

    watch(loop.Runner, "_pass")
    watch(loop, "bad_step")
    watch(loop, "means")
    row = made.epoch()
    assert events[:2] == ["_pass", "_pass"] and "_pass" not in events[2:]
    assert row["train_loss"] > 0 and row["fine_tune_train_loss"] > 0


@pytest.mark.parametrize("kind", ["epoch", "step"])
def test_nothing_is_read_back_within_a_pass(small, monkeypatch, kind):
    """Neither by preparing it, nor step by step: an array's value is not asked for."""
    made = small(loop=kind)
    made.epoch(), made.epoch(), made.epoch()
    array, read, rows = type(jnp.zeros(())), [], []
    value = array._value

    def reading(self):
        read.append(self.shape)
        return value.fget(self)

    row_of = loop.Runner._row

    def row(self, *args):
        rows.append(list(read))
        return row_of(self, *args)

    monkeypatch.setattr(array, "_value", property(reading))
    monkeypatch.setattr(loop.Runner, "_row", row)
    made.epoch()
    assert rows == [[]] and len(read) > 0  # The numbers of the epoch, after its passes.


@pytest.mark.parametrize("repeat, expected", [(True, 64), (False, 18)])
def test_a_meta_batch_is_at_most_the_meta_set_where_nothing_is_repeated(repeat, expected):
    """Three classes of 24: 12 candidates each, of which 6 are kept."""
    made = config.default_config()
    made.method.repeat_metadata = repeat
    made.train.batch_size = 64
    size = metadata.sizes(np.array([24, 24, 24]), metadata.Sampling())[1]
    assert build_method._meta_batch_size(made, size) == expected
