"""Run with four devices: CurveNet on all of them and on one; prints nothing.

An epoch of probing and one of learning the weights.
"""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxrobust import config
from jaxrobust.runs.experiment import assemble
from jaxrobust.runs.train import init_state
from jaxrobust.training.loop import Place, Runner


def curves_of(state):
    return next(
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.memory)
        if getattr(path[-1], "key", None) == "curves"
    )


def trained(devices):
    made = config.load("digits_curvenet")
    made.data.imbalance.kind, made.data.imbalance.factor = "none", 1.0
    made.network.name, made.network.width = "mlp", 8
    made.train.batch_size, made.method.probe_epochs, made.train.devices = 128, 1, devices
    made.method.probe_batch_divisor, made.train.epochs = 1, 1
    made.method.hidden, made.train.loop = 8, "step"
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
    assert [stage.epochs for stage in experiment.method.stages] == [0, 1, 1, 0]
    shardings, states = [curves_of(state).sharding], []
    for _ in range(2):
        state, _ = runner.epoch(state, place, lambda *_: None)
        shardings.append(curves_of(state).sharding)
        states.append(
            jax.device_get(
                (curves_of(state), experiment.method.report(state)["weights"], state.params)
            )
        )
    return states, shardings


assert len(jax.devices()) == 4
whole, _ = trained(1)
shared, shardings = trained(4)
assert all(s.spec == PartitionSpec("data") for s in shardings), shardings
curves, weights, _ = whole[1]
assert len(curves) % 64 == 0 and (curves[:, 0] > 0).sum() > 900 and (weights != 1).sum() > 900
for one, four in zip(whole, shared, strict=True):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-3, atol=1e-3), one, four)
