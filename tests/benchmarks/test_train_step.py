"""The benchmark runs, without PyTorch too, and writes what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_program_runs_without_torch(tmp_path):
    path = tmp_path / "out.json"
    # One device, as a user has it, whatever the environment of the tests says.
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.train_step",
            "--tiny",
            "--rounds",
            "2",
            "--no_torch",
            "--json",
            path,
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "JAX's rows only" in done.stdout
    written = json.loads(path.read_text())
    assert {"jax", "device", "cores"} <= set(written["environment"])
    names = {(r["task"].split()[0].split("-")[0], r["name"]) for r in written["results"]}
    assert {("mlp", "JAX, one call a step"), ("mlp", "JAX, scan over steps")} <= names
    assert any(name == "JAX" for _, name in names)
    for row in written["results"]:
        assert row["steps_per_second"] > 0 and row["compile_seconds"] > 0
        assert row["speed_against_torch"] is None
        assert row["flops"] > 0
