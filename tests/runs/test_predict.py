"""What is done with a trained workdir."""

import csv
import json

import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust.data import manifest
from jaxrobust.errors import UserError
from jaxrobust.runs import predict


def test_a_measurement_that_is_not_finite_is_null_in_the_file(tmp_path, monkeypatch):
    numbers = {"epoch": 1, "accuracy": float("nan")}
    measured = {"selection_split": None, "last": numbers, "selected": numbers}
    monkeypatch.setattr(predict, "open_workdir", lambda *_: (None, {}))
    monkeypatch.setattr(predict.results, "measure_run", lambda *_: (measured, {}))
    predict.evaluate(tmp_path)
    null = {"epoch": 1, "accuracy": None}
    text = (tmp_path / "evaluation.json").read_text()
    assert json.loads(text) == {"selection_split": None, "last": null, "selected": null}


def test_no_name_in_the_predictions_is_a_formula(tmp_path):
    p = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    path = predict.write_predictions(tmp_path / "p.csv", ["=1+1", "b"], ("cat", "@dog"), p)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["example", "predicted_label", "probability", "cat", "'@dog"],
        ["'=1+1", "'@dog", "0.750000", "0.250000", "0.750000"],
        ["b", "cat", "0.500000", "0.500000", "0.500000"],
    ]


def test_columns_of_a_table_are_found_by_name(tmp_path):
    """The table that was trained on, and one in another order, give the same predictions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)).round(3)
    kinds = np.array(["cat", "dog"])[(x[:, 0] > 0).astype(int)]
    lines = [f"{a},{b},{c},{kind}" for (a, b, c), kind in zip(x, kinds, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["a,b,c,kind", *lines]))
    moved = [f"{c},{kind},{a},{b}" for (a, b, c), kind in zip(x, kinds, strict=True)]
    (tmp_path / "moved.csv").write_text("\n".join(["c,kind,a,b", *moved]))
    (tmp_path / "less.csv").write_text("a,b,kind\n1,2,cat\n")
    made = configuration.load("digits_losses:ce")
    made.update_from_flattened_dict(
        {
            "data.name": "csv",
            "data.path": str(tmp_path / "train.csv"),
            "network.name": "mlp",
            "network.width": 32,
            "train.epochs": 12,
            "train.batch_size": 16,
            "log.figures": False,
            "log.tensorboard": False,
        }
    )
    jaxrobust.train(made, tmp_path / "w")
    assert manifest.load(tmp_path / "w" / "noise.npz").feature_names == ("a", "b", "c")
    texts = [
        predict.predict(tmp_path / "w", tmp_path / name, tmp_path / "p.csv").read_text()
        for name in ("train.csv", "moved.csv")
    ]
    assert texts[0] == texts[1]
    found = [line.split(",")[1] for line in texts[0].splitlines()[1:]]
    assert np.mean(np.array(found) == kinds) > 0.9
    with pytest.raises(UserError, match="less.csv lacks the columns .c."):
        predict.predict(tmp_path / "w", tmp_path / "less.csv")
