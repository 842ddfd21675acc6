"""Compiler options of a run: those given, or, with `train.xla_options=auto`, the fastest here.

`auto` tries the candidates of `training.variants` on the run's own step, where the run is long
enough to pay for it: on CPU, for networks with convolutions, where the epochs would take ten
minutes or more. What was chosen is stored in the workdir before the first step (`compiler.json`),
so that a resumed run is the same to the bit, and in the user's cache folder by processor and
program, so that the next run need not try again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxrobust import compile_cache, files
from jaxrobust.errors import UserError, check
from jaxrobust.methods import TrainState
from jaxrobust.process import say
from jaxrobust.runs.experiment import Experiment
from jaxrobust.runs.fit import make_runner
from jaxrobust.training import variants
from jaxrobust.training.variants import Options

NAME = "compiler.json"
AUTO = ("auto",)
LEAST_PIXELS = 1e8  # seen in training, below which nothing is traced or tried
LONG_ENOUGH = 600.0  # seconds of training, by a measured step, from which trying pays


def settle(
    experiment: Experiment,
    state: TrainState,
    workdir: Path,
    candidates: tuple[Options, ...] = variants.CANDIDATES,
    long_enough: float | None = None,
) -> Experiment:
    """Returns the experiment with the options that its steps are compiled with.

    Args:
      experiment: of the run.
      state: that training starts from; it is left as it is.
      workdir: where the choice is stored, or was stored when the run began.
      candidates: see `training.variants.choose`.
      long_enough: seconds of training below which nothing is tried; None is `LONG_ENOUGH`.

    Raises:
      UserError: what is stored was changed.
    """
    if experiment.config.train.xla_options != AUTO:
        return experiment
    path = workdir / NAME
    if path.is_file():
        stored = tuple(files.read_json(path).get("xla_options", ("",)))
        known = stored in ((), *candidates)
        check(known, f"{path} does not hold options that auto chooses. Put it back as it was.")
        return dataclasses.replace(experiment, options=stored)
    if not _may_pay(experiment):
        return experiment
    least = LONG_ENOUGH if long_enough is None else long_enough
    chosen = _chosen(experiment, state, candidates, least)
    with files.whole(path) as file:
        file.write(json.dumps({"xla_options": chosen}) + "\n")
    return dataclasses.replace(experiment, options=chosen)


def _may_pay(experiment: Experiment) -> bool:
    """Whether a run is one that options matter to; told without tracing anything."""
    one = experiment.layout.mesh is None and jax.process_count() == 1
    data = experiment.data.train
    pixels = math.prod(np.shape(data.x[0])[:2]) * len(data.labels) * experiment.method.epochs
    cpu = one and jax.default_backend() == "cpu" and experiment.loop == "step"
    return cpu and pixels >= LEAST_PIXELS


def _chosen(
    experiment: Experiment,
    state: TrainState,
    candidates: tuple[Options, ...],
    long_enough: float,
) -> Options:
    stage = max(experiment.method.stages, key=lambda stage: stage.epochs)

    def step_with(options: Options) -> tuple[Callable[[TrainState], TrainState], int]:
        runner = make_runner(dataclasses.replace(experiment, options=options))
        return runner.first_step(stage, stage.passes[0], state)

    default, steps = step_with(())
    alone = variants.choose(lambda options: default, state, (), rounds=1)
    if alone.seconds[()] * steps * experiment.method.epochs < long_enough:
        return ()
    memory, key = _memory(), _key(experiment, state)
    if key in memory:
        return tuple(memory[key])

    def step_of(options: Options) -> Callable[[TrainState], TrainState]:
        return step_with(options)[0] if options else default

    trial = variants.choose(step_of, state, candidates)
    _remember(memory | {key: list(trial.chosen)})
    times = ", ".join(f"{_text(o)} {1e3 * s:.0f} ms" for o, s in trial.seconds.items())
    wrong = "".join(f" {_text(o)} gives other results and is not used." for o in trial.wrong)
    say(f"Compiler options: {_text(trial.chosen)} (a step: {times}).{wrong}")
    return trial.chosen


def _text(options: Options) -> str:
    return " ".join(options) if options else "default"


def _key(experiment: Experiment, state: TrainState) -> str:
    """Returns a name for processor, versions, network, method, loss and shapes."""
    config, shapes = experiment.config, jax.tree.map(np.shape, (state.params, state.meta_params))
    seen = (
        compile_cache.processor(),
        jax.__version__,
        config.network.to_dict(),
        config.method.name,
        config.loss.name,
        config.train.batch_size,
        experiment.data.train.x[0].shape,
        shapes,
    )
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def _place() -> Path | None:
    folder = compile_cache.folder()
    return None if folder is None else folder.parent / "compiler_options.json"


def _memory() -> dict[str, list[str]]:
    place = _place()
    try:
        return {} if place is None or not place.is_file() else files.read_json(place)
    except (UserError, OSError):
        return {}


def _remember(memory: dict[str, list[str]]) -> None:
    place = _place()
    if place is None:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(place) as file:
            file.write(json.dumps(memory, indent=1))
    except OSError:
        return
