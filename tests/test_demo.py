"""The demonstration: both trainings, one screen of text, whose numbers are those of the results."""

import csv
import json
import os
from collections import Counter

import pytest

from jaxrobust import demo


def results(accuracy, memorised, recall):
    truth = {"recall": recall, "wrong": 160, "flagged": 130}
    last = {"balanced_accuracy": accuracy, "memorised": memorised}
    return {"last": last, "audit": {"truth": truth}}


def test_the_table_says_what_was_measured():
    found = {"cross-entropy": results(0.611, 0.863, 0.75), "dynamic loss": results(0.8, 0.2, 0.8)}
    header, first, second = demo.summary(found).splitlines()
    assert "wrong labels found" in header and len(header) <= 100
    assert first.split("  ")[0] == "cross-entropy"
    assert "61.1 %" in first and "86 %" in first and "120 of 160, 10 right ones flagged" in first
    assert "80.0 %" in second and "128 of 160, 2 right" in second


@pytest.mark.slow
def test_the_demo_fits_one_screen_and_flags_no_class_wholesale(tmp_path, capsys):
    assert demo.main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 100 + len(str(tmp_path)) for line in lines)
    assert not said.err
    found = {
        v: json.loads((tmp_path / v / "results.json").read_text()) for v in ("ce", "corrector")
    }
    ahead = [found[v]["last"]["balanced_accuracy"] for v in ("corrector", "ce")]
    assert ahead[0] > ahead[1] + 0.1
    assert os.path.getsize(tmp_path / "comparison.png") > 5000
    for variant in found:
        with (tmp_path / variant / "label_issues.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        whole = Counter(r["given_label"] for r in rows)
        flagged = Counter(r["given_label"] for r in rows if r["is_label_issue"] == "True")
        assert all(flagged[c] <= 0.6 * whole[c] for c in whole)
