"""Finding wrong labels, beside cleanlab, on the same out-of-sample predictions.

    python -m benchmarks.label_issues [--seeds 0 1 2] [--network mlp] [--epochs 50] [--json OUT]
    python -m benchmarks.label_issues --workdir RUN [RUN …]

Without a workdir: scikit-learn's digits with wrong labels, `SETTINGS` times seeds. Every training
example is predicted by a network of 5-fold cross-validation that has not seen it; both libraries
get these predictions. `training and predictions` has the training dynamics of one more training
besides, as every run of the trainer records them. With workdirs: finished runs whose truth is
known, with out-of-sample predictions (`--config.audit.folds=5`).

First table: of finding wrong labels by the score, areas under the precision-recall and the ROC
curve, and the share of wrong labels among as many of the most suspect as there are wrong ones; how
far the score is from the share of right labels (expected calibration error); precision and recall
of what is flagged. Second table, for settings with a long tail: recall and false alarms (share of
the right labels flagged) of the flags, in the largest, the middle and the smallest third of the
classes, by given label. Mean over the seeds, ± their standard deviation. cleanlab is used with
n_jobs=1 and its defaults; its three scores are given apart, as it depends on the noise which is
best. Needs `pip install jaxrobust[cleanlab]`; without it only this library's rows are made.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrobust import config as configuration
from jaxrobust.audit import find_label_issues
from jaxrobust.audit.scoring import auprc, auroc
from jaxrobust.data import manifest
from jaxrobust.runs import audit, cross_validation, fit
from jaxrobust.runs.experiment import assemble
from jaxrobust.training.dynamics import gathered

FLIPS = "0:8,1:7,2:3,3:8,4:9,5:6,6:5,7:1,8:3,9:4"
SETTINGS = {
    f"{name}, {rate:.0%}": (kind, rate, factor)
    for name, kind, factor in (
        ("symmetric", "symmetric", 1.0),
        ("asymmetric", "asymmetric", 1.0),
        ("symmetric, long tail 0.1", "symmetric", 0.1),
    )
    for rate in (0.2, 0.4)
}
THIRDS = ("head", "medium", "tail")
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


class Found(NamedTuple):
    """A way of finding wrong labels: `suspicion` float [N], `score` [N], as a probability that the
    label is right, `flagged` bool [N], seconds taken."""

    suspicion: np.ndarray
    score: np.ndarray
    flagged: np.ndarray
    seconds: float


def measure(found: Found, labels: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Returns the columns of the tables; `thirds` holds those of the second."""
    wrong, flagged = labels != true, found.flagged
    hit = flagged & wrong
    most = np.argsort(-found.suspicion, kind="stable")[: int(wrong.sum())]
    row = {
        "auprc": auprc(wrong, found.suspicion),
        "auroc": auroc(wrong, found.suspicion),
        "precision_at_errors": share(wrong[most]),
        "calibration_error": calibration_error(found.score, ~wrong),
        "precision": share(wrong[flagged]),
        "recall": share(hit[wrong]),
        "seconds": found.seconds,
    }
    thirds = {
        name: {
            "recall": share(flagged[among & wrong]),
            "false_alarms": share(flagged[among & ~wrong]),
        }
        for name, among in thirds_of(labels).items()
    }
    return row | {"thirds": thirds}


def share(of: np.ndarray) -> float:
    return float(of.mean()) if len(of) else 0.0


def calibration_error(score: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean |share of right labels - score| over equal bins of the score [N]."""
    which = np.clip((score * bins).astype(int), 0, bins - 1)
    gap = np.bincount(which, right - score, bins)
    return float(np.abs(gap).sum() / len(score))


def thirds_of(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns bool [N] for the examples of the largest, middle and smallest third of classes."""
    order = np.argsort(-np.bincount(labels), kind="stable")
    parts = np.array_split(order, 3)
    return {name: np.isin(labels, part) for name, part in zip(THIRDS, parts, strict=True)}


def ours(labels: np.ndarray, **evidence) -> Found:
    begin = time.perf_counter()
    issues = find_label_issues(labels, **evidence)
    seconds = time.perf_counter() - begin
    return Found(-issues.rank, issues.label_score, issues.is_label_issue, seconds)


def cleanlabs(labels: np.ndarray, p: np.ndarray) -> dict[str, Found]:
    """Returns cleanlab's scores, each with the flags of its default filter; {} without cleanlab."""
    if importlib.util.find_spec("cleanlab") is None:
        return {}
    from cleanlab.filter import find_label_issues as find
    from cleanlab.rank import get_label_quality_scores as quality

    p = p.astype(np.float64)
    p /= p.sum(1, keepdims=True)
    begin = time.perf_counter()
    flagged = find(labels, p, n_jobs=1)
    seconds = time.perf_counter() - begin
    scores = {method: quality(labels, p, method=method) for method in SCORES}
    return {
        f"cleanlab, {method.replace('_', ' ')}": Found(-score, score, flagged, seconds)
        for method, score in scores.items()
    }


def compare(labels, true, p, training) -> dict[str, dict[str, Any]]:
    """Returns the measures of each way, for one data set and one seed."""
    ways = cleanlabs(labels, p)
    ways["jaxrobust, predictions"] = ours(labels, probabilities=p)
    ways["jaxrobust, training and predictions"] = ours(
        labels, probabilities=p, training_probabilities=training
    )
    return {name: measure(found, labels, true) for name, found in ways.items()}


def digits(kind: str, rate: float, factor: float, seed: int, network: str, epochs: int):
    """Trains on the digits; returns given and true labels, predictions and dynamics."""
    config = configuration.load("digits_losses:ce")
    config.seed, config.network.name, config.train.epochs = seed, network, epochs
    config.network.width = 64 if network == "mlp" else 8
    config.data.noise.kind, config.data.noise.rate = kind, rate
    config.data.noise.map = FLIPS if kind == "asymmetric" else None
    config.data.imbalance.kind = "none" if factor == 1 else "exponential"
    config.data.imbalance.factor = factor
    experiment = assemble(configuration.validate(config))
    state, _ = fit.fit(experiment)
    seen = gathered(state)
    p = cross_validation.out_of_sample(experiment, 5)
    train = experiment.data.train
    return train.labels, train.true_labels, p, seen.probabilities


def from_workdir(workdir: Path):
    """Reads a finished run; returns the same as `digits`."""
    record, found = manifest.load(workdir / "noise.npz"), audit.load(workdir / "evidence.npz")
    if not record.truth_known or "out_of_sample" not in found:
        raise SystemExit(f"{workdir}: the truth or out-of-sample predictions are not known.")
    rows = record.train
    during = found["training_probabilities"].astype(np.float32)
    return rows.given_labels, rows.true_labels, found["out_of_sample"], during


COLUMNS = {
    "auprc": "area under precision–recall",
    "auroc": "area under ROC",
    "precision_at_errors": "precision at the number of errors",
    "calibration_error": "calibration error",
    "precision": "precision of flags",
    "recall": "recall",
}
BY_SIZE = {"recall": "recall", "false_alarms": "false alarms"}


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(results: dict[str, list[dict]]) -> str:
    """Returns the results as Markdown: a row for each setting and way."""
    lines = [f"| labels | score | {' | '.join(COLUMNS.values())} |", "| --- " * 8 + "|"]
    for setting, runs in results.items():
        best = max(runs[0], key=lambda way: statistics.mean(run[way]["auprc"] for run in runs))
        for way in runs[0]:
            area, *others = (cell([run[way][key] for run in runs]) for key in COLUMNS)
            area = f"**{area}**" if way == best else area
            lines.append(f"| {setting} | {way} | {area} | {' | '.join(others)} |")
    return "\n".join(lines)


def by_size(results: dict[str, list[dict]]) -> str:
    """Returns the flags by size of class as Markdown, for the settings with a long tail."""
    heads = [f"{part}: {name}" for name in BY_SIZE.values() for part in THIRDS]
    lines = [f"| labels | flags of | {' | '.join(heads)} |", "| --- " * 8 + "|"]
    for setting, runs in results.items():
        for way in runs[0] if "long tail" in setting else []:
            if way.startswith("cleanlab") and SCORES[0].replace("_", " ") not in way:
                continue  # One filter, whatever the score.
            cells = [
                cell([run[way]["thirds"][part][key] for run in runs])
                for key in BY_SIZE
                for part in THIRDS
            ]
            lines.append(f"| {setting} | {way.split(', self')[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--network", default="mlp", choices=("mlp", "small_cnn"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--workdir", type=Path, nargs="+", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict]] = {}
    for workdir in options.workdir:
        results[workdir.name] = [compare(*from_workdir(workdir))]
    for setting in [] if options.workdir else options.settings:
        for seed in options.seeds:
            data = digits(*SETTINGS[setting], seed, options.network, options.epochs)
            results.setdefault(setting, []).append(compare(*data))
            print(f"{setting}, seed {seed}", flush=True)
    print(table(results) + "\n\n" + by_size(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
