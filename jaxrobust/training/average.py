"""Exponential moving average of a network's weights, kept next to the weights that train.

Polyak & Juditsky 1992; as in Tarvainen & Valpola 2017, arXiv 1703.01780, without a warm-up of the
decay. Being state (`TrainState.average`), it is saved and resumed with everything else.

Batch statistics: the running mean and variance of batch norm are averaged with the same decay, as
the parameters are. No pass over the data is needed, and the averaged network is evaluated as any
other is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrobust.methods.method import TrainState

Average = dict[str, Any]


def start(state: TrainState) -> Average:
    """Returns an average that begins with the weights of `state`.

    Returns:
      "params" and "network_state", trees like those of the state, in memory of their own.
    """
    return jax.tree.map(jnp.copy, {"params": state.params, "network_state": state.network_state})


def move(average: Average, state: TrainState, decay: float) -> Average:
    """Returns a <- decay a + (1 - decay) w, for weights w after a step; {} stays {}.

    Args:
      average: see `start`; or {}, if none is kept.
      state: after the step.
      decay: in [0, 1); leaves that are not floating point are taken as they are.
    """
    if not average:
        return average

    def moved(a: Any, w: jax.Array) -> Any:
        if not jnp.issubdtype(w.dtype, jnp.floating):
            return w
        return decay * a + (1 - decay) * w

    now = {"params": state.params, "network_state": state.network_state}
    return jax.tree.map(moved, average, now)


def weights(state: TrainState) -> tuple[Any, Any]:
    """Returns parameters and batch statistics of the average that a state keeps."""
    return state.average["params"], state.average["network_state"]
