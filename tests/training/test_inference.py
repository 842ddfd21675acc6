"""What is done with a trained workdir."""

import csv
import json
from types import SimpleNamespace

import numpy as np

from jaxrobust.training import inference


def test_a_measurement_that_is_not_finite_is_null_in_the_file(tmp_path, monkeypatch):
    state = SimpleNamespace(params={}, batch_stats={})
    opened = (None, {"state": state, "selected": ({}, {})})
    monkeypatch.setattr(inference, "open_workdir", lambda workdir: opened)
    monkeypatch.setattr(
        inference.results, "evaluate_all", lambda *_: {"numbers": {"accuracy": float("nan")}}
    )
    inference.evaluate(tmp_path)
    text = (tmp_path / "evaluation.json").read_text()
    assert json.loads(text) == {"last": {"accuracy": None}, "selected": {"accuracy": None}}


def test_no_name_in_the_predictions_is_a_formula(tmp_path):
    p = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    path = inference.write_predictions(tmp_path / "p.csv", ["=1+1", "b"], ("cat", "@dog"), p)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["example", "predicted_label", "probability", "cat", "'@dog"],
        ["'=1+1", "'@dog", "0.750000", "0.250000", "0.750000"],
        ["b", "cat", "0.500000", "0.500000", "0.500000"],
    ]
