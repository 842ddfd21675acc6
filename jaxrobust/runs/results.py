"""Results of a run: what its workdir holds next to checkpoints and metrics."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import __version__, files
from jaxrobust import config as configuration
from jaxrobust.data import manifest
from jaxrobust.data.prepare import Prepared
from jaxrobust.errors import check
from jaxrobust.methods.method import TrainState
from jaxrobust.runs import audit as auditing
from jaxrobust.runs import model as models
from jaxrobust.runs.evaluation import Evaluated, evaluate
from jaxrobust.runs.experiment import Experiment
from jaxrobust.training import average, metrics
from jaxrobust.training.loop import Place
from jaxrobust.training.metric_table import METRICS
from jaxrobust.training.metrics_log import read_rows
from jaxrobust.training.saving import Wave
from jaxrobust.training.sharding import is_first

MATRICES = "matrices.npz"
GIVEN = "given labels"
VERSION = 1
_KINDS: dict[str, tuple[type, ...]] = {
    "last": (dict,),
    "selected": (dict,),
    "selection_split": (str, type(None)),
    "noise": (dict,),
    "epochs": (int,),
}
_LEAST = ("last", "selected")


def write_start(experiment: Experiment, model: Any, workdir: Path) -> None:
    """Writes config.json, model.npz, environment.json and noise.npz into a folder that is there."""
    if not is_first():
        return
    manifest.save(experiment.data.manifest, workdir / "noise.npz")
    models.save(model, workdir)
    write_json(workdir / "environment.json", environment())
    _replace(workdir / "config.json", configuration.to_json(experiment.config))


def load(workdir: Path) -> dict[str, Any]:
    """Reads results.json.

    Raises:
      UserError: it is not there, damaged, or written by a later version.
    """
    path = workdir / "results.json"
    check(path.is_file(), f"{workdir} holds no finished run (no results.json).")
    found = files.read_json(path)
    version = found.get("version", VERSION)
    check(version == VERSION, f"{path} is of version {version}; this jaxrobust reads {VERSION}.")
    problem = _problem(found)
    check(problem is None, f"{path} does not hold the results of a run: {problem}.")
    return found


def _problem(found: dict[str, Any]) -> str | None:
    """Returns what of the contents of a results.json is not as `write_end` writes it, or None."""
    for name in sorted(found.keys() | set(_LEAST)):
        if name in _KINDS and type(found.get(name)) not in _KINDS[name]:
            return f"{name!r} is missing or of another type"
    for which in ("last", "selected"):
        for name, value in found[which].items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (
                number or value is None or (name.endswith("per_class") and isinstance(value, list))
            ):
                return f"{which}.{name} is no number"
    if found.keys() & {"audit"}:
        return auditing.problem(found["audit"])
    return None


def environment() -> dict[str, Any]:
    """Returns versions and devices: what results depend on besides the configuration."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "scikit-learn",
        "grain",
        "tensorflow-datasets",
    )
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
    experiment: Experiment,
    state: TrainState,
    place: Place,
    selected: Any,
    last: dict[str, Evaluated] | None = None,
    wave: Wave | None = None,
) -> tuple[dict[str, Any], dict[str, Evaluated]]:
    """Measures the last parameters of a run, and those selected if any were, else the last again.

    Args:
      selected: (params, batch_stats), see `saving.Selection`.
      last: what `evaluate` gives for the last parameters, if it is known.
      wave: see `saving.Wave`, or None.

    Returns:
      What of it goes into results.json; and `last`.
    """
    last = last or evaluate(experiment, state.params, state.network_state)
    numbers = {"epoch": place.epoch} | _numbers(experiment, state.params, state.network_state, last)
    measured = {
        "measured_on": measured_on(experiment.config, experiment.data),
        "selection_split": None,
        "selection_metric": None,
        "last": numbers,
        "selected": numbers,
    }
    if place.selected_value is not None:
        measured["selection_split"] = "validation"
        measured["selection_metric"] = experiment.config.eval.select
        if place.selected_epoch != place.epoch:
            chosen = _numbers(experiment, *selected, evaluate(experiment, *selected))
            measured["selected"] = {"epoch": place.selected_epoch} | chosen
    if state.average:
        measured["ema"] = {"epoch": place.epoch} | _measure(experiment, average.weights(state))
    if wave is not None and wave.epoch:
        same = wave.epoch == place.epoch
        found = numbers if same else _measure(experiment, wave.of(state))
        measured["label_wave"] = found | {"epoch": wave.epoch}
    return measured, last


def _measure(experiment: Experiment, weights: tuple[Any, Any]) -> dict[str, Any]:
    return _numbers(experiment, *weights, evaluate(experiment, *weights))


def measured_on(config: ConfigDict, data: Prepared) -> str:
    """Returns what test numbers are measured on: "given labels", some of which may be wrong, where
    a user's own data come without any truth; else "true labels"."""
    own = config.data.name in configuration.OWN_DATA and not data.truth_known
    return GIVEN if own else "true labels"


def _numbers(
    experiment: Experiment, params: Any, batch_stats: Any, evaluated: dict[str, Evaluated]
) -> dict[str, Any]:
    """Returns the numbers of test and validation data, and of wrong training labels."""
    data, numbers = experiment.data, {}
    for name, prefix in (("test", ""), ("validation", "validation_")):
        if name in evaluated:
            numbers |= {prefix + key: v for key, v in evaluated[name].numbers.items()}
    if data.truth_known:
        given, true = data.train.labels, data.train.true_labels
        logits = np.asarray(experiment.forward(params, batch_stats, data.train.x))
        numbers |= metrics.memorization(logits[: len(given)], given, true)
    return numbers


def draw_learned(experiment: Experiment, workdir: Path) -> None:
    """Draws, from metrics.jsonl, how what was learned has changed over the epochs."""
    from jaxrobust.plots import learned

    data, rows = experiment.data, read_rows(workdir / "metrics.jsonl")
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    learned.draw_history(rows, workdir / "figures", counts, data.class_names)


def write_end(
    experiment: Experiment,
    workdir: Path,
    state: TrainState,
    place: Place,
    selected: Any,
    seconds: Any,
    last: dict[str, Evaluated] | None,
    pause: Callable = lambda *_: None,
    wave: Wave | None = None,
) -> dict[str, Any]:
    """Measures the last and the selected parameters; writes results.json, figures, the audit.

    Args:
      experiment, state, place, selected, last, wave: see `measure_run`.
      workdir: folder of the run.
      seconds: that the epochs took, by what they were.
      pause: called now and then, for instance within a cross-validation; may raise to leave.

    Returns:
      The contents of results.json.
    """
    config, data = experiment.config, experiment.data
    pause()
    measured, last = measure_run(experiment, state, place, selected, last, wave)
    noise = noise_summary(data)
    results = {
        "version": VERSION,
        "method": config.method.name,
        "loss": config.loss.name,
        "seed": config.seed,
        "epochs": place.epoch,
        "steps": int(state.step),
        **measured,
        "noise": noise,
        "seconds": seconds,
    }
    found = auditing.gather(experiment, state, evaluated=last, pause=pause)
    if not is_first():
        return results
    if config.log.figures:
        from jaxrobust.plots import run as figures

        rows = read_rows(workdir / "metrics.jsonl")
        test = (last["test"].logits, data.test.labels) if data.test is not None else None
        figures.write_all(workdir / "figures", rows, test, data.class_names, results)
        draw_learned(experiment, workdir)
    auditing.save(found, workdir / "evidence.npz", auditing.fingerprint(workdir))
    audited = auditing.find(config, data.manifest, found)
    results["audit"] = audited.summary
    write_matrices(workdir, data, last)
    auditing.write(workdir, config, data.manifest, found, audited, results, data.train)
    write_json(workdir / "results.json", results)
    return results


def write_matrices(workdir: Path, data: Prepared, last: dict[str, Evaluated]) -> None:
    """Writes matrices.npz: what has a row and a column per class.

    Keys: class_names [K]; transition_counts int [K, K] `[true, given]` of the training labels;
    confusion int [K, K] `[label, predicted]` of the test data by the last parameters, where there
    are test data. The audit's noise matrix is in sample_weights.npz.
    """
    from sklearn.metrics import confusion_matrix  # Takes a second to import.

    k = len(data.class_names)
    arrays = {
        "class_names": np.array(data.class_names, str),
        "transition_counts": manifest.realised(data.manifest)["transition_counts"],
    }
    if data.test is not None:
        predicted = last["test"].logits.argmax(1)
        arrays["confusion"] = confusion_matrix(data.test.labels, predicted, labels=np.arange(k))
    with files.whole(workdir / MATRICES, "wb") as file:
        np.savez_compressed(file, **arrays)


def noise_summary(data: Prepared) -> dict[str, Any]:
    """Returns what was asked of labels and class sizes, and what came of it, as plain values."""
    record = data.manifest
    made = manifest.realised(record)
    made["transition_counts"] = auditing.small_matrix(made["transition_counts"])
    made = {k: v if v is None else np.asarray(v).tolist() for k, v in made.items()}
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
    """Returns a text table of the test numbers of several `results.json`, last and selected.

    A metric that no run has is left out.
    """
    rows, said = [], []
    for name, results in runs.items():
        if "agreement" in results["last"]:
            said.append(_agreement(name, results["last"]))
            continue
        which = ["last"] + (["selected"] if results["selection_split"] else [])
        which += [name for name in ("ema", "label_wave") if name in results]
        for parameters in which:
            for run in results.get("runs", ()):
                rows.append((f"{name}/{run['workdir']} ({parameters})", run[parameters], {}))
            deviation = results.get("deviation", {}).get(parameters, {})
            title = f"{name} ({parameters}{', mean ± deviation' if deviation else ''})"
            rows.append((title, results[parameters], deviation))
    if not rows:
        return "\n".join(said)
    shown = {
        name: metric
        for name, metric in METRICS.items()
        if any(numbers.get(name) is not None for _, numbers, _ in rows)
    }
    given = all(
        r.get("measured_on") == GIVEN for r in runs.values() if "agreement" not in r["last"]
    )
    headings = [m.heading.replace("accuracy", "agreement" if given else "accuracy")
                for m in shown.values()]  # fmt: skip
    if given and shown:
        said.append("Agreement with the given labels of the test data, of which some may be wrong.")
    lines = [["run", "epoch", *headings]]
    for title, numbers, deviation in rows:
        values = [
            metric.text(numbers.get(name), deviation.get(name), " %")
            for name, metric in shown.items()
        ]
        epoch = numbers.get("epoch")
        lines.append([title, "–" if epoch is None else f"{epoch:g}", *values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    out = [
        "  ".join(
            c.rjust(w) if i else c.ljust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    out.insert(1, "-" * len(out[0]))
    return "\n".join([*out, *said])


def _agreement(name: str, numbers: dict[str, Any]) -> str:
    """Returns what was measured on given labels, in words: some of them are wrong."""
    text = (
        f"{name}: agreement with the given labels {100 * numbers['agreement']:.1f} %, mean over "
        f"the classes {100 * numbers['balanced_agreement']:.1f} % (cross-validated)"
    )
    if "test_agreement" in numbers:
        text += f"; of test examples {100 * numbers['test_agreement']:.1f} %"
    return text + "."
