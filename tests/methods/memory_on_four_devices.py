"""Run with four devices: ELR on all of them and on one; prints nothing."""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxrobust import config
from jaxrobust.runs.experiment import assemble
from jaxrobust.runs.train import init_state
from jaxrobust.training.loop import Place, Runner


def rows_of(state):
    return next(
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.memory)
        if getattr(path[-1], "key", None) == "rows"
    )


def trained(devices):
    made = config.load("digits_losses:elr")
    made.network.name, made.network.width, made.train.loop = "mlp", 8, "step"
    made.train.batch_size, made.train.devices, made.train.epochs = 128, devices, 2
    experiment = assemble(config.validate(made))
    runner = Runner(
        experiment.method,
        experiment.feed,
        experiment.forward,
        experiment.key,
        loop="step",
        layout=experiment.layout,
    )
    state, place = init_state(experiment), Place()
    for _ in range(2):
        state, _ = runner.epoch(state, place, lambda *_: None)
    return jax.device_get((rows_of(state), state.params)), rows_of(state).sharding


assert len(jax.devices()) == 4
whole, _ = trained(1)
shared, sharding = trained(4)
assert sharding.spec == PartitionSpec("data"), sharding
assert (whole[0].sum(-1) > 0.5).sum() > 1000
jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-3, atol=1e-3), whole, shared)
