"""Label-issue detection compared with cleanlab on the same predictions: the battery.

    pip install cleanlab pandas
    python -m benchmarks.audit_battery [--draw main|other|held-out] [--cells 400] [--most 5000000]
        [--data ../shared/data] [--cache runs/battery] [--json OUT] [--markdown OUT]
        [--cached]

A cell is a data set, a classifier, a kind and rate of label noise, a balance of the classes and a
seed. Its out-of-sample predictions (five stratified folds) are made once and cached; a command
that was stopped goes on where it was. Both libraries get the same labels and predictions. Three
draws of cells exist, of different classifiers and seeds. Settings were chosen while looking at all
three, so that none is an independent test.

The main draw ends with `LISTED` cells that are not drawn: 50,000 examples, this library's own
networks on digits, and people's labels of CIFAR-10 (judged by a small network and by a logistic
regression on EfficientNet's features).

Groups: `noise` (labels wrong whatever the example), `alike` (labels wrong where classes are
alike), `exact` (predictions are the exact posterior of the given label), `tables` (real tables
with planted wrong labels), `clean` (every label right). The table gives the mean per group; F1 and
area only where labels are wrong. cleanlab: default filter, self-confidence score, and as its rate
the better in the mean of its two estimates (flags, joint). Bars are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import audit_battery_data as data
from benchmarks.label_issues import calibration_error
from jaxrobust.audit import find_label_issues
from jaxrobust.audit.scoring import auprc

KINDS = ("symmetric", "pair", "one class", "asymmetric")
RATES = (0.05, 0.2, 0.4)
MAIN = ("logistic regression", "k-NN 5", "k-NN 25", "random forest", "gradient boosting")
OTHER = ("naive Bayes", "k-NN 15", "SVC", "perceptron", "extra trees")
HELD_OUT = ("discriminant analysis", "k-NN 10", "bagged trees", "large perceptron")
DRAWS = {"main": (0, MAIN), "other": (1, OTHER), "held-out": (2, HELD_OUT)}
TABLES_UNLIKE = ("attrition", "churn", "leaves", "penguins")
TABLES_ALIKE = ("cells", "credit", "diamonds")
PEOPLE = ("human_aggregate", "human_random1", "human_worst")
WAYS = ("jaxrobust", "cleanlab")
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


LISTED = [
    Cell("noise", "10 Gaussians, near", "logistic regression", "pair", 0.2, 1.0, 50_000, 1),
    Cell("noise", "10 Gaussians, near", "logistic regression", "symmetric", 0.05, 0.1, 50_000, 2),
    Cell("noise", "32 Gaussians, apart", "naive Bayes", "asymmetric", 0.2, 1.0, 50_000, 3),
    Cell("alike", "3 Gaussians, near", "naive Bayes", "instance", 0.2, 1.0, 50_000, 4),
    Cell("clean", "10 Gaussians, apart", "logistic regression", "none", 0.0, 1.0, 50_000, 5),
    Cell("noise", "digits", "our network", "symmetric", 0.4, 1.0, 0, 6),
    Cell("noise", "digits", "our network", "asymmetric", 0.2, 1.0, 0, 7),
    Cell("noise", "digits", "our network", "pair", 0.4, 0.1, 0, 8),
    Cell("alike", "digits", "our network", "instance", 0.2, 1.0, 0, 9),
    Cell("clean", "digits", "our network", "none", 0.0, 1.0, 0, 10),
    *(
        Cell("human", "CIFAR-10", classifier, kind, 0, 1.0, 3000, seed)
        for seed, kind in enumerate((*PEOPLE, "clean"), 11)
        for classifier in ("logistic regression", "our network")
    ),
]


def draw(name: str, count: int) -> list[Cell]:
    """Returns the cells of a draw, in an order in which every beginning is a fair sample."""
    seed, classifiers = DRAWS[name]
    rng = np.random.default_rng(seed)
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
    listed = LISTED[:count] if name == "main" else []
    return cells[: count - len(listed)] + listed


def predictions(
    cell: Cell, folder: Path | None, cache: Path, cached: bool
) -> dict[str, np.ndarray] | None:
    """Returns labels, true, p, matrix of a cell, from the cache if there; None: no data,
    or not in the cache though only what is there is asked for."""
    path = cache / f"{cell.key}.npz"
    if path.is_file():
        with np.load(path) as saved:
            return dict(saved)
    if cached or cell.data in (*TABLES_UNLIKE, *TABLES_ALIKE, "CIFAR-10") and folder is None:
        return None
    made = data.make(cell, folder)
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **made)
    part.replace(path)
    return made


def ours(made: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what `find_label_issues` says of a cell."""
    begin = time.process_time()
    issues = find_label_issues(made["labels"], made["p"])
    seconds = time.process_time() - begin
    return measures(made, issues.is_label_issue, -issues.rank, seconds) | {
        "rate": abs(issues.noise_rate - wrong_rate(made)),
        "matrix": float(np.abs(issues.noise_matrix - made["matrix"]).mean()),
        "covered": float(
            issues.noise_rate_interval[0] <= wrong_rate(made) <= issues.noise_rate_interval[1]
        ),
        "width": issues.noise_rate_interval[1] - issues.noise_rate_interval[0],
        "calibration": calibration_error(issues.label_score, made["labels"] == made["true"]),
        "flagged_classes": wholesale(made, issues.is_label_issue),
    }


def cleanlabs(made: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what cleanlab says of a cell; {} where it fails (a class without a label)."""
    from cleanlab.count import compute_confident_joint, estimate_latent
    from cleanlab.filter import find_label_issues as find
    from cleanlab.rank import get_label_quality_scores as quality

    labels, p = made["labels"].astype(int), made["p"].astype(np.float64)
    p /= p.sum(1, keepdims=True)
    try:
        begin = time.process_time()
        flagged = find(labels, p, n_jobs=1)
        seconds = time.process_time() - begin
        joint = compute_confident_joint(labels, p)
        matrix = estimate_latent(joint, labels)[1].T
    except ValueError:
        return {}
    score = quality(labels, p)
    return measures(made, flagged, -score, seconds) | {
        "rate": abs(float(flagged.mean()) - wrong_rate(made)),
        "rate_of_joint": abs(float(1 - joint.trace() / joint.sum()) - wrong_rate(made)),
        "matrix": float(np.abs(matrix - made["matrix"]).mean()),
        "calibration": calibration_error(score, labels == made["true"]),
        "flagged_classes": wholesale(made, flagged),
    }


def wrong_rate(made: dict[str, np.ndarray]) -> float:
    return float((made["labels"] != made["true"]).mean())


def wholesale(made: dict[str, np.ndarray], flagged: np.ndarray) -> int:
    """Returns how many classes of ten examples or more are flagged by more than .9, though less
    than half of their labels are wrong."""
    labels, k = made["labels"], made["p"].shape[1]
    size = np.maximum(np.bincount(labels, minlength=k), 1)
    share = np.bincount(labels, flagged, k) / size
    wrong = np.bincount(labels, labels != made["true"], k) / size
    return int(((size >= 10) & (share > 0.9) & (wrong < 0.5)).sum())


def measures(made, flagged: np.ndarray, suspicion: np.ndarray, seconds: float) -> dict[str, Any]:
    """Returns F1 of the flags, area, false-negative rate when as many are flagged as are wrong;
    of right labels alone the false flags."""
    wrong = made["labels"] != made["true"]
    found = {"seconds": seconds, "flagged": float(flagged.mean())}
    if not wrong.any():
        return found | {"false_flags": float(flagged.mean())}
    first = np.argsort(-suspicion, kind="stable")[: int(wrong.sum())]
    return found | {
        "f1": float(2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum())),
        "area": auprc(wrong, suspicion),
        "missed": float(1 - wrong[first].mean()),
    }


def group_of(cell: Cell) -> str:
    """Returns the group of a row of the table: tables by how their labels are wrong, photographs
    with right labels among the clean."""
    if cell.kind == "clean":
        return "clean"
    if cell.group == "tables":
        return "alike" if cell.data in TABLES_ALIKE else "tables"
    return cell.group


COLUMNS = {
    "f1": "F1 of flags",
    "area": "area under PR",
    "missed": "missed",
    "rate": "error of rate",
    "matrix": "error of T",
    "false_flags": "false flags",
    "calibration": "calibration error",
    "covered": "interval covers",
    "width": "its width",
}


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the means per group and in all as Markdown."""
    lines = [f"| cells | | {' | '.join(COLUMNS.values())} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for group in ("noise", "alike", "human", "exact", "tables", "clean", "all"):
        some = [row for row in rows if group in (row["group"], "all")]
        for way in WAYS if some else ():
            values = [_mean(some, way, name) for name in COLUMNS]
            cells = ["–" if v is None else f"{v:.3f}" for v in values]
            lines.append(f"| {group}, {len(some)} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: list[dict[str, Any]], way: str, name: str) -> float | None:
    values = [row[way][name] for row in rows if row[way].get(name) is not None]
    return float(np.mean(values)) if values else None


def bars(rows: list[dict[str, Any]]) -> dict[str, tuple[bool, str]]:
    """Returns for each bar whether it holds, and the figures."""
    found: dict[str, tuple[bool, str]] = {}

    def hold(name: str, ours: float | None, bar: float | None, above: bool) -> None:
        if ours is not None and bar is not None:
            good = ours >= bar if above else ours <= bar
            found[name] = (good, f"{ours:.3f}, bar {bar:.3f}")

    def both(name: str, some=rows) -> tuple[float, float]:
        a, b = (_mean(some, way, name) for way in WAYS)
        return (a, b) if a is not None and b is not None else (float("nan"), float("nan"))

    f1, area, rate, matrix = (both(name) for name in ("f1", "area", "rate", "matrix"))
    hold("mean F1, cleanlab's + .04", f1[0], f1[1] + 0.04, True)
    hold("mean area, cleanlab's + .08", area[0], area[1] + 0.08, True)
    hold("error of the rate, .8 of cleanlab's", rate[0], 0.8 * rate[1], False)
    hold("error of T, cleanlab's", matrix[0], matrix[1], False)
    large = [r for r in rows if r["examples"] >= 200 and r["wrong"] >= 20]
    behind = [r[WAYS[0]]["f1"] < r[WAYS[1]]["f1"] - 0.15 for r in large]
    hold("cells with F1 behind by .15", float(np.mean(behind)) if behind else None, 0.03, False)
    alike = [r for r in rows if r["group"] == "alike"]
    for name, above in (("f1", True), ("area", True), ("rate", False)) if alike else ():
        a, b = both(name, alike)
        hold(
            f"alike: {COLUMNS[name]}, at most .02 behind", a, b - 0.02 if above else b + 0.02, above
        )
    for classifier in sorted({r["classifier"] for r in rows if r["group"] == "clean"}):
        some = [r for r in rows if r["group"] == "clean" and r["classifier"] == classifier]
        a, b = both("false_flags", some)
        hold(f"false flags, {classifier}", a, max(0.02, b), False)
    hold("interval covers", _mean(rows, WAYS[0], "covered"), 0.9, True)
    hold("width of the interval", _mean(rows, WAYS[0], "width"), 0.25, False)
    hold(
        "classes flagged wholesale",
        float(sum(r[WAYS[0]]["flagged_classes"] for r in rows)),
        0,
        False,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", choices=tuple(DRAWS), default="main")
    parser.add_argument("--cells", type=int, default=400, help="number of cells, 400 at most")
    parser.add_argument("--most", type=int, default=5_000_000, help="entries N x K at most")
    parser.add_argument("--data", type=Path, help="folder with tables, tfds, cifar10_labels")
    parser.add_argument("--cache", type=Path, default=Path("runs/battery"))
    parser.add_argument("--cached", action="store_true", help="only cells that are in the cache")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    usual = ROOT.parent / "shared" / "data"
    folder = options.data or (usual if usual.is_dir() else None)
    rows, left_out = [], 0
    for cell in draw(options.draw, min(options.cells, 400)):
        made = predictions(cell, folder, options.cache, options.cached)
        if made is None or made["p"].size > options.most:
            left_out += 1
            continue
        theirs = cleanlabs(made)
        if not theirs:
            left_out += 1
            continue
        rows.append(
            cell._asdict()
            | {
                "group": group_of(cell),
                "examples": len(made["labels"]),
                "wrong": int((made["labels"] != made["true"]).sum()),
                WAYS[0]: ours(made),
                WAYS[1]: theirs,
            }
        )
        print(f"{len(rows)}: {cell.key}", end="\r", flush=True)
    joint = _mean(rows, WAYS[1], "rate_of_joint")
    if joint is not None and joint < (_mean(rows, WAYS[1], "rate") or 0):
        for row in rows:
            row[WAYS[1]]["rate"] = row[WAYS[1]]["rate_of_joint"]
    lines = [table(rows), "", "| bar | holds | |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {'yes' if good else 'no'} | {text} |"
        for name, (good, text) in bars(rows).items()
    ]
    if left_out:
        lines += [
            "",
            f"{left_out} cells left out: not in the cache (--cached), real data not found "
            "(--data), too large (--most), or cleanlab cannot (a class without a label).",
        ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
