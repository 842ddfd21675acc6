"""`train(config, workdir)`: what the command line calls and notebooks import."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust.errors import UserError, check, writing
from jaxrobust.runs import cross_validation, diagnostics, loss_curves, results
from jaxrobust.runs.evaluation import evaluate
from jaxrobust.runs.experiment import Experiment, assemble
from jaxrobust.runs.fit import init_state, make_runner
from jaxrobust.training.checkpoints import Checkpoints
from jaxrobust.training.loop import Place
from jaxrobust.training.metrics_log import Log, Silent
from jaxrobust.training.saving import Saver, Selection, restore
from jaxrobust.training.sharding import is_first
from jaxrobust.training.signals import Interrupt


def train(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains what a configuration says, or goes on with it, and reports.

    Args:
      config: see `jaxrobust.config`.
      workdir: folder of the run. If it holds a run of the same configuration that was stopped,
        the run continues from its last checkpoint, bit-identically; if that run is finished, its
        results are returned.

    Returns:
      The contents of `results.json`.

    Raises:
      UserError: a setting, file or data set that cannot work; before anything is written.
      RunError: the loss is not finite, the disk is full, no checkpoint can be read.
      Interrupted: Ctrl-C or SIGTERM, after a checkpoint was saved.
    """
    config, workdir = configuration.validate(config), Path(workdir)
    done = check_workdir(config, workdir)
    if done is not None:
        return done
    experiment = assemble(config)
    if config.audit.folds:
        cross_validation.check_folds(experiment, config.audit.folds)
    with writing(workdir, "The same command goes on from the last checkpoint."):
        results.write_start(experiment, workdir)
        return _run(experiment, workdir)


def check_workdir(config: ConfigDict, workdir: Path) -> dict[str, Any] | None:
    """Returns the results of a finished run, or None.

    Raises:
      UserError: the workdir is a file, or holds a run of another configuration.
    """
    path = workdir / "config.json"
    check(not workdir.is_file(), f"--workdir={workdir} is a file.")
    if not path.is_file():
        return None
    changes = configuration.difference(configuration.load(str(path)), config)
    if changes:
        raise UserError(
            f"{workdir} holds a run of another configuration: {'; '.join(changes)}. "
            "Use another --workdir, or the old settings."
        )
    finished = workdir / "results.json"
    return json.loads(finished.read_text()) if finished.is_file() else None


def _run(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    config, method = experiment.config, experiment.method
    state, place, problems = init_state(experiment), Place(), []
    selection = Selection(config.eval.select, place)
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
        stack.callback(checkpoints.close)
        found = restore(checkpoints, state, config.eval.select)
        if found is not None:
            state, place, selection, problems = found
        log = (Log if is_first() else Silent)(
            workdir, epochs=method.epochs, start=place.epoch, tensorboard=config.log.tensorboard,
            name=config.loss.name if config.method.name == "supervised" else config.method.name,
        )
        stack.callback(log.close)
        for line in [*experiment.data.warnings, *problems]:
            log.say(f"note: {line}")
        if found is not None:
            log.say(f"Resuming {workdir} at epoch {place.epoch}, step {int(state.step)}.")
        interrupt = stack.enter_context(Interrupt())
        saver = Saver(
            checkpoints, place, selection, interrupt, every_steps=config.checkpoint.every_steps,
            every_seconds=config.checkpoint.every_seconds,
        )
        state, seconds, last = _epochs(experiment, state, place, selection, saver, log, workdir)
    selected = selection.of(state)
    return results.write_end(experiment, workdir, state, place, selected, seconds, last)


def _epochs(experiment, state, place, selection, saver, log, workdir):
    """Runs the epochs that are left.

    Returns:
      The state; the seconds that the epochs took; what `evaluate` gives for that state, or None
      if no epoch was left.
    """
    config, method, runner = experiment.config, experiment.method, make_runner(experiment)
    evaluated = None
    seconds = {"first_epoch": 0.0, "epochs": 0.0, "count": 0}
    while place.epoch < method.epochs:
        begin = time.monotonic()
        stage = method.stage(place.epoch)
        state, row = runner.epoch(state, place, saver.after_step)
        seconds["epochs" if seconds["count"] else "first_epoch"] += time.monotonic() - begin
        seconds["count"] += 1
        last = place.epoch == method.epochs
        if last or place.epoch % config.eval.every == 0:
            evaluated = evaluate(experiment, state.params, state.batch_stats)
            if stage.result and "validation" in evaluated:
                selection.offer(state, evaluated["validation"].numbers)
            for part, (_, numbers) in evaluated.items():
                row |= {f"{part}_{k}": v for k, v in numbers.items() if k != "per_class"}
        row |= _report(experiment, state, stage, place.epoch, workdir)
        log.write({"epoch": place.epoch, "step": int(state.step)} | row)
        if stage.result and not last and _draws(config.log, place.epoch):
            results.draw_learned(experiment, workdir)
        saver.after_epoch(state, last)
    return state, seconds, evaluated


def _draws(log: ConfigDict, epoch: int) -> bool:
    """Whether pictures of what was learned are drawn after `epoch` epochs that are not the last."""
    return log.figures and is_first() and epoch % log.figures_every == 0


def _report(experiment, state, stage, epoch: int, workdir: Path) -> dict[str, Any]:
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
            report, workdir / "figures" / ("." if last else "epochs"), given=data.train.labels,
            true=true, class_names=data.class_names, prefix="" if last else f"{epoch:04d}_",
        )
    return diagnostics.numbers(report, data.train.labels, true, len(data.class_names))
