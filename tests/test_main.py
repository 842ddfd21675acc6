"""The program as a user runs it: other processes, real signals, real files."""

import csv
import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import child, environment, run_main

from jaxrobust.runs import predict as inference
from jaxrobust.training.metrics_log import read_rows

TINY = [
    "--config=digits_losses:dal",
    "--config.network.name=mlp",
    "--config.network.width=32",
    "--config.data.noise.kind=symmetric",
    "--config.data.noise.rate=0.4",
    "--config.train.batch_size=128",
    "--config.log.figures=False",
    "--config.log.tensorboard=False",
    "--config.checkpoint.every_seconds=0",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, with what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = child(
        "-m",
        "jaxrobust.main",
        *TINY,
        "--config.train.epochs=15",
        f"--workdir={folder}/run",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_a_run_prints_its_table_and_where_things_are(trained):
    workdir, done = trained
    assert "memorised" in done.stdout and "run (last)" in done.stdout
    assert f"Wrote {workdir}/results.json" in done.stdout
    assert "dal epoch 15/15" in done.stderr


def test_the_same_command_again_says_that_it_is_finished(trained, program):
    workdir, done = trained
    again = program(*TINY, "--config.train.epochs=15", f"--workdir={workdir}")
    assert again.returncode == 0 and "is finished already" in again.stdout
    table = done.stdout.split("Wrote")[0].strip()
    assert table in again.stdout


def test_the_written_config_is_a_config_and_another_one_is_refused(trained, program):
    workdir, _ = trained
    other = program(f"--config={workdir}/config.json", "--config.seed=1", f"--workdir={workdir}")
    assert other.returncode == 2
    assert other.stderr.count("\n") == 1 and "seed: 0 -> 1" in other.stderr


def test_evaluate_finds_what_training_found(trained, program):
    workdir, _ = trained
    done = program("--mode=evaluate", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    found = json.loads((workdir / "evaluation.json").read_text())
    results = json.loads((workdir / "results.json").read_text())
    for which in ("last", "selected"):
        assert found[which]["accuracy"] == results[which]["accuracy"]


def test_predict_writes_names_and_probabilities(trained, program, tmp_path):
    from sklearn.datasets import load_digits

    workdir, _ = trained
    digits = load_digits()
    x = np.round(digits.images[:50] * 255 / 16).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    done = program("--mode=predict", f"--workdir={workdir}", "--input=x.npy", "--output=p.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    right = np.mean(
        [int(r["predicted_label"]) == y for r, y in zip(rows, digits.target, strict=False)]
    )
    assert right > 0.5
    total = [sum(float(r[str(k)]) for k in range(10)) for r in rows]
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mode=predict", "--input=nothing.npy"], "no such file"),
        (["--mode=predict"], "--input"),
        (["--mode=evaluate", "--workdir=nowhere"], "holds no run"),
    ],
)
def test_wrong_use_of_a_workdir_is_one_line(trained, program, arguments, message):
    workdir, _ = trained
    done = program(f"--workdir={workdir}", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_compare_puts_runs_side_by_side(trained, program):
    workdir, _ = trained
    done = program(workdir, workdir, module="jaxrobust.compare")
    assert done.returncode == 0 and "memorised" in done.stdout
    assert done.stdout.split("Wrote")[0] == (workdir.parent / "comparison.txt").read_text()
    assert (workdir.parent / "comparison.png").stat().st_size > 10_000
    missing = program("nowhere", module="jaxrobust.compare")
    assert missing.returncode == 2 and "no finished run" in missing.stderr


def test_a_dry_run_tells_sizes_and_writes_nothing(program, tmp_path):
    done = program(*TINY, "--dry_run", "--workdir=w")
    assert done.returncode == 0, done.stderr
    assert '"rate": 0.4' not in done.stdout and len(done.stdout.splitlines()) <= 10
    done = program(*TINY, "--dry_run", "--verbose", "--workdir=w")
    for text in (
        '"rate": 0.4',
        "train 1132",
        "test 539",
        "requested rate 0.400, realized 0.3",
        "3,466 parameters",
        "MiB",
        "Nothing was trained or written",
    ):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


def start(folder, *arguments, recipe=TINY):
    """Starts a long run in the background."""
    command = [sys.executable, "-m", "jaxrobust.main", *recipe, *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def finish(process):
    """Waits for a run to end as it should; returns what it said."""
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def wait_for_epoch(workdir, epoch, process):
    for _ in range(6000):
        rows = read_rows(workdir / "metrics.jsonl")
        if rows and rows[-1]["epoch"] >= epoch:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")


LONG = "--config.train.epochs=16"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same long run, never disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_main(*TINY, LONG, "--workdir=w", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "w"


def assert_same_run(a, b):
    """All that two runs leave is the same, bit for bit: but for how long they took."""
    first, second = (json.loads((w / "results.json").read_text()) for w in (a, b))
    assert first | {"seconds": None} == second | {"seconds": None}
    assert read_rows(a / "metrics.jsonl") == read_rows(b / "metrics.jsonl")
    issues = [(w / "label_issues.csv").read_text() for w in (a, b)]
    assert issues[0] == issues[1]
    names = sorted(path.name for path in a.glob("*.npz"))
    assert names == sorted(path.name for path in b.glob("*.npz"))
    for name in names:
        with np.load(a / name) as mine, np.load(b / name) as theirs:
            assert set(mine) == set(theirs), name
            for key in mine:
                np.testing.assert_array_equal(mine[key], theirs[key], f"{name}: {key}")
    last = [inference.open_workdir(w)[1] for w in (a, b)]
    last = [jax.device_get((run["state"], run["selected"])) for run in last]
    jax.tree.map(np.testing.assert_array_equal, *last)


@pytest.mark.parametrize(
    "number, code",
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
    ],
)
def test_a_run_that_is_stopped_goes_on_where_it_was(whole, tmp_path, number, code):
    process = start(tmp_path, LONG, "--workdir=w")
    wait_for_epoch(tmp_path / "w", 3, process)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == code
    assert not (tmp_path / "w" / "results.json").exists()
    if number != signal.SIGKILL:
        assert "saving a checkpoint" in said and "Run the same command again" in said
        assert "Traceback" not in said
    assert "Resuming" in finish(start(tmp_path, LONG, "--workdir=w"))
    assert_same_run(whole, tmp_path / "w")


CURVENET = [
    "--config=digits_curvenet",
    *TINY[1:],
    "--config.train.batch_size=64",
    "--config.train.loop=step",
    "--config.checkpoint.every_steps=4",
    "--config.checkpoint.every_seconds=1000",
    "--config.method.probe_epochs=5",
    "--config.method.meta_batch_size=32",
    "--config.optimizer.milestones=(4,)",
    "--config.train.epochs=5",
    "--workdir=w",
]


@pytest.mark.slow
def test_curvenet_killed_in_its_probe_and_in_its_allocation_goes_on_where_it_was(tmp_path):
    (tmp_path / "whole").mkdir()
    done = run_main(*CURVENET, folder=tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    curves = tmp_path / "w" / "curves.npz"  # Written when the probe ends.
    for epoch, resuming, probed in ((2, False, False), (7, True, True)):
        process = start(tmp_path, recipe=CURVENET)
        wait_for_epoch(tmp_path / "w", epoch, process)
        process.kill()
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert ("Resuming" in said) == resuming and curves.exists() == probed
    assert "Resuming" in finish(start(tmp_path, recipe=CURVENET))
    assert_same_run(tmp_path / "whole" / "w", tmp_path / "w")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, tmp_path):
    process = start(tmp_path, LONG, "--workdir=w")
    wait_for_epoch(tmp_path / "w", 4, process)
    process.kill()
    process.communicate()
    folder = tmp_path / "w" / "checkpoints"
    steps = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    for file in (folder / str(steps[-1])).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    said = finish(start(tmp_path, LONG, "--workdir=w"))
    assert f"Checkpoint {steps[-1]} is damaged" in said
    assert_same_run(whole, tmp_path / "w")


def test_a_loss_that_is_not_finite_exits_with_1(program):
    done = program(
        "--config=digits_losses:ce",
        "--config.network.name=mlp",
        "--workdir=w",
        "--config.optimizer.learning_rate=1e30",
        "--config.log.figures=False",
    )
    assert done.returncode == 1
    assert "not finite at step" in done.stderr and "Traceback" not in done.stderr


def test_no_tensorflow_in_a_whole_training_run(tmp_path):
    code = f"""
import sys
from jaxrobust import main
assert main.run(["main", *{TINY!r}, "--config.train.epochs=1", "--workdir=w",
                 "--config.log.tensorboard=True", "--config.log.figures=True"]) == 0
found = sorted(m for m in sys.modules if m.split(".")[0] in ("tensorflow", "torch"))
assert not found, found
"""
    done = child("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
