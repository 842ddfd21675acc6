"""`train(config, workdir)`: what the command line calls and notebooks import."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust.data import manifest
from jaxrobust.errors import UserError, check, writing
from jaxrobust.methods.method import Stage, TrainState
from jaxrobust.process import say
from jaxrobust.runs import audit as auditing
from jaxrobust.runs import (
    blended,
    compiler_options,
    cross_validation,
    diagnostics,
    loss_curves,
    results,
    seeds,
)
from jaxrobust.runs import model as models
from jaxrobust.runs.evaluation import Evaluated, check_selection, evaluate
from jaxrobust.runs.experiment import Experiment, assemble, load_source
from jaxrobust.runs.fit import init_state, make_runner
from jaxrobust.runs.lock import Held, locked
from jaxrobust.runs.workdir import check_data, read_config
from jaxrobust.training import average
from jaxrobust.training.checkpoints import Checkpoints, check_path, read, saved_steps
from jaxrobust.training.loop import NonFinite, Place
from jaxrobust.training.metrics_log import LOG, Log, Silent, lost_rows, put_back, read_rows
from jaxrobust.training.saving import Saver, Selection, Wave, restored, target
from jaxrobust.training.sharding import is_first
from jaxrobust.training.signals import Interrupt, Interrupted

FILES = auditing.FILES
_OF_A_FINISHED_RUN = (models.NAME, "noise.npz", "evidence.npz", results.MATRICES, *FILES)
_EVIDENCE = {"evidence.npz", results.MATRICES}
_GO_ON = "The same command goes on from the last checkpoint."


def train(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a configuration, or resumes its training, and reports.

    Args:
      config: see `jaxrobust.config`.
      workdir: folder of the run. If it holds a run of the same configuration that was stopped,
        the run continues from its last checkpoint, bit-identically; if that run is finished, its
        results are returned, and files that it has lost are made again.

    Returns:
      The contents of `results.json`.

    Raises:
      UserError: a setting, file or data set that cannot work; the workdir is in use, or holds
        another run, or the data have changed since it began; before anything is written.
      RunError: the loss is not finite, the disk is full, no checkpoint can be read.
      Interrupted: Ctrl-C, SIGTERM or a closed terminal, after a checkpoint was saved if there was
        anything to save.
    """
    config, workdir = configuration.validate(config), Path(workdir)
    if config.train.seeds:
        seeds.check_seeds(config)
    done = check_workdir(config, workdir, quiet=True)
    if config.method.name == "blend":
        with writing(workdir, "The same command begins again."), _lock(workdir):
            return _blend(config, workdir, check_workdir(config, workdir))
    if config.train.seeds:
        return done or _train_seeds(config, workdir)
    if done is not None and not lost_files(workdir, done):
        return done
    check_path(workdir.absolute())
    experiment = assemble(config, workdir=workdir, say=say)
    check_selection(experiment)
    if config.audit.folds:
        cross_validation.check_folds(experiment, config.audit.folds)
    model = models.of(experiment)
    model = model.begun_as(_check_same_data(workdir, experiment))
    with _writing(workdir), _lock(workdir) as held, Interrupt() as interrupt:
        done = check_workdir(config, workdir)  # Another process may have finished it by now.
        try:
            if done is not None:
                return _make_again(experiment, model, workdir, done, lost_files(workdir, done))
            return _run(experiment, model, workdir, interrupt, held)
        except Interrupted as stop:
            stop.saved = bool(saved_steps(workdir / "checkpoints"))
            raise


def _train_seeds(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    check_path(workdir.absolute())
    with _writing(workdir), _lock(workdir), Interrupt() as interrupt:
        try:
            return check_workdir(config, workdir) or seeds.train(config, workdir, train, interrupt)
        except Interrupted as stop:
            if (workdir / "checkpoints").is_dir():  # else the seeds take turns: one has said it
                stop.saved = bool(saved_steps(workdir / "checkpoints"))
            raise


def check_workdir(config: ConfigDict, workdir: Path, quiet: bool = False) -> dict[str, Any] | None:
    """Returns the results of a finished run, or None; damaged ones count as none, with a note
    unless `quiet`.

    Raises:
      UserError: the workdir is a file, or holds a run of another configuration.
    """
    check(not workdir.is_file(), f"--workdir={workdir} is a file.")
    if not any((workdir / name).is_file() for name in ("config.json", models.NAME)):
        return None
    changes = configuration.difference(read_config(workdir), config)
    if changes:
        raise UserError(
            f"{workdir} holds a run of another configuration: {'; '.join(changes)}. "
            "Use another --workdir, or the old settings."
        )
    if not (workdir / "results.json").is_file():
        return None
    try:
        return results.load(workdir)
    except UserError as error:
        if not saved_steps(workdir / "checkpoints"):
            raise
        if not quiet:
            say(f"note: {error} It is made again from the last checkpoint.")
        return None


def lost_files(workdir: Path, done: dict[str, Any]) -> list[str]:
    """Returns the names of the files that a finished run has and this workdir has not whole.

    Args:
      workdir: of the run.
      done: its results.
    """
    lost = [name for name in _OF_A_FINISHED_RUN if not (workdir / name).is_file()]
    epochs = done.get("epochs", 0)
    rows = sum(row["epoch"] <= epochs for row in read_rows(workdir / LOG))
    return lost + ([LOG] if rows < epochs else [])


def _blend(config: ConfigDict, workdir: Path, done: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the results of a run of method.name=blend, done or made now."""
    if done is None:
        return blended.train(config, workdir, say=say)
    names = (blended.MODEL, "noise.npz", "evidence.npz", *FILES)
    lost = [name for name in names if not (workdir / name).is_file()]
    if not lost:
        return done
    if set(lost) <= set(FILES):
        say(f"note: {workdir} has lost {', '.join(lost)}; made again.")
        auditing.write_again(workdir, config, output=workdir)
        return results.load(workdir)
    if "noise.npz" not in lost:
        before = manifest.load(workdir / "noise.npz").fingerprint
        check(
            manifest.fingerprint(load_source(config)) == before,
            f"{workdir} has lost {', '.join(lost)}, and the data have changed since. Put them back "
            "as they were, or use another --workdir.",
        )
    say(f"note: {workdir} has lost {', '.join(lost)}; all of it is made again.")
    return blended.train(config, workdir, say=say)


def _check_same_data(workdir: Path, experiment: Experiment) -> models.Model | None:
    """Returns the model of the run that has begun in a workdir, or None. Raises `UserError`."""
    before = models.load_model(workdir)
    begun = saved_steps(workdir / "checkpoints") or (workdir / "results.json").is_file()
    if before is not None and begun:
        check_data(
            workdir,
            before,
            experiment.data,
            "Put them back as they were, or use another --workdir.",
        )
        return before
    return None


@contextlib.contextmanager
def _writing(workdir: Path) -> Iterator[None]:
    """Turns errors of the system into one line that promises no more than is true."""
    try:
        yield
    except (OSError, NonFinite) as error:
        kept = bool(saved_steps(workdir / "checkpoints"))
        if isinstance(error, NonFinite):
            error.add_remedy(kept)
            raise
        with writing(workdir, _GO_ON if kept else ""):
            raise


@contextlib.contextmanager
def _lock(workdir: Path) -> Iterator[Held]:
    """Holds the workdir's lock: the first of several processes does, and tells the others.

    Yields a function to call before something is written, see `locked`.
    """
    with contextlib.ExitStack() as stack:
        problem: Exception | None = None
        held: Held = lambda: None  # noqa: E731
        if is_first():
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(locked(workdir))
            except (UserError, OSError) as error:
                problem = error
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            failed = multihost_utils.broadcast_one_to_all(np.int32(problem is not None))
            if int(failed) and problem is None:
                problem = UserError(f"The first process could not lock {workdir}.")
        if problem is not None:
            raise problem
        yield held


def _make_again(
    experiment: Experiment,
    model: models.Model,
    workdir: Path,
    done: dict[str, Any],
    lost: list[str],
) -> dict[str, Any]:
    """Makes files again that a finished run has lost; returns its results."""
    data = experiment.data
    files = [name for name in lost if name != LOG]
    if files:
        say(f"note: {workdir} has lost {', '.join(files)}; made again.")
    if is_first() and {models.NAME, "noise.npz"} & set(lost):
        manifest.save(data.manifest, workdir / "noise.npz")
        models.save(model, workdir)
    found = None
    if ({LOG} | _EVIDENCE) & set(lost):
        found = restored(
            read(workdir / "checkpoints", target(init_state(experiment))),
            experiment.config.eval.select,
            experiment.method.epochs,
        )
    if LOG in lost and is_first():
        kept = [] if found is None else found.rows
        for line in lost_rows(*put_back(workdir / LOG, experiment.method.epochs, kept)):
            say(f"note: {line}")
    if set(lost) <= {LOG}:
        return done
    if _EVIDENCE & set(lost):
        if found is None:
            say("note: Without a checkpoint the evidence of the labels cannot be made again.")
            return done
        _check_record(workdir, found, model)
        selected = found.selection.of(found.state)
        return results.write_end(
            experiment,
            workdir,
            found.state,
            found.place,
            selected,
            done.get("seconds"),
            None,
            wave=found.wave,
        )
    auditing.write_again(workdir, model.config, output=workdir)
    return results.load(workdir)


def _check_record(workdir: Path, found: Any, model: models.Model) -> None:
    check(
        found.record == model.fingerprint,
        f"The checkpoints in {workdir} were saved with other settings or other data than these. "
        "Put them back as they were, or use another --workdir.",
    )


def _run(
    experiment: Experiment,
    model: models.Model,
    workdir: Path,
    interrupt: Interrupt,
    held: Held,
) -> dict[str, Any]:
    config, method = experiment.config, experiment.method
    state, place, kept = init_state(experiment), Place(), []
    selection = Selection(config.eval.select, place)
    wave = Wave(place) if config.eval.label_wave else None
    with contextlib.ExitStack() as stack:
        beside = (workdir / LOG,)
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep, beside)
        stack.callback(checkpoints.close)
        found = restored(checkpoints.restore(target(state)), config.eval.select, method.epochs)
        problems = checkpoints.unfinished
        if found is not None:
            _check_record(workdir, found, model)
            state, place, problems = found.state, found.place, found.problems
            selection, wave, kept = found.selection, found.wave, found.rows
        results.write_start(experiment, model, workdir)
        experiment = compiler_options.settle(experiment, state, workdir)
        log = (Log if is_first() else Silent)(
            workdir,
            epochs=method.epochs,
            start=place.epoch,
            tensorboard=config.log.tensorboard,
            name=config.loss.name if config.method.name == "supervised" else config.method.name,
            given_labels=results.measured_on(config, experiment.data) == results.GIVEN,
            select=config.eval.select,
            kept=kept,
        )
        stack.callback(log.close)
        lost = lost_rows(log.missing, log.restored)
        for line in [*experiment.data.warnings, *problems, *lost]:
            log.say(f"note: {line}")
        if found is not None:
            log.say(f"Resuming {workdir} at epoch {place.epoch}, step {int(state.step)}.")
        saver = Saver(
            checkpoints,
            place,
            selection,
            interrupt,
            every_steps=config.checkpoint.every_steps,
            every_seconds=config.checkpoint.every_seconds,
            record=model.fingerprint,
            wave=wave,
            before=lambda: (held(), log.sync()),
        )
        kept = selection, wave
        state, seconds, last = _epochs(experiment, state, place, kept, saver, log, workdir)
    interrupt.text = "Stopping."
    return results.write_end(
        experiment, workdir, state, place, selection.of(state), seconds, last, saver.check, wave
    )


def _epochs(
    experiment: Experiment,
    state: TrainState,
    place: Place,
    kept: Any,
    saver: Saver,
    log: Any,
    workdir: Path,
) -> tuple[TrainState, dict[str, float], dict[str, Evaluated] | None]:
    """Runs the epochs that are left; `kept` are the `Selection` and the `Wave` or None.

    Returns:
      The state; the seconds that the epochs took; what `evaluate` gives for that state, or None
      if no epoch was left.
    """
    config, method, runner = experiment.config, experiment.method, make_runner(experiment)
    evaluated, (selection, wave) = None, kept
    seconds = {"first_epoch": 0.0, "epochs": 0.0, "count": 0}
    while place.epoch < method.epochs:
        begin = time.monotonic()
        stage = method.stage(place.epoch)
        state, row = runner.epoch(state, place, saver.after_step)
        seconds["epochs" if seconds["count"] else "first_epoch"] += time.monotonic() - begin
        seconds["count"] += 1
        last = place.epoch == method.epochs
        if wave is not None:
            _offer_wave(wave, method, state, place, row)
        if last or place.epoch % config.eval.every == 0:
            evaluated = evaluate(experiment, state.params, state.network_state)
            if stage.result and "validation" in evaluated:
                selection.offer(state, evaluated["validation"].numbers)
            row |= _columns(evaluated)
            if state.average:
                row |= _columns(evaluate(experiment, *average.weights(state)), "ema_")
        row |= report_of_epoch(experiment, state, stage, place.epoch, workdir)
        log.write({"epoch": place.epoch, "step": int(state.step)} | row)
        if stage.result and not last and _draws(config.log, place.epoch):
            results.draw_learned(experiment, workdir)
        saver.after_epoch(state, last)
    return state, seconds, evaluated


def _columns(evaluated: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the columns of metrics.jsonl for what `evaluate` gives."""
    return {
        f"{prefix}{part}_{key}": value
        for part, (_, numbers) in evaluated.items()
        for key, value in numbers.items()
        if key != "per_class"
    }


def _offer_wave(
    wave: Wave, method: Any, state: TrainState, place: Place, row: dict[str, float]
) -> None:
    """Adds an epoch to the prediction changes; the first of a fresh network has none."""
    stage, begins = method.stage(place.epoch - 1), method.stage_begins(place.epoch - 1)
    if begins and (place.epoch == 1 or stage.start is not None):
        place.changes = []
        return
    place.changes.append(row["train_prediction_changes"])
    if stage.result:
        wave.offer(state)


def _draws(log: ConfigDict, epoch: int) -> bool:
    """Whether pictures of what was learned are drawn after `epoch` epochs that are not the last."""
    return log.figures and is_first() and epoch % log.figures_every == 0


def report_of_epoch(
    experiment: Experiment, state: TrainState, stage: Stage, epoch: int, workdir: Path
) -> dict[str, Any]:
    """Holds what the method has learned against the truth; draws it every few epochs."""
    method, data, log = experiment.method, experiment.data, experiment.config.log
    leaves = stage.leaves and method.stage_ends(epoch)
    if method.report is None or not (leaves or stage.result):
        return {}
    report = method.report(state)
    if leaves and is_first():
        for name in stage.leaves:
            values = np.asarray(report[name])[: len(data.train.labels)]
            loss_curves.save(workdir / f"{name}.npz", name, values, data.manifest)
    if not stage.result:
        return {}
    from jaxrobust.plots import learned  # Imports matplotlib: only where it draws.

    true = data.train.true_labels if data.truth_known else None
    last = epoch == method.epochs
    if last and log.figures and is_first() or _draws(log, epoch):
        learned.draw(
            report,
            workdir / "figures" / ("." if last else "epochs"),
            given=data.train.labels,
            true=true,
            class_names=data.class_names,
            prefix="" if last else f"{epoch:04d}_",
        )
    return diagnostics.numbers(report, data.train.labels, true, len(data.class_names))
