"""What a bilevel step takes, carries on and tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class State(NamedTuple):
    """What a step carries on.

    Attributes:
      step: int32 [], real steps taken.
      params: theta, of the network.
      network_state: its other state, batch norm's running statistics; {} if none.
      opt_state: of theta's optimiser.
      meta_params: phi, of the objective.
      meta_opt_state: of phi's optimiser.
    """

    step: jax.Array
    params: Any
    network_state: Any
    opt_state: Any
    meta_params: Any
    meta_opt_state: Any


class Info(NamedTuple):
    """What a step tells; everything stays on the device until it is looked at.

    Attributes:
      loss: of the real step, before it.
      inner_loss: of the look-ahead, before it; 0 without meta-step.
      meta_loss: after the look-ahead; 0 without meta-step.
      meta_grad_norm: norm of the meta-gradient; 0 without meta-step.
      met: bool, whether there was a meta-step.
      effective_sample_size: of the objective's weights, in [1/B, 1]; 1 if it has none.
      weights: [B], those weights, with the new phi; None if it has none.
      logits: [B, K] of the real step.
    """

    loss: jax.Array
    inner_loss: jax.Array
    meta_loss: jax.Array
    meta_grad_norm: jax.Array
    met: jax.Array
    effective_sample_size: jax.Array
    weights: jax.Array | None
    logits: jax.Array


class Bilevel(NamedTuple):
    """`init(key, params, network_state) -> State`; `step(...) -> (State, Info)`; both pure."""

    init: Callable[..., State]
    step: Callable[..., tuple[State, Info]]
