"""Label-issue detection compared with cleanlab on the same predictions: the battery.

    pip install cleanlab pandas
    python -m benchmarks.audit_battery [--draw main|other] [--cells 400] [--most 50000]
        [--data ../shared/data/tables] [--cache runs/battery] [--json OUT] [--markdown OUT]

A cell is a data set, a classifier, a kind and rate of label noise, a balance of the classes and a
seed. Its out-of-sample predictions (five stratified folds) are made once and cached; a command
that was stopped goes on where it was. Both libraries get the same labels and predictions. Two
draws of cells exist: settings were chosen on `main`; `other` has other classifiers, data and
seeds and was only ever measured.

Groups: `noise` (labels wrong whatever the example), `alike` (labels wrong where classes are
alike), `exact` (predictions are the exact posterior of the given label), `tables` (real tables
with planted wrong labels), `clean` (every label right). The table gives the mean per group; F1 and
area only where labels are wrong. cleanlab: default filter, self-confidence score, and as its rate
and noise matrix the better of its two estimates (flags, joint). Bars are printed at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import audit_battery_data as data

KINDS = ("symmetric", "pair", "one class", "asymmetric")
RATES = (0.05, 0.2, 0.4)
MAIN = ("logistic regression", "k-NN 5", "k-NN 25", "random forest", "gradient boosting")
OTHER = ("naive Bayes", "k-NN 15", "SVC", "perceptron", "extra trees")
TABLES_UNLIKE = ("attrition", "churn", "leaves", "penguins")
TABLES_ALIKE = ("cells", "credit", "diamonds")
ROOT = Path(__file__).resolve().parent.parent


class Cell(NamedTuple):
    """One row of the battery; `size` is the number of examples of made-up data, else 0."""

    group: str
    data: str
    classifier: str
    kind: str
    rate: float
    tail: float
    size: int
    seed: int

    @property
    def key(self) -> str:
        return "-".join(str(part).replace(" ", "_") for part in self)


def draw(name: str, count: int) -> list[Cell]:
    """Returns the cells of a draw, in an order in which every beginning is a fair sample."""
    rng = np.random.default_rng({"main": 0, "other": 1}[name])
    classifiers = MAIN if name == "main" else OTHER
    sets = data.SETS if name == "main" else data.OTHER_SETS
    real = [s for s in sets if s not in data.GAUSSIANS]
    made = [s for s in sets if s in data.GAUSSIANS]
    pick: Callable[[Any], Any] = lambda values: values[rng.integers(len(values))]  # noqa: E731
    groups = ["noise"] * 9 + ["alike"] * 3 + ["exact", "tables", "tables"] + ["clean"] * 5
    cells: list[Cell] = []
    while len(cells) < count:
        for group in rng.permutation(groups).tolist():
            seed, size, classifier = int(rng.integers(1 << 30)), 0, pick(classifiers)
            kind, rate = pick(KINDS), pick(RATES)
            name_of_set = pick(real) if rng.random() < 0.5 else pick(made)
            tail = pick((1.0, 1.0, 0.1))
            if group == "tables":
                name_of_set, kind, rate, tail = pick(TABLES_UNLIKE + TABLES_ALIKE), "given", 0, 1.0
            elif group == "exact":
                name_of_set, classifier = pick(made), "exact"
                size = int(pick((300, 1000, 3000, 10_000, 50_000)))
            elif group == "clean":
                kind, rate = "none", 0.0
                if rng.random() < 0.15:
                    name_of_set = pick(TABLES_UNLIKE + TABLES_ALIKE)
            elif group == "alike":
                kind = "instance"
            if name_of_set in data.GAUSSIANS and not size:
                size = int(pick((100, 300, 1000, 3000, 10_000)))
                size = min(size, data.SLOW.get(classifier, 10_000))
                if classifier == "gradient boosting" and name_of_set.startswith("100"):
                    classifier = "k-NN 5"  # a minute for 100 classes
            cells.append(Cell(group, name_of_set, classifier, kind, rate, tail, size, seed))
    return cells[:count]


def predictions(cell: Cell, tables: Path | None, cache: Path) -> dict[str, np.ndarray] | None:
    """Returns labels, true, p, matrix of a cell, from the cache if there; None: no table."""
    path = cache / f"{cell.key}.npz"
    if path.is_file():
        with np.load(path) as saved:
            return dict(saved)
    if cell.data in TABLES_UNLIKE + TABLES_ALIKE and tables is None:
        return None
    made = data.make(cell, tables)
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **made)
    part.replace(path)
    return made
