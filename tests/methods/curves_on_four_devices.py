"""Run with four devices: an epoch of a probe on all of them and on one; prints nothing."""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxrobust import config
from jaxrobust.training.experiment import assemble
from jaxrobust.training.loop import Place, Runner
from jaxrobust.training.train import init_state


def curves_of(state):
    return next(leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.memory)
                if getattr(path[-1], "key", None) == "curves")


def after_an_epoch(devices):
    made = config.load("digits_curvenet")
    made.data.imbalance.kind, made.data.imbalance.factor = "none", 1.0
    made.network.name, made.network.width = "mlp", 8
    made.train.batch_size, made.method.probe_epochs, made.train.devices = 128, 2, devices
    made.train.loop = "step"
    experiment = assemble(config.validate(made))
    runner = Runner(experiment.method, experiment.feed, experiment.forward, experiment.key,
                    loop="step", layout=experiment.layout)
    state = init_state(experiment)
    shardings = [curves_of(state).sharding]
    state, _ = runner.epoch(state, Place(), lambda *_: None)
    return np.asarray(curves_of(state)), [*shardings, curves_of(state).sharding]


assert len(jax.devices()) == 4
whole, _ = after_an_epoch(1)
shared, shardings = after_an_epoch(4)
assert all(s.spec == PartitionSpec("data") for s in shardings), shardings
assert len(whole) % 64 == 0 and (whole[:, 0] > 0).sum() > 900
np.testing.assert_allclose(shared, whole, rtol=2e-3)
