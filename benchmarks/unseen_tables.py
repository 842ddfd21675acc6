"""Defaults on tables of many kinds, next to cleanlab's pipelines: where are they far behind?

    python -m benchmarks.unseen_tables --output=unseen_tables.json [--only=NAME,NAME] [--seeds=0]

Tables that ship with scikit-learn and seeded synthetic ones (few and many rows, 2 to 20 classes,
long tails, categories of many levels, rules, ordered classes, more columns than rows), each with
planted wrong labels: any other class alike, the next class, likelier where a logistic regression
confuses, or none. Three tenths of the rows are kept apart with right labels. Measures and rivals
are those of `benchmarks.own_data`; a cell without a wrong label has no area and no F1: there the
fraction of right labels that is not flagged stands in the place of both. Nothing was chosen by the
seven tables of `own_data` here, and the other way round.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import own_data

Made = tuple[Any, np.ndarray]
"""A DataFrame [N, D] and true labels int [N]."""


def _bundled(name: str) -> Callable[[np.random.Generator], Made]:
    def make(rng: np.random.Generator) -> Made:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True, as_frame=True)
        if name == "diabetes":
            y = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
        return x, np.asarray(y)

    return make


def _gaussian(
    n: int, k: int, d: int, sizes: list[float] | None = None, apart: float = 1.2
) -> Callable[[np.random.Generator], Made]:
    def make(rng: np.random.Generator) -> Made:
        from sklearn.datasets import make_classification

        x, y = make_classification(
            n,
            d,
            n_informative=min(d, max(6, k // 2)),
            n_redundant=min(4, d // 5),
            n_classes=k,
            n_clusters_per_class=2 if k < 8 else 1,
            weights=sizes,
            class_sep=apart,
            flip_y=0,
            random_state=int(rng.integers(1 << 30)),
        )
        return _frame(x), y

    return make


def _categories(n: int, k: int, columns: int, levels: int) -> Callable[..., Made]:
    def make(rng: np.random.Generator) -> Made:
        import pandas as pd

        codes = rng.integers(levels, size=(n, columns)) ** 2 // levels  # unequal frequencies
        effect = rng.normal(size=(columns, levels, k))
        x = rng.normal(size=(n, 3))
        logits = effect[np.arange(columns), codes].sum(1) + x @ rng.normal(size=(3, k))
        frame = _frame(x)
        for j in range(columns):
            frame[f"c{j}"] = pd.Series([f"level {c}" for c in codes[:, j]])
        frame.loc[rng.random(n) < 0.1, "c0"] = None
        return frame, logits.argmax(1)

    return make


def _rules(n: int) -> Callable[[np.random.Generator], Made]:
    def make(rng: np.random.Generator) -> Made:
        x = rng.random((n, 10))
        y = (x[:, 0] > 0.5) ^ (x[:, 1] > 0.4) | (x[:, 2] > 0.85)
        return _frame(np.exp(3 * x)), y.astype(int)

    return make


def _ordered(n: int, k: int) -> Callable[[np.random.Generator], Made]:
    def make(rng: np.random.Generator) -> Made:
        x = rng.normal(size=(n, 8))
        latent = x[:, 0] + 0.7 * x[:, 1] ** 2 + np.abs(x[:, 2]) + 0.15 * rng.normal(size=n)
        return _frame(x), np.digitize(latent, np.quantile(latent, np.arange(1, k) / k))

    return make


def _frame(x: np.ndarray) -> Any:
    import pandas as pd

    return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])


TABLES: dict[str, Callable[[np.random.Generator], Made]] = {
    "wine": _bundled("wine"),
    "breast_cancer": _bundled("breast_cancer"),
    "iris": _bundled("iris"),
    "diabetes": _bundled("diabetes"),
    "digits": _bundled("digits"),
    "two_classes": _gaussian(1000, 2, 20),
    "twenty_classes": _gaussian(3000, 20, 30, apart=2.0),
    "tail": _gaussian(3000, 5, 15, [0.83, 0.07, 0.05, 0.04, 0.01], apart=1.8),
    "few_rows": _gaussian(120, 3, 40, apart=2.0),
    "many_rows": _gaussian(20000, 4, 12),
    "wide": _gaussian(400, 3, 400, apart=2.5),
    "categories": _categories(1500, 3, 8, 60),
    "rules": _rules(2000),
    "ordered": _ordered(3000, 5),
}
NOISES = ("alike_40", "alike_20", "next_30", "confused_30", "none")


def corrupt(kind: str, x: Any, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns given labels int [N] of true ones."""
    k, given = y.max() + 1, y.copy()
    name, _, percent = kind.partition("_")
    if name == "none":
        return given
    rate = int(percent) / 100
    if name == "confused":
        from sklearn.model_selection import cross_val_predict

        p = cross_val_predict(own_data.pipeline("cleanlab_linear", 0), x, y, method="predict_proba")
        p[np.arange(len(y)), y] = 0
        share = p.sum(1)
        chosen = np.argsort(-share * rng.random(len(y)) ** 0.5)[: round(rate * len(y))]
        given[chosen] = [
            rng.choice(k, p=row / row.sum()) for row in p[chosen] + 1e-9 * (p[chosen] > 0)
        ]
        return given
    bad = rng.random(len(y)) < rate
    step = 1 if name == "next" else rng.integers(1, k, len(y))
    return np.where(bad, (y + step) % k, y)


def measure(method: str, table: str, noise: str, seed: int) -> dict[str, float]:
    """Returns the measures of one method in one cell."""
    from sklearn.model_selection import train_test_split

    place = list(TABLES).index(table), NOISES.index(noise)
    rng = np.random.default_rng([seed, *place])
    x, y = TABLES[table](np.random.default_rng([seed, place[0]]))
    rows = np.arange(len(y))
    train, test = train_test_split(rows, test_size=0.3, stratify=y, random_state=seed)
    part = x.iloc[train].reset_index(drop=True)
    given = corrupt(noise, part, y[train], rng)
    names = np.array([f"class {c:02d}" for c in range(y.max() + 1)])
    return own_data.measured(
        method, part, names[given], names[y[train]], x.iloc[test], names[y[test]], seed
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("unseen_tables.json"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", help="tables, separated by commas; default all")
    parser.add_argument("--noises", default=",".join(NOISES))
    parser.add_argument("--methods", default=",".join(own_data.METHODS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    path = arguments.output
    found = json.loads(path.read_text()) if path.is_file() else {}
    chosen = arguments.only.split(",") if arguments.only else list(TABLES)
    for seed in map(int, arguments.seeds.split(",")):
        for noise in arguments.noises.split(","):
            for table in chosen:
                for method in arguments.methods.split(","):
                    key = f"{table} {noise}/{method}/{seed}"
                    if key not in found:
                        found[key] = measure(method, table, noise, seed)
                        path.write_text(json.dumps(found, indent=1) + "\n")
    print(own_data.table(found))


if __name__ == "__main__":
    main()
