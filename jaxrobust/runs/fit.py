"""A training without a workdir: where it starts, what runs it, and all of it in memory."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxrobust.methods import TrainState
from jaxrobust.runs.experiment import Experiment
from jaxrobust.training import average, dynamics
from jaxrobust.training.loop import Place, Runner
from jaxrobust.training.programs import shared_jit
from jaxrobust.training.variants import as_dictionary


def fit(
    experiment: Experiment, pause: Callable = lambda *_: None
) -> tuple[TrainState, list[dict[str, float]]]:
    """Trains in memory: no workdir, no checkpoints, no evaluation.

    Args:
      experiment: what is trained.
      pause: called with state and progress after each compiled call and each epoch; may raise to
        leave.

    Returns:
      The state after the last epoch, and a row of training numbers per epoch.

    Raises:
      RunError: the loss is not finite.
    """
    state = init_state(experiment)
    place, runner, rows = Place(), make_runner(experiment), []
    while place.epoch < experiment.method.epochs:
        state, row = runner.epoch(state, place, pause)
        pause(state, place)
        rows.append({"epoch": place.epoch} | row)
    return state, rows


def init_state(experiment: Experiment) -> TrainState:
    """Returns the state that training starts from, laid out over the devices."""
    init, method, key = initial(experiment), experiment.method, experiment.key
    if experiment.layout.mesh is None:
        return shared_jit(init, options=options_of(experiment))(key)
    shapes = jax.eval_shape(init, key)
    shardings = experiment.layout.over_rows(shapes, method.spread)
    return jax.jit(init, out_shardings=shardings)(key)


def state_shapes(experiment: Experiment) -> TrainState:
    """Returns the shapes of what `init_state` returns; nothing is computed.

    The method's own are those that `assemble` has traced already.
    """
    shapes = jax.eval_shape(experiment.method.init, experiment.key)
    return jax.eval_shape(lambda state: _recorded(experiment, state), shapes)


def initial(experiment: Experiment) -> Callable[[jax.Array], TrainState]:
    """Returns `init(key)`: the method's own state, and nothing recorded of the examples yet."""

    def init(key: jax.Array) -> TrainState:
        return _recorded(experiment, experiment.method.init(key))

    return init


def _recorded(experiment: Experiment, state: TrainState) -> TrainState:
    """Returns a method's state with nothing recorded yet, and with its average if it keeps one."""
    data, config = experiment.data, experiment.config
    sizes = len(data.train.labels), len(data.class_names)
    seen = dynamics.empty(*sizes, experiment.method.epochs, config.eval.label_wave)
    state = state._replace(dynamics=seen)
    return state if config.train.ema is None else state._replace(average=average.start(state))


def make_runner(experiment: Experiment) -> Runner:
    """Returns what runs the epochs of an experiment."""
    return Runner(
        experiment.method,
        experiment.feed,
        experiment.forward,
        experiment.key,
        loop=experiment.loop,
        options=options_of(experiment),
        layout=experiment.layout,
        ema=experiment.config.train.ema,
    )


def options_of(experiment: Experiment) -> dict[str, str] | None:
    """Returns the options of the XLA compiler for the training step, or None.

    With `train.xla_options=auto` those that `runs.compiler_options` has chosen: none before it has.
    """
    given = experiment.config.train.xla_options
    return as_dictionary(experiment.options if given == ("auto",) else given)
