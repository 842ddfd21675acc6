"""Finding wrong labels, beside cleanlab, on the same out-of-sample predictions.

    python -m benchmarks.label_issues [--seeds 0 1 2] [--network mlp] [--epochs 50] [--json OUT]
    python -m benchmarks.label_issues --workdir RUN [RUN …]

Without a workdir: scikit-learn's digits with wrong labels, `SETTINGS` times seeds. Every training
example is predicted by a network of 5-fold cross-validation that has not seen it; both libraries
get these predictions. `training and predictions` has the training dynamics of one more training
besides, as every run of the trainer records them. With workdirs: finished runs whose truth is
known, with out-of-sample predictions (`--config.audit.folds=5`).

Area under the precision-recall curve of finding wrong labels by the score; then precision and
recall of what is flagged. Mean over the seeds, ± their standard deviation. cleanlab is used with
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
from typing import NamedTuple

import numpy as np

from jaxrobust import config as configuration
from jaxrobust.audit import find_label_issues
from jaxrobust.audit.truth import auprc
from jaxrobust.data import manifest
from jaxrobust.methods import gathered
from jaxrobust.training import auditing, folds, memory
from jaxrobust.training.experiment import assemble

FLIPS = "0:8,1:7,2:3,3:8,4:9,5:6,6:5,7:1,8:3,9:4"
SETTINGS = {
    f"{name}, {rate:.0%}": (kind, rate, factor)
    for name, kind, factor in (("symmetric", "symmetric", 1.0), ("asymmetric", "asymmetric", 1.0),
                               ("symmetric, long tail 0.1", "symmetric", 0.1))
    for rate in (0.2, 0.4)
}
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


class Found(NamedTuple):
    """A way of finding wrong labels: `suspicion` float [N], `flagged` bool [N], seconds taken."""

    suspicion: np.ndarray
    flagged: np.ndarray
    seconds: float


def measure(found: Found, wrong: np.ndarray) -> dict[str, float]:
    hit = found.flagged & wrong
    return {
        "auprc": auprc(wrong, found.suspicion),
        "precision": float(hit.sum() / max(found.flagged.sum(), 1)),
        "recall": float(hit.sum() / max(wrong.sum(), 1)),
        "seconds": found.seconds,
    }


def ours(labels: np.ndarray, **evidence) -> Found:
    begin = time.perf_counter()
    issues = find_label_issues(labels, **evidence)
    return Found(-issues.rank, issues.is_label_issue, time.perf_counter() - begin)


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
    return {
        f"cleanlab, {method.replace('_', ' ')}": Found(-quality(labels, p, method=method), flagged,
                                                       seconds)
        for method in SCORES
    }


def compare(labels, true, p, training) -> dict[str, dict[str, float]]:
    """Returns the measures of each way, for one data set and one seed."""
    ways = cleanlabs(labels, p)
    ways["jaxrobust, predictions"] = ours(labels, probabilities=p)
    ways["jaxrobust, training and predictions"] = ours(
        labels, probabilities=p, training_probabilities=training
    )
    return {name: measure(found, labels != true) for name, found in ways.items()}


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
    state, _ = memory.fit(experiment)
    seen = gathered(state)
    p = folds.out_of_sample(experiment, 5)
    train = experiment.data.train
    return train.labels, train.true_labels, p, seen.probabilities


def from_workdir(workdir: Path):
    """Reads a finished run; returns the same as `digits`."""
    record, found = manifest.load(workdir / "noise.npz"), auditing.load(workdir / "evidence.npz")
    if not record.truth_known or "out_of_sample" not in found:
        raise SystemExit(f"{workdir}: the truth or out-of-sample predictions are not known.")
    rows = record.train
    during = found["training_probabilities"].astype(np.float32)
    return rows.given_labels, rows.true_labels, found["out_of_sample"], during


def table(results: dict[str, list[dict]]) -> str:
    """Returns the results as Markdown: a row for each setting and way."""
    def cell(runs, way, key):
        values = [run[way][key] for run in runs]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{spread}"

    lines = ["| labels | score | area under precision–recall | precision of flags | recall |",
             "| --- | --- | --- | --- | --- |"]
    for setting, runs in results.items():
        best = max(runs[0], key=lambda way: statistics.mean(run[way]["auprc"] for run in runs))
        for way in runs[0]:
            area = cell(runs, way, "auprc")
            area = f"**{area}**" if way == best else area
            others = " | ".join(cell(runs, way, key) for key in ("precision", "recall"))
            lines.append(f"| {setting} | {way} | {area} | {others} |")
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
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
