"""Audit of a run: evidence kept in `evidence.npz`, label issues, weights and report made of it.

All but the evidence can be made again, without the checkpoints, and without the data but for the
pictures: `--mode=audit`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import files, process
from jaxrobust.audit import LabelIssues, decisions, export, find_label_issues
from jaxrobust.audit.checks import line
from jaxrobust.audit.scoring import against_truth
from jaxrobust.data import manifest
from jaxrobust.data.manifest import Manifest, Rows
from jaxrobust.data.prepare import Everything, Part, everything, prepare
from jaxrobust.errors import UserError, check, writing
from jaxrobust.methods.method import TrainState
from jaxrobust.runs import cross_validation, rematch
from jaxrobust.runs import model as models
from jaxrobust.runs.evaluation import Evaluated, evaluate
from jaxrobust.runs.experiment import Experiment, assemble, data_seed, load_source
from jaxrobust.runs.lock import locked
from jaxrobust.runs.workdir import read_config
from jaxrobust.training.dynamics import gathered
from jaxrobust.training.metrics import class_groups
from jaxrobust.training.signals import Interrupt

_RUN = "run"
MEMORIZED_GAP = 0.1
"""By so much a network that memorizes agrees more with its training labels than with others."""
MOST_CLASSES = 30
"""So many classes at most have their [K, K] matrices in results.json."""
FILES = ("label_issues.csv", "sample_weights.npz", "report.html")
Evidence = dict[str, np.ndarray]
"""By name: `curves` [N, S], `training_probabilities` [N, P, K], `out_of_sample` [N, K],
`weights_<method>` [N], `held_out` [V, K] (predictions of the validation examples), `paths` [N],
`paths_metadata` [M], `paths_validation` [V]; `outside_predictions`, `outside_labels`,
`outside_index`, `outside_split`, `outside_paths` of a user's own validation and test examples.
Those that a run has not got are left out."""


def small_matrix(matrix: Any) -> list | None:
    """Returns a matrix [K, K] as lists, or None where it is too large for results.json."""
    return None if matrix is None or len(matrix) > MOST_CLASSES else np.asarray(matrix).tolist()


class Audited(NamedTuple):
    """What an audit found: the issues, what of them goes into results.json, the folder that `FILES`
    were written to, if they were, and the issues of the examples that were not trained on, where
    they are not among the others."""

    issues: LabelIssues
    summary: dict[str, Any]
    folder: Path | None = None
    outside: LabelIssues | None = None

    @property
    def every(self) -> LabelIssues:
        """The issues of all judged examples: those trained on, then those of `outside`."""
        return self.issues if self.outside is None else self.issues.joined(self.outside)


def split_of(found: Evidence, issues: LabelIssues, trained: int) -> np.ndarray:
    """Returns the split str [N] of each example of `Audited.every`, or of the `trained` first."""
    if "split" in found:
        return found["split"]
    outside = found.get("outside_split", np.zeros(0, str))
    return np.concatenate([np.full(trained, "train"), outside])[: len(issues)]


def weights_source(method: str) -> str:
    """Returns what a method's weights are called as evidence."""
    return "corrector" if method == "dynamic_loss" else method


def gather(
    experiment: Experiment,
    state: TrainState,
    say: Callable[[str], None] = lambda line: None,
    *,
    evaluated: dict[str, Evaluated] | None = None,
    pause: Callable = lambda *_: None,
) -> Evidence:
    """Collects the evidence of a trained state; every process takes part.

    Args:
      experiment: the run.
      state: its last state.
      say: called with a line per fold of a cross-validation.
      evaluated: what `evaluate` gives for the state, if it is known.
      pause: called now and then; may raise to leave.
    """
    config, data = experiment.config, experiment.data
    everywhere = jax.jit(lambda tree: tree, out_shardings=experiment.layout.copies())
    seen = gathered(state._replace(dynamics=everywhere(state.dynamics)))
    found: Evidence = {"curves": np.minimum(seen.curves, 1e4).astype(np.float16)}
    if seen.probabilities is not None:
        found["training_probabilities"] = seen.probabilities.astype(np.float16)
    report = experiment.method.report(state) if experiment.method.report else {}
    if "weights" in report:
        name = weights_source(config.method.name)
        found[f"weights_{name}"] = np.asarray(everywhere(report["weights"]))
    if data.validation is not None and data.validation_kind == "noisy":
        evaluated = evaluated or evaluate(
            experiment, state.params, state.network_state, ("validation",)
        )
        found["held_out"] = np.asarray(jax.nn.softmax(evaluated["validation"].logits))
    if (config.audit.folds or 0) > 1:
        found["out_of_sample"] = cross_validation.out_of_sample(
            experiment, config.audit.folds, say, pause
        )
    if data.train.votes is not None:
        found["votes"] = data.train.votes
    if config.data.name in configuration.OWN_DATA and not data.truth_known:
        found |= _outside(experiment, state, evaluated)
    pause()
    for name, part in (
        ("paths", data.train),
        ("paths_metadata", data.metadata),
        ("paths_validation", data.validation),
    ):
        if part is not None and part.ids is not None:
            found[name] = np.array(part.ids)
    return found


def _outside(
    experiment: Experiment, state: Any, evaluated: dict[str, Evaluated] | None
) -> Evidence:
    """Returns predictions of the user's own validation and test examples, never trained on."""
    parts = {
        name: part
        for name in ("validation", "test")
        if (part := getattr(experiment.data, name)) is not None
    }
    if not parts:
        return {}
    if evaluated is None or not parts.keys() <= evaluated.keys():
        evaluated = evaluate(experiment, state.params, state.network_state, tuple(parts))
    logits = np.concatenate([np.asarray(evaluated[name].logits) for name in parts])
    found = {
        "outside_predictions": np.asarray(jax.nn.softmax(logits)),
        "outside_labels": np.concatenate([part.labels for part in parts.values()]),
        "outside_index": np.concatenate([part.index for part in parts.values()]),
        "outside_split": np.repeat(list(parts), [len(part.labels) for part in parts.values()]),
    }
    if all(part.ids is not None for part in parts.values()):
        found["outside_paths"] = np.array([name for p in parts.values() for name in p.ids or ()])
    return found


def save(found: Evidence, path: Path, run: str = "") -> None:
    """Writes evidence.npz, whole or not at all; `run`: the fingerprint of whose it is."""
    with files.whole(path, "wb") as file:
        np.savez(file, **found, **({_RUN: np.array(run)} if run else {}))


def load(path: Path, run: str = "") -> Evidence:
    """Reads evidence.npz.

    Args:
      path: of the file.
      run: fingerprint of the run that it should be of, or "".

    Raises:
      UserError: it cannot be read, or another run wrote it.
    """
    found = files.read_npz(path, "is not the evidence of a run")
    own = str(found.pop(_RUN, run))
    check(
        not run or own == run,
        f"{path} is another run's. Put this run's own back, or remove it and run the training "
        "command again: it makes what is lost.",
    )
    return found


def load_record(workdir: Path) -> Manifest:
    """Returns the manifest of a run, noise.npz.

    Raises:
      UserError: it cannot be read, or another run wrote it.
    """
    path = workdir / "noise.npz"
    record, model = manifest.load(path), models.load_model(workdir)
    check(
        model is None or models.is_record(model, record),
        f"{path} is another run's. Put this run's own back, or remove it and run the training "
        "command again: it makes what is lost.",
    )
    return record


def fingerprint(workdir: Path) -> str:
    """Returns the fingerprint of the run of a workdir; "" where it has none."""
    model = models.load_model(workdir)
    return "" if model is None else model.fingerprint


def find(config: ConfigDict, record: Manifest, found: Evidence) -> Audited:
    """Finds the label issues of the training examples of a manifest."""
    rows, names = judged_rows(record, found), record.class_names
    weights = {
        name.removeprefix("weights_"): values
        for name, values in found.items()
        if name.startswith("weights_")
    }
    issues = find_label_issues(
        rows.given_labels,
        probabilities=found.get("out_of_sample"),
        true_probabilities=found.get("true_out_of_sample"),
        training_probabilities=found.get("training_probabilities"),
        curves=found.get("curves"),
        votes=found.get("votes"),
        crowd=config.data.consensus if "votes" in found else None,
        weights=weights,
        class_names=names,
        index=rows.index,
        seed=config.seed,
        paths=found.get("judged_paths", found.get("paths")),
    )
    summary = {
        "sources": list(issues.scores),
        "noise_rate": issues.noise_rate,
        "noise_rate_interval": list(issues.noise_rate_interval),
        "flagged": issues.num_issues,
        "expected": round(issues.noise_rate * len(issues)),
        "expected_interval": list(issues.num_issues_interval),
        "noise_matrix": small_matrix(issues.noise_matrix),
        "held_out": _held_out(config, record, found),
        "truth": None,
        "codes": list(issues.codes),
        "notes": list(issues.notes),
    }
    summary["doubt"] = _doubt(summary)
    if record.truth_known:
        counts = np.bincount(rows.given_labels, minlength=len(names))
        groups = class_groups(counts, config.eval.many_above, config.eval.few_below)
        truth = against_truth(issues, rows.true_labels, groups)
        summary["truth"] = truth | {"noise_matrix": small_matrix(truth["noise_matrix"])}
    outside = _judged_outside(config, record, found)
    if outside is not None:
        summary["outside"] = {"examples": len(outside), "flagged": outside.num_issues}
    return Audited(issues, summary, outside=outside)


def _judged_outside(config: ConfigDict, record: Manifest, found: Evidence) -> LabelIssues | None:
    """Returns the issues of validation and test examples, by the predictions of the network."""
    if "outside_predictions" not in found or len(found["outside_labels"]) < 2:
        return None
    return find_label_issues(
        found["outside_labels"],
        probabilities=found["outside_predictions"],
        class_names=record.class_names,
        index=found["outside_index"],
        seed=config.seed,
        paths=found.get("outside_paths"),
    )


def judged_rows(record: Manifest, found: Evidence) -> Rows:
    """Returns the examples that are judged: those of training, or all where evidence has all."""
    if "judged_labels" not in found:
        return record.train
    return Rows(*(found[f"judged_{name}"] for name in ("index", "labels", "true")))


def problem(summary: Any) -> str | None:
    """Returns what of results.json's "audit" is not as `find` has it, or None."""
    number = (int, float)
    kinds = {"flagged": int, "noise_rate": number, "truth": (dict, type(None)), "codes": list}
    right = isinstance(summary, dict) and all(
        isinstance(summary.get(name, []), kind) for name, kind in kinds.items()
    )
    if right:
        interval, truth = summary.get("noise_rate_interval"), summary["truth"]
        right = (
            isinstance(interval, list) and [isinstance(v, number) for v in interval] == [True] * 2
        )
        right &= truth is None or isinstance(truth.get("noise_rate"), number)
        right &= truth is None or isinstance(truth.get("auprc"), (*number, type(None)))
        right &= all(isinstance(note, str) for note in summary.get("notes", ()))
    return None if right else "'audit' is not what an audit found"


def sentence(summary: dict[str, Any]) -> str:
    """Says in words what an audit found."""
    low, high = summary["noise_rate_interval"]
    text = (
        f"Labels: {summary['flagged']} flagged as wrong; about {100 * summary['noise_rate']:.1f} % "
        f"are (95 % interval {100 * low:.1f} to {100 * high:.1f} %)."
    )
    truth = summary["truth"]
    if truth is not None:
        text += f" In truth {100 * truth['noise_rate']:.1f} %"
        if truth["auprc"] is not None:
            text += f"; area under the precision-recall curve {truth['auprc']:.3f}"
        text += "."
    outside = summary.get("outside")
    if outside:
        text += (
            f" Of {outside['examples']} validation and test labels, never trained on, "
            f"{outside['flagged']} are flagged."
        )
    lines = [text, *summary.get("notes", ())]
    return "\n".join([*lines, summary["doubt"]] if summary.get("doubt") else lines)


def _held_out(config: ConfigDict, record: Manifest, found: Evidence) -> dict[str, Any] | None:
    """Returns what predictions say of the labels of the validation examples, never trained on."""
    if "held_out" not in found or record.validation is None:
        return None
    issues = find_label_issues(
        record.validation.given_labels,
        probabilities=found["held_out"],
        class_names=record.class_names,
        seed=config.seed,
    )
    labels = record.validation.given_labels
    return {
        "examples": len(issues),
        "noise_rate": issues.noise_rate,
        "noise_rate_interval": list(issues.noise_rate_interval),
        "agreement": float((found["held_out"].argmax(1) == labels).mean()),
        "training_agreement": _training_agreement(record, found),
    }


def _training_agreement(record: Manifest, found: Evidence) -> float:
    """Returns how far a network agrees, at the end, with the labels that it was trained on.

    By the loss of the last part of the training where that is known: below log 2 no other class is
    as probable. Else by the predictions averaged over the training.
    """
    if "curves" in found:
        last = np.asarray(found["curves"][:, -1], np.float32)
        return float((last[np.isfinite(last)] < np.log(2)).mean()) if np.isfinite(last).any() else 0
    p = np.asarray(found["training_probabilities"])
    p = p if p.ndim == 2 else p[:, -1]
    return float((p.argmax(1) == record.train.given_labels).mean())


def _doubt(summary: dict[str, Any]) -> str | None:
    """Says so where the labels that a network was not trained on look worse than the others.

    If it agrees with its training labels much more than with those, it has learned wrong ones too
    soon for its training to show them (`memorized`); if not, it has not learned enough to tell
    (`underfitted`).
    """
    held_out = summary["held_out"]
    if "prediction" in summary["sources"] or held_out is None:
        return None
    if held_out["noise_rate_interval"][0] <= summary["noise_rate"] + 0.02:
        return None
    own, other = held_out["training_agreement"], held_out["agreement"]
    if own - other < MEMORIZED_GAP:
        summary["codes"].append("underfitted")
        return line(
            "underfitted",
            f"Agreement: {100 * own:.0f} % of the labels it was trained on, {100 * other:.0f} % of "
            "those it was not.",
        )
    summary["codes"] += [] if "memorized" in summary["codes"] else ["memorized"]
    return (
        f"Of the validation labels, never trained on, about {100 * held_out['noise_rate']:.0f} % "
        "look wrong: the network may have learned wrong labels by heart before its training could "
        "show them [memorized]. Out-of-sample predictions tell more: --mode=audit "
        "--config.audit.folds=5."
    )


def write(
    workdir: Path,
    config: ConfigDict,
    record: Manifest,
    found: Evidence,
    audited: Audited,
    results: dict[str, Any],
    train: Part | Everything | rematch.Shown | str,
    decided: decisions.Decisions | None = None,
    output: Path | None = None,
) -> None:
    """Writes label_issues.csv, sample_weights.npz and report.html.

    Args:
      results: what results.json says, with "audit".
      train: the examples that were judged, for pictures; or why there are none.
      decided: what a reviewer decided, shown as decided in the report.
      output: folder to write them to, if not the workdir.
    """
    from jaxrobust.audit import report  # Imports Jinja2.

    true = judged_rows(record, found).true_labels if record.truth_known else None
    if isinstance(train, Part):
        train = train._replace(x=train.shown)
    if not isinstance(train, str) and len(train.x) < len(audited.issues):
        train = "Examples are not shown: those of test and validation are judged as well."
    output = output or workdir
    every = audited.every
    judged = "split" in found or audited.outside is not None
    split = split_of(found, every, len(audited.issues)) if judged else None
    export.write_csv(every, output / "label_issues.csv", true, split)
    export.write_weights(audited.issues, output / "sample_weights.npz")
    page = report.render(
        audited.issues,
        name=workdir.resolve().name,
        results=results,
        config=configuration.to_json(config),
        environment=_environment(workdir),
        true=true,
        curves=found.get("curves"),
        train=train,
        figures=workdir / "figures",
        features=record.feature_names,
        decisions=decided,
    )
    with files.whole(output / "report.html") as file:
        file.write(page)


def _environment(workdir: Path) -> dict[str, Any]:
    """Returns what environment.json says; nothing where it is damaged, with a note."""
    path = workdir / "environment.json"
    try:
        return files.read_json(path) if path.is_file() else {}
    except UserError as error:
        process.say(f"note: {error}")
        return {}


def check_finished(workdir: Path) -> None:
    """Raises `UserError` unless a workdir holds a finished run."""
    check(
        (workdir / "results.json").is_file(),
        f"--workdir={workdir} holds no finished run (no results.json). Train first.",
    )


def remake(
    workdir: str | Path,
    folds: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    settings: Mapping[str, Any] | None = None,
    reviewed: str | Path | None = None,
    output: str | Path | None = None,
    elsewhere: bool = False,
) -> Audited:
    """Makes the audit of a finished run again, with out-of-sample predictions if asked.

    Args:
      workdir: of a finished run.
      folds: of a cross-validation, or None to use the evidence there is.
      say: called with a line per fold.
      settings: by full name, instead of the run's own: where the data are now.
      reviewed: a file of decisions saved from the report, see `audit.decisions`.
      output: folder for `FILES`; nothing in the workdir is then changed, and no lock is needed.
        By default they go into the workdir, with what results.json says of the audit.
      elsewhere: go on where the workdir cannot be written: what was asked for is another file.

    Raises:
      UserError: there is no finished run, it has no evidence, or another process works in it.
      RunError: the workdir or `output` cannot be written.
      Interrupted: Ctrl-C or SIGTERM, before anything was written.
    """
    from jaxrobust.runs import results

    workdir = Path(workdir)
    check_finished(workdir)
    config = read_config(workdir, settings or {})
    results.load(workdir)
    if output is not None:
        output = Path(output)
        check(output.is_dir(), f"--output={output}: there is no such folder.")
    elif elsewhere and not os.access(workdir, os.W_OK):
        say(f"note: {workdir} cannot be written: {', '.join(FILES)} stay as they are.")
    else:
        output = workdir
    if output != workdir:
        with writing(output or workdir), Interrupt("Stopping.") as interrupt:
            return write_again(workdir, config, folds, say, interrupt.check, reviewed, output)
    advice = "Name a folder for the audit: --output=FOLDER."
    with writing(workdir, advice), locked(workdir), Interrupt("Stopping.") as interrupt:
        return write_again(workdir, config, folds, say, interrupt.check, reviewed, workdir)


def write_again(
    workdir: Path,
    config: ConfigDict,
    folds: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    pause: Callable = lambda *_: None,
    reviewed: str | Path | None = None,
    output: Path | None = None,
) -> Audited:
    """Does what `remake` says; `pause` as in `fit`.

    Args:
      output: the workdir, which is locked then; another folder; or None to write nothing.
    """
    from jaxrobust.runs import results

    record, run = load_record(workdir), fingerprint(workdir)
    path = workdir / "evidence.npz"
    found = load(path, run) if path.is_file() else {}
    data, train = None, ""
    try:
        source = load_source(config)
        if manifest.fingerprint(source) == record.fingerprint:
            data = prepare(source, seed=data_seed(config), manifest_path=workdir / "noise.npz")
            train = everything(data) if "judged_labels" in found else data.train
        else:
            train = rematch.by_name(source, found.get("judged_paths", found.get("paths")))
    except (UserError, OSError) as error:
        train = f"The examples could not be opened: {error}"
    why = train if isinstance(train, str) else getattr(train, "note", "")
    if why:
        say(f"note: {why}")
    if folds:
        check(data is not None, f"Out-of-sample predictions need the data: {why}")
        found["out_of_sample"] = cross_validation.out_of_sample(
            assemble(config, data, workdir=workdir, say=say), folds, say, pause
        )
    check(
        any(not name.startswith(("paths", "held_out")) for name in found),
        f"{workdir} holds no evidence of its labels (evidence.npz). "
        "Make some: --config.audit.folds=5.",
    )
    audited = find(config, record, found)
    decided = None if reviewed is None else decisions.read(reviewed, audited.issues)
    pause()
    if folds and output == workdir:
        save(found, path, run)
    summary = results.load(workdir) | {"audit": audited.summary}
    if output is not None:
        write(workdir, config, record, found, audited, summary, train, decided, output)
    if output == workdir:
        results.write_json(workdir / "results.json", summary)
    return audited._replace(folder=output)
