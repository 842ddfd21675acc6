"""The audit's benchmarks run and write what they say; cleanlab is not needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import label_issues

ROOT = Path(__file__).parents[2]


def test_costs_are_measured(tmp_path):
    path = tmp_path / "out.json"
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.audit", "--sizes", "3000x5", "--networks", "mlp",
         "--rounds", "2", "--json", path],
        cwd=ROOT, env=env, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert [row["parts"] for row in written["scores"]] == [0, 4]
    for row in written["scores"]:
        assert abs(row["estimated"] - row["wrong"]) < 0.02
        assert 0 < row["seconds"] < 10 and row["peak_gib"] < 2
    assert written["steps"][0]["ratio"] > 0


def test_the_comparison_gives_both_the_same_predictions():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 600)
    labels = np.where(rng.random(600) < 0.2, (true + 1) % 4, true)
    p = 0.8 * np.eye(4)[true] + 0.05
    found = label_issues.compare(labels, true, p, p[:, None])
    assert ("cleanlab, self confidence" in found) == bool(importlib.util.find_spec("cleanlab"))
    for row in found.values():
        assert row["auprc"] == 1 and row["precision"] == 1
    text = label_issues.table({"planted": [found, found]})
    assert "| planted | jaxrobust, predictions | " in text and "1.000 ± 0.000" in text


def test_digits_give_predictions_and_dynamics_of_every_example():
    labels, true, p, training = label_issues.digits("symmetric", 0.4, 0.1, 0, "mlp", 2)
    assert 0.3 < np.mean(labels != true) < 0.45
    assert p.shape == (len(labels), 10) and training.shape == (len(labels), 2, 10)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(training[:, -1].sum(-1), 1, rtol=1e-2)
