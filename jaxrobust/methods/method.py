"""What a method is: a short list of stages that say which step meets which data, how long.

A method knows networks, losses and optimisers as functions and gives pure functions back; how
they are compiled, fed, saved and reported is the business of `jaxrobust.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxrobust.data.batches import Order


class TrainState(NamedTuple):
    """All that training carries from step to step; what a checkpoint holds.

    Attributes:
      step: int32 [], optimiser steps taken so far.
      params: parameters of the network.
      batch_stats: its other state (batch norm's running statistics), {} if none.
      opt_state: state of the network's optimiser.
      memory: what the method itself carries: learned objectives, ranks, weights, curves.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    memory: Any


class StepInfo(NamedTuple):
    """What a step tells: `logits` [B, K] as met in training, and scalars (means of the batch)."""

    logits: jax.Array
    scalars: dict[str, jax.Array]


Step = Callable[..., tuple[TrainState, StepInfo]]
"""`step(state, batch, meta_batch, key, epoch) -> (state, info)`; pure, compiled by the loop."""


class Pass(NamedTuple):
    """One run over some of the data.

    Attributes:
      name: for messages.
      step: see `Step`.
      order: `order(state, key, epoch) -> Order`; pure, so that a resumed run finds it again.
      prepare: `prepare(state, logits, key, epoch) -> state`, once before the pass; pure, compiled
        by the loop.
      reads_logits: whether `prepare` gets the logits [N or more, K] of all training examples,
        un-augmented, in evaluation mode, padded at the end; else None.
    """

    name: str
    step: Step
    order: Callable[[TrainState, jax.Array, jax.Array], Order]
    prepare: Callable[..., TrainState] | None = None
    reads_logits: bool = False


class Stage(NamedTuple):
    """Some epochs, each of which runs `passes` in order.

    Attributes:
      name: for messages.
      epochs: how many.
      passes: in order.
      start: `start(state, key) -> state`, once before the first epoch; pure, compiled by the loop;
        `key` [] a PRNG key.
      result: whether its network may be the run's result; of a probe it may not.
      leaves: what of the report is written to the workdir when the stage ends, as NAME.npz.
    """

    name: str
    epochs: int
    passes: tuple[Pass, ...]
    start: Callable[[TrainState, jax.Array], TrainState] | None = None
    result: bool = True
    leaves: tuple[str, ...] = ()


class Method(NamedTuple):
    """`init(key) -> TrainState` and what to do with it.

    Attributes:
      stages: in order.
      report: `report(state) -> arrays`, what has been learned (see `runs.diagnostics`), or None.
      spread: names of entries of the memory [N, ...] that several devices share by rows.
    """

    init: Callable[[jax.Array], TrainState]
    stages: tuple[Stage, ...]
    report: Callable[[TrainState], dict[str, jax.Array]] | None = None
    spread: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage(self, epoch: int) -> Stage:
        """Returns the stage that an epoch, counted from 0 over all stages, belongs to."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise IndexError("epoch beyond the last stage")

    def stage_begins(self, epoch: int) -> bool:
        """Returns whether a stage begins after `epoch` epochs."""
        return epoch == 0 or self.stage_ends(epoch)

    def stage_ends(self, epoch: int) -> bool:
        """Returns whether a stage ends after `epoch` epochs."""
        return any(epoch == sum(s.epochs for s in self.stages[: i + 1])
                   for i in range(len(self.stages)))
