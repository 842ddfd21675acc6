"""Label issues and classifiers on data of one's own: the defaults next to cleanlab's pipelines.

    python -m benchmarks.own_data --data=FOLDER --output=own_data.json \\
        [--seeds=0,1,2] [--methods=default]

FOLDER holds a folder per table with train.csv (last column `label`, partly wrong), truth.csv
(`true_label` of the same rows) and test.csv (right labels); the last two are for measuring only.
Per table and seed: area under the precision-recall curve and F1 of the label issues, balanced
accuracy on test.csv. Next to `RobustClassifier(random_state=seed)` with its defaults stand cleanlab
with a logistic regression and with histogram gradient boosting: five-fold predictions, cleanlab's
default filter and self-confidence, the same model fitted again without the flagged rows. What is
finished is kept in the output file, so that the same command goes on where it was stopped. Prints a
Markdown table of means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

MEASURES = ("area", "f1", "balanced_accuracy")
METHODS = ("default", "cleanlab_linear", "cleanlab_boosting")


def measure(method: str, folder: Path, seed: int) -> dict[str, float]:
    """Returns the measures of one method on one table, and the seconds of its process."""
    import pandas as pd

    train, test = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "test"))
    true = pd.read_csv(folder / "truth.csv")["true_label"].astype(str).to_numpy()
    y, x = train.pop("label").astype(str).to_numpy(), train
    expected = test.pop("label").astype(str).to_numpy()
    return measured(method, x, y, true, test, expected, seed)


def measured(
    method: str, x: Any, y: np.ndarray, true: np.ndarray, test: Any, expected: np.ndarray, seed: int
) -> dict[str, float]:
    """Returns the measures of one method on examples x with given labels y; without a wrong label
    the fraction of right labels that is not flagged takes the place of area and F1."""
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

    wrong = y != true
    begin = time.process_time()
    fitted = _default if method == "default" else _cleanlab
    suspicion, flagged, named = fitted(method, x, y, test, seed)
    spared = float(1 - np.mean(flagged))
    return {
        "area": float(average_precision_score(wrong, suspicion)) if wrong.any() else spared,
        "f1": float(f1_score(wrong, flagged)) if wrong.any() else spared,
        "balanced_accuracy": float(balanced_accuracy_score(expected, named)),
        "seconds": time.process_time() - begin,
    }


def _default(method: str, x: Any, y: np.ndarray, test: Any, seed: int) -> tuple:
    from jaxrobust import RobustClassifier

    model = RobustClassifier(random_state=seed).fit(x, y)
    issues = model.label_issues_
    return -issues.label_score, issues.is_label_issue, model.predict(test)


def _cleanlab(method: str, x: Any, y: np.ndarray, test: Any, seed: int) -> tuple:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_self_confidence_for_each_label
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    classes, labels = np.unique(y, return_inverse=True)
    model = pipeline(method, seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    p = cross_val_predict(model, x, labels, cv=folds, method="predict_proba")
    flagged = find_label_issues(labels, p, n_jobs=1)
    again = clone(model).fit(x[~flagged], labels[~flagged])
    suspicion = -get_self_confidence_for_each_label(labels, p)
    return suspicion, flagged, classes[again.predict(test)]


def pipeline(method: str, seed: int) -> Any:
    """Returns the unfitted pipeline of a rival: imputation, scaling, one-hot, model."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    names = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include=np.number)),
        (names, make_column_selector(dtype_exclude=np.number)),
    )
    linear = method == "cleanlab_linear"
    model = (
        LogisticRegression(max_iter=1000)
        if linear
        else HistGradientBoostingClassifier(random_state=seed)
    )
    return make_pipeline(columns, model)


def table(found: dict[str, dict[str, float]]) -> str:
    """Returns a Markdown table of means over the seeds, and of the tables' means."""
    names = sorted({key.split("/")[0] for key in found})
    lines = ["| table | " + " | ".join(METHODS) + " |", "| --- |" + " --- |" * len(METHODS)]
    means = {(n, m): _mean(found, n, m) for n in names for m in METHODS}
    whole = {(n, m): v for (n, m), v in means.items() if v is not None}
    for name in names:
        cells = [_cell(means[name, method]) for method in METHODS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    complete = [n for n in names if all((n, m) in whole for m in METHODS)]
    if complete:
        cells = [_cell(np.mean([whole[n, m] for n in complete], axis=0)) for m in METHODS]
        lines.append(f"| mean of {len(complete)} | " + " | ".join(cells) + " |")
        best = np.mean([np.max([whole[n, m] for m in METHODS[1:]], axis=0) for n in complete], 0)
        lines.append(f"\nBetter of the two cleanlab pipelines per table and measure: {_cell(best)}")
        behind = np.max(
            [
                np.max([whole[n, m] for m in METHODS[1:]], axis=0) - whole[n, METHODS[0]]
                for n in complete
            ],
            axis=0,
        )
        lines.append(f"\nFurthest behind that on any table: {_cell(behind)}")
    return "\n".join(lines)


def _mean(found: dict[str, dict[str, float]], name: str, method: str) -> np.ndarray | None:
    rows = [
        [v[m] for m in MEASURES] for key, v in found.items() if key.startswith(f"{name}/{method}/")
    ]
    return np.mean(rows, axis=0) if rows else None


def _cell(values: np.ndarray | None) -> str:
    return "–" if values is None else ", ".join(f"{v:.3f}" for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of tables")
    parser.add_argument("--output", type=Path, default=Path("own_data.json"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tables", help="names, separated by commas; default all")
    parser.add_argument("--methods", default=",".join(METHODS), help="which of these")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    path = arguments.output
    found = json.loads(path.read_text()) if path.is_file() else {}
    names = sorted(f.parent.name for f in arguments.data.glob("*/truth.csv"))
    names = arguments.tables.split(",") if arguments.tables else names
    for seed in map(int, arguments.seeds.split(",")):
        for name in names:
            for method in arguments.methods.split(","):
                key = f"{name}/{method}/{seed}"
                if key not in found:
                    found[key] = measure(method, arguments.data / name, seed)
                    path.write_text(json.dumps(found, indent=1) + "\n")
                    print(key, found[key], flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
