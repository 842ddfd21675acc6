"""What a run leaves in its workdir beside checkpoints and metrics."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrobust import __version__, files
from jaxrobust import config as configuration
from jaxrobust.data import manifest
from jaxrobust.runs import audit as auditing
from jaxrobust.runs.evaluation import Evaluated, evaluate
from jaxrobust.training import metrics
from jaxrobust.training.metrics_log import read_rows
from jaxrobust.training.sharding import is_first


def write_start(experiment, workdir: Path) -> None:
    """Writes config.json, environment.json, noise.npz and, of a table, columns.npz."""
    if not is_first():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    manifest.save(experiment.data.manifest, workdir / "noise.npz")
    if experiment.data.encoder is not None:
        with files.whole(workdir / "columns.npz", "wb") as file:
            np.savez(file, **experiment.data.encoder.to_arrays())
    write_json(workdir / "environment.json", environment())
    _replace(workdir / "config.json", configuration.to_json(experiment.config))


def environment() -> dict[str, Any]:
    """Versions and devices: what a number depends on beside the configuration."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn",
                "grain", "tensorflow-datasets")
    device = jax.devices()[0]
    return {
        "jaxrobust": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "device_kind": device.device_kind,
        "processes": jax.process_count(),
        "command": " ".join(sys.argv),
    }


def measure_run(
    experiment, state, place, selected, last: dict[str, Evaluated] | None = None
) -> tuple[dict[str, Any], dict[str, Evaluated]]:
    """Measures the last parameters of a run, and those selected if any were, else the last again.

    Args:
      selected: (params, batch_stats), see `saving.Selection`.
      last: what `evaluate` gives for the last parameters, if it is known.

    Returns:
      What of it goes into results.json; and `last`.
    """
    last = last or evaluate(experiment, state.params, state.batch_stats)
    numbers = {"epoch": place.epoch} | _numbers(
        experiment, state.params, state.batch_stats, last
    )
    measured = {
        "selection_split": None, "selection_metric": None, "last": numbers, "selected": numbers
    }
    if place.selected_value is not None:
        measured["selection_split"] = "validation"
        measured["selection_metric"] = experiment.config.eval.select
        if place.selected_epoch != place.epoch:
            chosen = _numbers(experiment, *selected, evaluate(experiment, *selected))
            measured["selected"] = {"epoch": place.selected_epoch} | chosen
    return measured, last


def _numbers(experiment, params, batch_stats, evaluated: dict[str, Evaluated]) -> dict[str, Any]:
    """Returns the numbers of test and validation data, and of wrong training labels."""
    data, numbers = experiment.data, {}
    for name, prefix in (("test", ""), ("validation", "validation_")):
        if name in evaluated:
            numbers |= {prefix + key: v for key, v in evaluated[name].numbers.items()}
    if data.truth_known:
        given, true = data.train.labels, data.train.true_labels
        logits = np.asarray(experiment.forward(params, batch_stats, data.train.x))
        numbers |= metrics.memorisation(logits[: len(given)], given, true)
    return numbers


def draw_learned(experiment, workdir: Path) -> None:
    """Draws, from metrics.jsonl, how what was learned has changed over the epochs."""
    from jaxrobust.plots import learned

    data, rows = experiment.data, read_rows(workdir / "metrics.jsonl")
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    learned.draw_history(rows, workdir / "figures", counts, data.class_names)


def write_end(
    experiment, workdir, state, place, selected, seconds, last: dict[str, Evaluated] | None
) -> dict[str, Any]:
    """Measures the last and the selected parameters; writes results.json, figures, the audit.

    The arguments are those of `measure_run`.
    """
    config, data = experiment.config, experiment.data
    measured, last = measure_run(experiment, state, place, selected, last)
    noise = noise_summary(data)
    results = {
        "method": config.method.name,
        "loss": config.loss.name,
        "seed": config.seed,
        "epochs": place.epoch,
        "steps": int(state.step),
        **measured,
        "noise": noise,
        "seconds": seconds,
    }
    found = auditing.gather(experiment, state, evaluated=last)
    if not is_first():
        return results
    if config.log.figures:
        from jaxrobust.plots import run as figures

        rows = read_rows(workdir / "metrics.jsonl")
        test = (last["test"].logits, data.test.labels) if "test" in last else None
        figures.write_all(workdir / "figures", rows, test, data.class_names, results)
        draw_learned(experiment, workdir)
    auditing.save(found, workdir / "evidence.npz")
    audited = auditing.find(config, data.manifest, found)
    results["audit"] = audited.summary
    auditing.write(workdir, config, data.manifest, found, audited, results, data.train)
    write_json(workdir / "results.json", results)
    return results


def noise_summary(data) -> dict[str, Any]:
    """Returns what was asked of labels and class sizes, and what came of it, as plain values."""
    record = data.manifest
    made = {k: np.asarray(v).tolist() for k, v in manifest.realised(record).items()}
    if not data.truth_known:
        made |= {"realised_rate": None, "realised_rate_per_class": None}
    return {
        "requested_kind": record.noise_kind,
        "requested_rate": record.noise_rate,
        "imbalance_kind": record.imbalance_kind,
        "imbalance_factor": record.imbalance_factor,
        "fingerprint": record.fingerprint,
        **made,
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes strict JSON, whole or not at all."""
    _replace(path, json.dumps(_plain(values), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Returns a value as strict JSON has it: NaN and infinities become null."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    with files.whole(path) as file:
        file.write(text)


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Returns a text table of the test numbers of several `results.json`, last and selected."""
    columns = {
        "accuracy": "accuracy", "balanced_accuracy": "balanced", "many": "many",
        "medium": "medium", "few": "few", "negative_log_likelihood": "NLL",
        "expected_calibration_error": "ECE", "memorised": "memorised",
    }
    head = ["run", "epoch", *columns.values()]
    lines = [head]
    for name, results in runs.items():
        rows = ["last"] + (["selected"] if results["selection_split"] else [])
        for which in rows:
            numbers = results[which]
            cells = [f"{name} ({which})", str(numbers["epoch"])]
            for key in columns:
                value = numbers.get(key)
                percent = key not in ("negative_log_likelihood",)
                cells.append("–" if value is None else f"{100 * value:.1f} %" if percent
                             else f"{value:.3f}")
            lines.append(cells)
    widths = [max(len(row[i]) for row in lines) for i in range(len(head))]
    out = []
    for row in lines:
        first, *rest = (c.ljust(w) if i == 0 else c.rjust(w)
                        for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        out.append("  ".join([first, *rest]))
    out.insert(1, "-" * len(out[0]))
    return "\n".join(out)
