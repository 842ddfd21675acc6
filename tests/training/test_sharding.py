"""Several devices give what one gives; several processes train, save and resume together."""

import json
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from four_devices import RUN
from helpers import environment, run_main

from jaxrobust.errors import UserError
from jaxrobust.training import sharding
from jaxrobust.training.metrics_log import read_rows


def run(folder, *arguments):
    done = run_main(*RUN, *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def losses_of(workdir):
    return [row["train_loss"] for row in read_rows(workdir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"), "--workdir=w") / "w"


@pytest.fixture(scope="module")
def on_four(four_devices):
    """The workdir of a run on four devices, evaluated and asked for predictions there."""
    return four_devices("training")[1] / "w"


def test_four_devices_train_as_one(one_device, on_four):
    np.testing.assert_allclose(losses_of(one_device), losses_of(on_four), rtol=1e-3)
    made = json.loads((on_four / "environment.json").read_text())
    assert made["devices"] == 4


@pytest.mark.parametrize("devices", [1, 4])
def test_a_checkpoint_of_four_devices_is_evaluated_on_one_and_on_four(on_four, tmp_path, devices):
    shutil.copytree(on_four, tmp_path / "w")
    if devices == 1:
        (tmp_path / "w" / "evaluation.json").unlink()
        run(tmp_path, "--workdir=w", "--mode=evaluate")
    found = json.loads((tmp_path / "w" / "evaluation.json").read_text())
    results = json.loads((on_four / "results.json").read_text())
    for which in ("last", "selected"):
        accuracy = found[which]["accuracy"]
        assert accuracy == pytest.approx(results[which]["accuracy"], abs=0.004)


def predictions(path):
    lines = path.read_text().splitlines()[1:]
    return np.array([line.split(",")[2:] for line in lines], float)


@pytest.mark.parametrize("which", ["last", "selected"])
def test_four_devices_predict_as_one(on_four, tmp_path, which):
    shutil.copytree(on_four, tmp_path / "w")
    run(
        tmp_path,
        "--workdir=w",
        "--mode=predict",
        "--input=w/x.npy",
        f"--which={which}",
        "--output=one.csv",
    )
    one, four = predictions(tmp_path / "one.csv"), predictions(on_four / f"{which}.csv")
    assert one.shape == (30, 11)
    np.testing.assert_allclose(one, four, atol=2e-6)


@pytest.mark.parametrize(
    "value, expected",
    [
        ("auto", {}),
        ("host:81,2,0", {"coordinator_address": "host:81", "num_processes": 2, "process_id": 0}),
    ],
)
def test_the_flag_is_what_jax_is_told(monkeypatch, value, expected):
    told = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *a, **o: told.append((a, o)))
    sharding.start_processes(value)
    assert told == [((), expected)]


def start_two(folder, *arguments):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jaxrobust.main",
                *RUN,
                "--workdir=w",
                f"--distributed=localhost:{port},2,{i}",
                *arguments,
            ],
            cwd=folder,
            env=environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def finish(processes):
    said = [process.communicate(timeout=240) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], said
    return said


@pytest.mark.slow
def test_two_processes_train_save_and_resume(one_device, tmp_path):
    processes = start_two(tmp_path)
    for _ in range(2000):
        rows = read_rows(tmp_path / "w" / "metrics.jsonl")
        if len(rows) >= 2:
            break
        assert all(p.poll() is None for p in processes), [p.communicate() for p in processes]
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.communicate()
    said = finish(start_two(tmp_path))
    assert "Resuming" in said[0][1] and "Resuming" not in said[1][1]
    np.testing.assert_allclose(losses_of(one_device), losses_of(tmp_path / "w"), rtol=1e-3)
    made = json.loads((tmp_path / "w" / "environment.json").read_text())
    assert made["processes"] == 2


def test_a_batch_must_be_divisible_among_the_devices(monkeypatch):
    monkeypatch.setattr(sharding.jax, "devices", lambda: ["a", "b", "c"])
    with pytest.raises(UserError, match="not a multiple of the 3 devices. Use 126"):
        sharding.make_layout(128)
    with pytest.raises(UserError, match="train.devices=4, but there are 3"):
        sharding.make_layout(128, 4)
    assert sharding.make_layout(128, 1) == sharding.ONE_DEVICE


@pytest.mark.parametrize("value", ["x", "host,2,1", "host:1,two,1", "host:1,2"])
def test_a_malformed_address_is_named(value):
    with pytest.raises(UserError, match="expected auto or HOST:PORT,COUNT,ID"):
        sharding.start_processes(value)
