"""The audit's benchmarks run and write what they say; cleanlab is not needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_issues

ROOT = Path(__file__).parents[2]


def test_costs_are_measured(tmp_path):
    path = tmp_path / "out.json"
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.audit",
            "--sizes",
            "3000x5",
            "--networks",
            "mlp",
            "--rounds",
            "2",
            "--reports",
            "5000x10",
            "5000x100",
            "--json",
            path,
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert [row["parts"] for row in written["scores"]] == [0, 4]
    for row in written["scores"]:
        assert abs(row["estimated"] - row["wrong"]) < 0.02
        assert 0 < row["seconds"] < 10 and row["peak_gib"] < 2
    for row, pictures in zip(written["reports"], (24 + 10 * 3, 24), strict=True):
        assert row["examples"] == 5000 and row["pictures"] >= pictures  # and those of the review
        assert 0 < row["seconds"] < 10 and 0.1 < row["megabytes"] < 5
    assert written["steps"][0]["ratio"] > 0


def test_the_comparison_gives_both_the_same_predictions():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 600)
    labels = np.where(rng.random(600) < 0.2, (true + 1) % 4, true)
    p = 0.8 * np.eye(4)[true] + 0.05
    found = label_issues.compare(labels, true, p, p[:, None])
    assert ("cleanlab, self confidence" in found) == bool(importlib.util.find_spec("cleanlab"))
    for row in found.values():
        assert row["auprc"] == row["auroc"] == row["precision_at_errors"] == row["precision"] == 1
    text = label_issues.table({"planted": [found, found]})
    assert "| planted | jaxrobust, predictions | " in text and "1.000 ± 0.000" in text
    widths = {line.count("|") for line in text.splitlines()}
    assert widths == {9} and len(text.splitlines()) == 2 + len(found)


def test_measures_by_hand():
    """Classes of 6, 3 and 1 examples; wrong: rows 0, 1 and 6; flagged: 0, 2 and 9."""
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    true = np.array([1, 2, 0, 0, 0, 0, 0, 1, 1, 2])
    score = np.array([0.1, 0.9, 0.2, 0.9, 0.9, 0.9, 0.6, 0.9, 0.9, 0.3])
    found = label_issues.Found(-score, score, np.isin(np.arange(10), [0, 2, 9]), 0.5)
    row = label_issues.measure(found, labels, true)
    assert row["precision"] == row["recall"] == row["precision_at_errors"] == 1 / 3
    np.testing.assert_allclose(row["auroc"], (7 + 5 + 2.5) / 21)
    # Bins of 1/15: one wrong at 0.1, one right each at 0.2 and 0.3, one wrong at 0.6, six at 0.9.
    expected = (0.1 + 0.8 + 0.7 + 0.6 + abs(5 - 6 * 0.9)) / 10
    np.testing.assert_allclose(row["calibration_error"], expected)
    assert row["thirds"] == {
        "head": {"recall": 1 / 2, "false_alarms": 1 / 4},
        "medium": {"recall": 0.0, "false_alarms": 0.0},
        "tail": {"recall": 0.0, "false_alarms": 1.0},
    }
    rows = {"cleanlab, self confidence": row, "cleanlab, normalized margin": row, "ours": row}
    text = label_issues.by_size({"long tail 0.1": [rows], "symmetric": [rows]}).splitlines()
    assert text[2:] == [
        f"| long tail 0.1 | {way} | 0.500 | 0.000 | 0.000 | 0.250 | 0.000 | 1.000 |"
        for way in ("cleanlab", "ours")
    ]


def test_all_evidence_together_is_above_cleanlab_on_digits():
    pytest.importorskip("cleanlab")
    found = label_issues.compare(*label_issues.digits("symmetric", 0.4, 1.0, 0, "mlp", 30))
    ours = found.pop("jaxrobust, training and predictions")["auprc"]
    theirs = [row["auprc"] for way, row in found.items() if way.startswith("cleanlab")]
    assert len(theirs) == 3 and ours > max(theirs) + 0.02


def test_digits_give_predictions_and_dynamics_of_every_example():
    labels, true, p, training = label_issues.digits("symmetric", 0.4, 0.1, 0, "mlp", 2)
    assert 0.3 < np.mean(labels != true) < 0.45
    assert p.shape == (len(labels), 10) and training.shape == (len(labels), 2, 10)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(training[:, -1].sum(-1), 1, rtol=1e-2)
