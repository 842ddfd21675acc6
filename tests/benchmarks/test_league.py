"""The league: its table, its cells in small, going on where it was stopped, packed images."""

import json

import numpy as np
import pytest

from benchmarks import league
from jaxrobust import config as settings_module
from jaxrobust.errors import UserError

STEPS, BATCH = 3, 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of CIFAR-10's shape, the class a bright row, packed and unpacked; label files."""
    folder = tmp_path_factory.mktemp("cifar10")
    rng = np.random.default_rng(0)
    for split, n in (("train", 600), ("test", 40)):
        labels = np.arange(n) % 10
        x = rng.integers(0, 80, (n, 32, 32, 3), np.uint8)
        x[np.arange(n), 3 * labels] += 150
        league.write_parts(split, x, labels, folder)
        if split == "train":
            for name in {name for one in league.LEAGUES.values() for name in one.labels}:
                wrong = np.where(rng.random(n) < 0.3, rng.integers(0, 10, n), labels)
                np.save(folder / f"{name}.npy", wrong.astype(np.uint8))
    league.unpack(folder, folder / "cifar10.npz")
    return league.Data(labels_dir=str(folder), npz=str(folder / "cifar10.npz"))


def test_images_are_packed_without_loss_in_parts_below_60_mb(tmp_path, monkeypatch):
    assert league.PART * 3 * 32 * 32 + 8 * league.PART < 60e6 and 3 * league.PART >= 50_000
    monkeypatch.setattr(league, "PART", 7)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 20), ("test", 7)):
        arrays[split] = rng.integers(0, 256, (n, 4, 4, 3), np.uint8), np.arange(n)
        paths = league.write_parts(split, *arrays[split], tmp_path)
        assert len(paths) == -(-n // 7)
    league.unpack(tmp_path, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as found:
        for split, suffix in (("train", ""), ("test", "_test")):
            np.testing.assert_array_equal(found[f"x{suffix}"], arrays[split][0])
            np.testing.assert_array_equal(found[f"y{suffix}"], arrays[split][1])
    (tmp_path / "train_1.npz").unlink()
    with pytest.raises(UserError, match="not all there"):
        league.unpack(tmp_path, tmp_path / "all.npz")


def test_every_cell_is_a_valid_configuration_and_its_command_says_the_same(data, tmp_path):
    for name in league.LEAGUES:
        made = list(league.cells(name, seeds=(4,)))
        assert len(made) == len(league.LEAGUES[name].methods) * len(league.LEAGUES[name].labels)
        for cell in made:
            config = league.configuration(cell, data)
            assert config.seed == 4 and config.eval.label_wave
            said = league.overrides(cell, data)[1]
            assert all(value is not None for value in said.values())  # No flag can say None.
            words = league.command(cell, data, tmp_path).split("--config=")[1].split(" --config.")
            assert config.network.name in " ".join(words) or name.startswith("published")
            assert words[0] == league.LEAGUES[name].methods[cell.method].recipe
    assert {"ce", "gce", "dal", "jal_ce", "elr", "elr_ema_mixup", "dynamic_loss", "curvenet"} < set(
        league.LEAGUES["small"].methods
    )


def test_it_goes_on_where_it_was_stopped_and_says_what_it_found(data, tmp_path, capsys):
    more = {"data.subset": 160, "train.epochs": 3, "train.batch_size": 32, "eval.every": 1}
    more |= {"optimizer.milestones": ()}
    only = ("human_worst/ce", "human_worst/elr_ema_mixup")
    assert league.run("small", data, tmp_path, 0.0, (0, 1), only, more) == 4
    assert not list(tmp_path.glob("**/cell.json"))
    # A cell that another call began: one epoch of it is there.
    cell = league.Cell("small", "human_worst", "ce", 0)
    folder = cell.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "seconds.json").write_text("100.0")
    assert league.run("small", data, tmp_path, None, (0, 1), only, more) == 0
    found = json.loads((folder / "cell.json").read_text())
    assert found["command"].startswith("python -m jaxrobust.main --config=cifar10_small:ce ")
    assert found["seconds"] > 100 and found["device"] and found["versions"]["jax"]
    assert found["last"]["epoch"] == 3 and 0 <= found["best_on_test_for_information"]["accuracy"]
    assert "ema" not in found and found["label_wave"]["epoch"] in (2, 3)
    averaged = json.loads((tmp_path / "small/human_worst/elr_ema_mixup/1/cell.json").read_text())
    assert averaged["ema"]["epoch"] == 3
    text = league.table("small", tmp_path)
    lines = [line for line in text.splitlines() if line.startswith("| human_worst")]
    assert len(lines) == 2 and "`ce`" in lines[0] and " ± " in lines[0] and "68.3 [1]" in lines[0]
    assert text.splitlines()[-2].startswith("[1] ")
    before = (folder / "cell.json").stat().st_mtime_ns
    assert league.main(["table", f"--out={tmp_path}"]) == 0
    assert "human_worst" in capsys.readouterr().out
    assert (folder / "cell.json").stat().st_mtime_ns == before


def test_own_data_and_settings_are_named_on_the_command_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 3
    x = rng.normal(size=(200, 6)).astype(np.float32) + 4 * np.eye(3, 6)[y].astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    words = ["data.name=npz", f"data.path={tmp_path}/own.npz", "network.name=mlp"]
    words += ["augment.kind=none", "train.epochs=6", "method.consistency_from=3"]
    command = ["run", "--league=own", f"--out={tmp_path}", "--seeds=0", "--only=ce,elr_ema_mixup"]
    command += [part for word in words for part in ("--set", word)]
    assert league.main(command) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith("| given | `")]
    assert len(rows) == 2 and all(float(row.split("|")[4]) > 80 for row in rows)
    found = json.loads((tmp_path / "own/given/ce/0/cell.json").read_text())
    assert found["selected"]["epoch"] >= 1 and "--config.network.name=mlp" in found["command"]
    assert league.main(["run", "--league=own", "--set", "nonsense"]) == 2
    assert "--set nonsense: expected name=value" in capsys.readouterr().err


def test_time_that_is_up_within_a_run_leaves_a_checkpoint(data, tmp_path, monkeypatch):
    """The alarm is a SIGTERM to this very process, which the run hears after its step."""
    from jaxrobust.runs import train

    saved, save = [], train.Checkpoints.save

    def save_and_tell(self, *args):
        save(self, *args)
        saved.append(args[0])

    monkeypatch.setattr(train.Checkpoints, "save", save_and_tell)
    more = {"data.subset": 160, "train.epochs": 4000, "train.batch_size": 32, "eval.every": 4000}
    left = league.run("small", data, tmp_path, 0.3, (0,), ("human_worst/ce",), more)
    assert left == 1 and saved
    folder = league.Cell("small", "human_worst", "ce", 0).folder(tmp_path)
    assert not (folder / "cell.json").exists()
    assert json.loads((folder / "seconds.json").read_text()) > 1


PUBLISHED = [
    next(c for c in league.cells(name, seeds=(0,)) if c.method == method)
    for name in ("published", "published_tail", "published_curvenet")
    for method in league.LEAGUES[name].methods
]


@pytest.mark.parametrize("cell", PUBLISHED, ids=lambda c: f"{c.league}-{c.method}")
def test_three_steps_of_a_published_cell_run(data, tmp_path, cell):
    """The recipe's own network, views and stages; smaller batches, and few of them."""
    config = league.configuration(cell, data)
    more = league.shortened(config, STEPS, BATCH)
    only = (f"{cell.labels}/{cell.method}",)
    assert league.run(cell.league, data, tmp_path, None, (0,), only, more) == 0
    found = json.loads((cell.folder(tmp_path) / "cell.json").read_text())
    assert 0 <= found["last"]["accuracy"] <= 1 and found["seconds"] > 0
    kept = settings_module.load(str(cell.folder(tmp_path) / "run" / "config.json"))
    assert kept.network.name == config.network.name and kept.method.name == config.method.name
    assert f"`{cell.method}`" in league.table(cell.league, tmp_path)


def test_a_missing_label_file_is_one_line(data, tmp_path, capsys):
    none = [f"--npz={data.npz}", "--labels_dir=nowhere", f"--out={tmp_path}", "--only=ce"]
    assert league.main(["run", *none]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "nowhere/human_worst.npy" in said[0]
