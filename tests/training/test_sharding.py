"""Several devices give what one gives; several processes train, save and resume together."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxrobust.errors import UserError
from jaxrobust.training import sharding
from jaxrobust.training.metrics_log import read_rows

RUN = [
    sys.executable, "-m", "jaxrobust.main", "--config=digits_dynamic_loss",
    "--config.network.name=mlp", "--config.network.width=16", "--config.train.batch_size=128",
    "--config.train.epochs=4", "--config.method.warmup_epochs=2", "--config.log.figures=False",
    "--config.data.noise.kind=symmetric", "--config.data.noise.rate=0.4",
    "--config.data.imbalance.kind=none", "--config.data.imbalance.factor=1.0",
    "--config.checkpoint.every_seconds=0", "--config.log.tensorboard=False",
]


def environment(devices):
    flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def run(folder, *arguments, devices=1):
    done = subprocess.run([*RUN, *arguments], cwd=folder, env=environment(devices),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def losses_of(workdir):
    return [row["train_loss"] for row in read_rows(workdir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"), "--workdir=w") / "w"


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    return run(tmp_path_factory.mktemp("four"), "--workdir=w", devices=4) / "w"


def test_four_devices_train_as_one(one_device, four_devices):
    np.testing.assert_allclose(losses_of(one_device), losses_of(four_devices), rtol=1e-3)
    made = json.loads((four_devices / "environment.json").read_text())
    assert made["devices"] == 4


@pytest.mark.parametrize("devices", [1, 4])
def test_a_checkpoint_of_four_devices_is_evaluated_on_one_and_on_four(four_devices, devices):
    run(four_devices.parent, "--workdir=w", "--mode=evaluate", devices=devices)
    found = json.loads((four_devices / "evaluation.json").read_text())
    results = json.loads((four_devices / "results.json").read_text())
    for which in ("last", "selected"):
        accuracy = found[which]["accuracy"]
        assert accuracy == pytest.approx(results[which]["accuracy"], abs=0.004)


@pytest.mark.parametrize("which", ["last", "selected"])
def test_four_devices_predict_as_one(four_devices, which):
    np.save(four_devices / "x.npy", load_digits().images.astype(np.uint8)[:30] * 15)
    arguments = ["--workdir=w", "--mode=predict", "--input=w/x.npy", f"--which={which}"]
    found = []
    for devices in (1, 4):
        run(four_devices.parent, *arguments, f"--output=w/{devices}.csv", devices=devices)
        lines = (four_devices / f"{devices}.csv").read_text().splitlines()[1:]
        found.append(np.array([line.split(",")[2:] for line in lines], float))
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)


@pytest.mark.parametrize("value, expected", [
    ("auto", {}),
    ("host:81,2,0", {"coordinator_address": "host:81", "num_processes": 2, "process_id": 0}),
])
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
            [*RUN, "--workdir=w", f"--distributed=localhost:{port},2,{i}", *arguments],
            cwd=folder, env=environment(1), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def finish(processes):
    said = [process.communicate(timeout=240) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], said
    return said


def test_two_processes_train_save_and_resume(one_device, tmp_path):
    import time

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
