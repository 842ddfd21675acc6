"""Sweeps: a grid in one process, resumed, summed up in one table."""

import csv
import json
import shutil

import pytest

from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.errors import UserError
from jaxrobust.runs import sweep, sweep_table
from jaxrobust.training import programs

SWEEP = """
def get_sweep():
    return {
        "methods": {"ce": "digits_ce", "gce": "digits_losses:gce"},
        "noise": [{"kind": "symmetric", "rate": 0.4}],
        "imbalance": [{"kind": "none"}],
        "seeds": [0, 1, 2],
        "settings": {"log.figures": False, "log.tensorboard": False, "network.name": "mlp",
                     "network.width": 16, "train.epochs": 9},
    }
"""
TWO_EPOCHS = "--config.train.epochs=2"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep: its folder, and how many programs each run compiled."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.py").write_text(SWEEP)
    counts, train = [], sweep.train

    def counting(config, workdir):
        before = programs.compiled()
        results = train(config, workdir)
        counts.append(programs.compiled() - before)
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "train", counting)
        patch.setattr(programs, "_PROGRAMS", type(programs._PROGRAMS)())
        arguments = [f"--sweep={folder}/grid.py", f"--workdir={folder}/w", TWO_EPOCHS]
        assert main.run(["main", *arguments]) == 0
    return folder, arguments, counts


def test_every_run_of_a_grid_has_its_own_noise_and_imbalance(tmp_path):
    text = SWEEP.replace(
        '[{"kind": "none"}]', '[{"kind": "none"}, {"kind": "exponential", "factor": 0.1}]'
    )
    text = text.replace('"rate": 0.4}]', '"rate": 0.4}, {"kind": "pair_flip", "rate": 0.2}]')
    (tmp_path / "s.py").write_text(text)
    found = sweep.runs(sweep.load(str(tmp_path / "s.py")), {"train.epochs": 2})
    assert len(found) == len({r.name for r in found}) == 2 * 2 * 2 * 3
    expected = [
        (method, noise, imbalance, seed)
        for noise in (("symmetric", 0.4), ("pair_flip", 0.2))
        for imbalance in (("none", 1.0), ("exponential", 0.1))
        for method in ("ce", "gce")
        for seed in range(3)
    ]
    for run, (method, noise, imbalance, seed) in zip(found, expected, strict=True):
        d = run.config.data
        assert (d.noise.kind, d.noise.rate) == noise
        assert (d.imbalance.kind, d.imbalance.factor) == imbalance
        assert run.config.loss.name == run.method == method and run.config.seed == run.seed == seed
        assert run.noise == f"{noise[0]}{noise[1]}"
        assert run.name.startswith(f"{method}-{run.noise}-{imbalance[0]}")
        assert run.config.train.epochs == 2 and run.config.network.width == 16


@pytest.mark.parametrize(
    "methods, lines", [('"gce": "digits_losses:gce"', 1), ('"plain": "digits_losses:ce"', 0)]
)
def test_a_grid_without_cross_entropy_says_that_there_is_nothing_to_compare_with(
    tmp_path, capsys, methods, lines
):
    text = SWEEP.replace('"ce": "digits_ce", "gce": "digits_losses:gce"', methods)
    (tmp_path / "s.py").write_text(text)
    arguments = [f"--sweep={tmp_path}/s.py", f"--workdir={tmp_path}/w", "--dry_run"]
    assert main.run(["main", *arguments]) == 0
    assert capsys.readouterr().err.count("No method of this sweep is plain cross-entropy") == lines


def test_seeds_after_the_first_compile_nothing(finished):
    _, _, counts = finished
    assert counts[0] > 2 and counts[3] > 0
    assert counts[1:3] == counts[4:] == [0, 0]


def test_the_table_is_mean_and_deviation_of_the_runs(finished):
    folder, _, _ = finished
    with (folder / "w" / "sweep.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["ce", "gce"]
    for method, row in rows.items():
        values = []
        for seed in range(3):
            name = f"{method}-symmetric0.4-none-seed{seed}"
            results = json.loads((folder / "w" / name / "results.json").read_text())
            assert (results["seed"], results["epochs"]) == (seed, 2)
            values.append(results["selected"]["balanced_accuracy"])
        mean = sum(values) / 3
        deviation = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
        assert float(row["selected_balanced_accuracy"]) == pytest.approx(mean)
        assert float(row["selected_balanced_accuracy_deviation"]) == pytest.approx(deviation)
        assert row["seeds"] == "3" and row["noise"] == "symmetric0.4"
        line = f"{100 * mean:.1f} ± {100 * deviation:.1f}"
        assert line in (folder / "w" / "sweep.md").read_text()
    assert (folder / "w" / "sweep.png").stat().st_size > 10_000


def test_the_same_command_runs_only_what_is_left(finished, capsys, monkeypatch):
    folder, arguments, _ = finished
    table = (folder / "w" / "sweep.csv").read_bytes()
    killed = folder / "w" / "gce-symmetric0.4-none-seed1"
    (killed / "results.json").unlink()
    shutil.rmtree(folder / "w" / "ce-symmetric0.4-none-seed0")
    capsys.readouterr()
    assert main.run(["main", *arguments, "--dry_run"]) == 0
    said = capsys.readouterr()
    assert "6 runs, 4 of them finished." in said.err and f"todo  {killed}" in said.out
    assert main.run(["main", *arguments]) == 0
    said = capsys.readouterr().err
    assert "Run 2 of 2" in said and f"Resuming {killed}" in said
    assert (folder / "w" / "sweep.csv").read_bytes() == table
    assert main.run(["main", arguments[0], arguments[1]]) == 2
    assert "train.epochs: 2 -> 9" in capsys.readouterr().err


def test_a_run_that_fails_does_not_stop_the_others(finished, capsys, monkeypatch):
    folder, arguments, _ = finished
    results = folder / "w" / "ce-symmetric0.4-none-seed2" / "results.json"
    kept = results.read_text()
    results.unlink()

    def fails(config, workdir):
        raise sweep.RunError("The loss was not finite at step 3.")

    monkeypatch.setattr(sweep, "train", fails)
    assert main.run(["main", *arguments]) == 1
    said = capsys.readouterr()
    assert "failed: ce-symmetric0.4-none-seed2: The loss was not finite" in said.err
    assert "| symmetric0.4 | none | ce | 2 |" in said.out
    results.write_text(kept)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('"noise"', '"nosie"', "Did you mean 'noise'?"),
        (
            '"rate": 0.4',
            '"rat": 0.4',
            "No setting 'data.noise.rat'. Did you mean 'data.noise.rate'?",
        ),
        ('"rate": 0.4', '"rate": 4.0', "data.noise.rate=4.0: must be in [0, 1)"),
        ("digits_ce", "digits_c", "No configuration 'digits_c'"),
        ("[0, 1, 2]", "[]", "'seeds' must be a list that is not empty"),
        ("[0, 1, 2]", "[0, 0]", "two runs would be called ['ce-symmetric0.4-none-seed0']"),
        ("[0, 1, 2]", '["a"]', "seed='a': expected int"),
        ("[0, 1, 2]", "1 / 0", "ZeroDivisionError"),
        ("get_sweep", "get_swep", "defines no get_sweep()"),
        ("get_sweep()", "get_sweep(size)", "TypeError"),
    ],
)
def test_a_wrong_sweep_is_one_line_and_exit_code_2(tmp_path, capsys, old, new, message):
    (tmp_path / "s.py").write_text(SWEEP.replace(old, new))
    assert main.run(["main", f"--sweep={tmp_path}/s.py", f"--workdir={tmp_path}/w"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said
    assert not (tmp_path / "w").exists()


def test_wrong_use_of_the_command(capsys, tmp_path):
    for arguments, message in [
        (["--sweep=nowhere.py", "--workdir=w"], "no such file"),
        (["--sweep=nowhere.py"], "Name a folder"),
        (["--sweep=s.py", "--config=digits_ce", "--workdir=w"], "or a --sweep"),
    ]:
        assert main.run(["main", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_recipes_of_sweeps_are_valid():
    files = sorted(configuration.recipes_folder().glob("sweeps/*.py"))
    assert files
    for file in files:
        found = sweep.runs(sweep.load(file.stem))
        assert any(
            r.config.method.name == "supervised" and r.config.loss.name == "ce" for r in found
        )
    with pytest.raises(UserError, match="must be a dictionary"):
        sweep.runs(sweep.load(str(files[0])) | {"noise": ["symmetric"]})


def test_numbers_that_are_missing_stay_missing():
    run = sweep.Run(
        name="a",
        method="ce",
        noise="none",
        imbalance="none",
        seed=0,
        config=configuration.default_config(),
    )
    row = sweep_table.summarize([run], {"a": None})[0]
    assert row["seeds"] == 0 and row["last_accuracy"] is None
    assert sweep_table.markdown([row]).count("–") == len(sweep_table.COLUMNS)
