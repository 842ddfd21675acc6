"""A step over four devices is the step on one: under `jit` with shards, and under `pmap`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "on_four_devices.py"
CASES = [
    "dynamic loss", "two steps", "first_order", "finite_difference", "skip",
    "skip with batch statistics, every other step",
]


@pytest.fixture(scope="module")
def results():
    """One process for all cases: the number of devices is fixed when JAX starts."""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    done = subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = map(json.loads, done.stdout.splitlines())
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_four_devices_equal_one(results, case, way):
    assert results[case]["meta_grad_norm"] > 1e-6
    assert results[case][way] < 1e-9
