"""Runs of several seeds: `train.seeds=(0, 1, 2, 3, 4)`.

All seeds learn from the same data: noise, long tail, splits and folds follow `data.seed`, by
default the first of the seeds. The workdir has a folder per seed, `seed_3`, each of which is a
whole run that every mode takes, as `--config.seed=3 --config.data.seed=0` would have left it; and
a `results.json` with a row per seed, their mean and their standard deviation.

The seeds are trained together, as one compiled program (`training.seeds`), where that pays: on
an accelerator, and on CPU for networks without convolutions. Elsewhere, with a moving average of
the weights and with Label Wave, they take turns, and share their compiled programs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import files
from jaxrobust.errors import check
from jaxrobust.process import say
from jaxrobust.runs import model as models
from jaxrobust.runs import results
from jaxrobust.runs.evaluation import check_selection, evaluate
from jaxrobust.runs.experiment import Experiment, assemble, data_seed
from jaxrobust.runs.fit import initial, options_of
from jaxrobust.training.checkpoints import Checkpoints
from jaxrobust.training.loop import Place
from jaxrobust.training.metrics_log import LOG, Log
from jaxrobust.training.saving import Saver
from jaxrobust.training.seeds import SeedsRunner, SeedsSelection, of_seed
from jaxrobust.training.signals import Interrupt


class Member(NamedTuple):
    """One seed's own part: experiment, model and folder."""

    seed: int
    experiment: Experiment
    model: models.Model
    workdir: Path


def check_seeds(config: ConfigDict) -> None:
    """Checks that a configuration can be trained from several seeds. Raises `UserError`."""
    check(
        config.method.name != "blend" or not config.train.seeds,
        "train.seeds is for networks; method.name=blend has no seeds of a training. Leave it out.",
    )
    check(
        jax.process_count() == 1,
        "train.seeds is for one process; with --distributed run each seed by itself.",
    )


def config_of(config: ConfigDict, seed: int) -> ConfigDict:
    """Returns the configuration of one seed's own run."""
    own = config.copy_and_resolve_references()
    values = {"seed": seed, "data.seed": data_seed(config), "train.seeds": ()}
    return configuration.validate(configuration.override(own, values))


def together(experiment: Experiment) -> bool:
    """Whether the seeds are trained as one program."""
    config = experiment.config
    whole = experiment.layout.mesh is None and experiment.feed.host_x is None
    whole = whole and config.train.ema is None and not config.eval.label_wave
    return whole and (jax.default_backend() != "cpu" or experiment.loop == "epoch")


def folder(workdir: Path, seed: int) -> Path:
    """Returns the folder of one seed's run."""
    return workdir / f"seed_{seed}"


def train(
    config: ConfigDict,
    workdir: Path,
    train_one: Callable[[ConfigDict, Path], dict[str, Any]],
    interrupt: Interrupt | None = None,
) -> dict[str, Any]:
    """Trains every seed, or goes on, and writes the results of all of them.

    Args:
      config: with `train.seeds`.
      workdir: locked by the caller.
      train_one: trains one seed's run in its folder, for seeds that take turns.
      interrupt: holds a signal that came; see `Saver`.

    Raises:
      UserError, RunError, Interrupted: as `jaxrobust.train`.
    """
    first = assemble(config_of(config, config.train.seeds[0]), workdir=workdir, say=say)
    check_selection(first)
    with files.whole(workdir / "config.json") as file:
        file.write(configuration.to_json(config))
    begin = time.monotonic()
    if together(first):
        found = _train_together(config, first, workdir, interrupt or Interrupt())
    else:
        found = []
        for seed in config.train.seeds:
            say(f"Seed {seed}:")
            found.append(train_one(config_of(config, seed), folder(workdir, seed)))
    written = summary(config, found)
    written["seconds"]["all"] = time.monotonic() - begin
    results.write_json(workdir / "results.json", written)
    return written


def _members(config: ConfigDict, first: Experiment, workdir: Path) -> list[Member]:
    found, model = [], models.of(first)
    for seed in config.train.seeds:
        own = dataclasses.replace(first, config=config_of(config, seed), key=jax.random.key(seed))
        its_model = dataclasses.replace(model, config=own.config)
        found.append(Member(seed, own, its_model, folder(workdir, seed)))
    return found


def _train_together(
    config: ConfigDict, first: Experiment, workdir: Path, interrupt: Interrupt
) -> list[dict[str, Any]]:
    members = _members(config, first, workdir)
    runner = SeedsRunner(
        first.method,
        first.feed,
        first.forward,
        config.train.seeds,
        loop=first.loop,
        options=options_of(first),
    )
    states, place = runner.init(initial(first)), Place()
    record = hashlib.sha256("".join(m.model.fingerprint for m in members).encode()).hexdigest()
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
        stack.callback(checkpoints.close)
        selection = SeedsSelection(config.eval.select, place, len(members))
        found = checkpoints.restore({"state": states, "selected": selection.of(states)})
        if found is not None:
            saved = dict(found.place)
            check(
                saved.pop("record") == record,
                f"The checkpoints in {workdir} were saved with other settings or other data than "
                "these. Put them back as they were, or use another --workdir.",
            )
            states, place = found.arrays["state"], Place(**saved)
            kept = jax.device_get(found.arrays["selected"])
            selection = SeedsSelection(config.eval.select, place, len(members), kept)
            say(f"Resuming {workdir} at epoch {place.epoch}.")
        logs = _logs(config, members, place.epoch, stack)
        for line in [*first.data.warnings, *(found.problems if found else ())]:
            logs[0].say(f"note: {line}")

        def sync():
            for log in logs:
                log.sync()

        saver = Saver(
            checkpoints,
            place,
            selection,
            interrupt,
            every_steps=config.checkpoint.every_steps,
            every_seconds=config.checkpoint.every_seconds,
            record=record,
            before=sync,
        )
        states, seconds = _epochs(runner, members, states, place, selection, saver, logs)
        return _finish(members, states, place, selection, seconds, saver.check)


def _logs(config: ConfigDict, members: list[Member], start: int, stack) -> list[Log]:
    """Opens the folder of each seed, and its log; the first speaks for all."""
    name = config.loss.name if config.method.name == "supervised" else config.method.name
    logs = []
    for member in members:
        member.workdir.mkdir(parents=True, exist_ok=True)
        results.write_start(member.experiment, member.model, member.workdir)
        log = Log(
            member.workdir,
            epochs=member.experiment.method.epochs,
            start=start,
            tensorboard=config.log.tensorboard,
            name=f"{name} (seed {member.seed}, one of {len(members)})",
            select=config.eval.select,
            quiet=bool(logs),
            given_labels=results.measured_on(config, member.experiment.data) == results.GIVEN,
        )
        stack.callback(log.close)
        logs.append(log)
    return logs


def _epochs(
    runner: SeedsRunner,
    members: list[Member],
    states: Any,
    place: Place,
    selection: SeedsSelection,
    saver: Saver,
    logs: list[Log],
) -> tuple[Any, dict[str, float]]:
    """Runs the epochs that are left; returns the states, and the seconds that they took."""
    from jaxrobust.runs.train import report_of_epoch

    experiment = members[0].experiment
    config, method = experiment.config, experiment.method
    seconds = {"first_epoch": 0.0, "epochs": 0.0, "count": 0}
    while place.epoch < method.epochs:
        begin, stage = time.monotonic(), method.stage(place.epoch)
        states, rows = runner.epoch(states, place, saver.after_step)
        seconds["epochs" if seconds["count"] else "first_epoch"] += time.monotonic() - begin
        seconds["count"] += 1
        last = place.epoch == method.epochs
        if last or place.epoch % config.eval.every == 0:
            found = []
            for s, row in enumerate(rows):
                own = of_seed(states, s)
                found.append(evaluate(experiment, own.params, own.network_state))
                for part, (_, numbers) in found[s].items():
                    row |= {f"{part}_{k}": v for k, v in numbers.items() if k != "per_class"}
            if stage.result and "validation" in found[0]:
                selection.offer(states, [e["validation"].numbers for e in found])
        for s, (member, row) in enumerate(zip(members, rows, strict=True)):
            own = of_seed(states, s)
            row |= report_of_epoch(member.experiment, own, stage, place.epoch, member.workdir)
            logs[s].write({"epoch": place.epoch, "step": int(own.step)} | row)
        saver.after_epoch(states, last)
    return states, seconds


def _finish(
    members: list[Member],
    states: Any,
    place: Place,
    selection: SeedsSelection,
    seconds: dict[str, float],
    pause: Callable,
) -> list[dict[str, Any]]:
    """Writes what a run of each seed leaves, but for those that have it; returns their results."""
    found, selected = [], selection.of(states)
    for s, member in enumerate(members):
        if (member.workdir / "results.json").is_file():
            found.append(results.load(member.workdir))
            continue
        pause()
        value, epoch = place.selected_value[s], place.selected_epoch[s]
        own = dataclasses.replace(place, selected_value=value, selected_epoch=epoch)
        state, weights = of_seed(states, s), of_seed(selected, s)
        checkpoints = Checkpoints(member.workdir / "checkpoints", 1, (member.workdir / LOG,))
        try:
            record = dataclasses.asdict(own) | {"record": member.model.fingerprint}
            checkpoints.save(int(state.step), {"state": state, "selected": weights}, record)
        finally:
            checkpoints.close()
        found.append(
            results.write_end(
                member.experiment, member.workdir, state, own, weights, seconds, None, pause
            )
        )
    return found


def summary(config: ConfigDict, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what results.json of several seeds holds, from those of each.

    `last` and `selected` are means over the seeds, `deviation` their standard deviations (of a
    sample, n − 1), `runs` a row per seed, `codes` those of all audits.
    """
    shared = ("version", "method", "loss", "epochs", "steps", "noise")
    shared += ("selection_split", "selection_metric", "measured_on")
    codes = {code for run in found for code in run["audit"]["codes"]}
    kinds = [k for k in ("last", "selected", "ema", "label_wave") if all(k in r for r in found)]
    parts = {which: [run[which] for run in found] for which in kinds}
    return {
        **{key: found[0][key] for key in shared},
        "seeds": list(config.train.seeds),
        "data_seed": data_seed(config),
        **{which: _over_seeds(rows, np.mean) for which, rows in parts.items()},
        "codes": sorted(codes),
        "seconds": dict(found[0]["seconds"]),
        "deviation": {which: _over_seeds(rows, _deviation) for which, rows in parts.items()},
        "runs": [
            {
                "seed": seed,
                "workdir": folder(Path(), seed).name,
                **{which: _numbers(run[which]) for which in kinds},
            }
            for seed, run in zip(config.train.seeds, found, strict=True)
        ],
    }


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v is None or isinstance(v, (int, float))}


def _over_seeds(rows: list[dict[str, Any]], function: Callable) -> dict[str, Any]:
    found = {}
    for key in _numbers(rows[0]):
        values = [row.get(key) for row in rows]
        found[key] = None if None in values else float(function(values))
    return found


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
