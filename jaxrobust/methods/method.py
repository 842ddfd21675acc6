"""The record of a method: stages that say which step meets which data for how many epochs.

A method knows networks, losses and optimizers as functions and gives pure functions back; how
they are compiled, fed, saved and reported is the business of `jaxrobust.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jaxrobust.data.batches import Batch, Order


class TrainState(NamedTuple):
    """All that training carries from step to step; what a checkpoint holds.

    The first six entries are those of `bilevel.State`, and a bilevel step takes a `TrainState` as
    it takes one of those.

    Attributes:
      step: int32 [], optimizer steps taken so far.
      params: parameters of the network.
      network_state: its other state (batch norm's running statistics), {} if none.
      opt_state: state of the network's optimizer.
      meta_params: parameters of the learned objective, {} if none.
      meta_opt_state: state of their optimizer, {} if none.
      memory: what else the method carries, by name: ranks, weights, curves.
      dynamics: sums that the loop keeps, see `training.dynamics`; {} if it records nothing.
      average: moving average of the weights, see `training.average`; {} if none is kept.
    """

    step: jax.Array
    params: Any
    network_state: Any
    opt_state: Any
    meta_params: Any
    meta_opt_state: Any
    memory: dict[str, Any]
    dynamics: dict[str, jax.Array]
    average: dict[str, Any] = {}  # Never changed in place: as a default it is safe.

    @property
    def batch_stats(self) -> Any:
        """`network_state`, by its name in version 0.1.0."""
        return self.network_state


class StepInfo(NamedTuple):
    """Numbers of a step.

    Attributes:
      logits: [B, K] as met in training: augmented, before the update.
      scalars: means over the batch, by name; each becomes a column of the log.
    """

    logits: jax.Array
    scalars: dict[str, jax.Array]


class View(Protocol):
    """Augmentation and normalization of a batch."""

    def __call__(self, key: jax.Array, x: jax.Array, /) -> jax.Array:
        """Returns the network's input for raw examples `x` [B, ...]; `key` is a PRNG key."""
        ...


class Step(Protocol):
    """One optimizer step; pure, compiled by the loop."""

    def __call__(
        self,
        state: TrainState,
        batch: Batch,
        meta_batch: Batch | None,
        key: jax.Array,
        epoch: jax.Array,
        /,
    ) -> tuple[TrainState, StepInfo]:
        """Returns the next state and the step's numbers.

        Args:
          state: see `TrainState`.
          batch: arrays with leading axis B, see `data.batches.Batch`.
          meta_batch: likewise of the meta set; None if the pass's order has no meta rows.
          key: PRNG key of this step alone.
          epoch: int32 [], counted from 0 over all stages.
        """
        ...


class MakeOrder(Protocol):
    """Order of the examples in an epoch; pure, so that a resumed run finds it again."""

    def __call__(self, state: TrainState, key: jax.Array, epoch: jax.Array, /) -> Order:
        """Returns the rows of each batch; `key` is a PRNG key of this epoch, `epoch` int32 []."""
        ...


class Prepare(Protocol):
    """What is computed once before a pass; pure, compiled by the loop."""

    def __call__(
        self, state: TrainState, logits: jax.Array | None, key: jax.Array, epoch: jax.Array, /
    ) -> TrainState:
        """Returns the state that the pass starts from.

        Args:
          state: see `TrainState`.
          logits: [N or more, K] of all training examples, not augmented, in evaluation mode,
            padded at the end; None unless the pass `reads_logits`.
          key: PRNG key.
          epoch: int32 [].
        """
        ...


class Start(Protocol):
    """Start of a stage; pure, compiled by the loop."""

    def __call__(self, state: TrainState, key: jax.Array, /) -> TrainState:
        """Returns the state of the stage's first epoch; `key` is a PRNG key."""
        ...


class Pass(NamedTuple):
    """One run over some of the data.

    Attributes:
      name: for messages.
      step: see `Step`.
      order: see `MakeOrder`.
      prepare: see `Prepare`; None if there is nothing to prepare.
      reads_logits: whether `prepare` is given logits.
    """

    name: str
    step: Step
    order: MakeOrder
    prepare: Prepare | None = None
    reads_logits: bool = False


class Stage(NamedTuple):
    """Some epochs, each of which runs `passes` in order.

    Attributes:
      name: for messages.
      epochs: how many.
      passes: in order.
      start: see `Start`, called once before the first epoch; None: the stage goes on from the
        state of the one before. The dynamics that the loop records are kept in either case.
      result: whether its network may be the run's result; of a probe it may not.
      leaves: names of report entries saved to NAME.npz at the end of the stage.
    """

    name: str
    epochs: int
    passes: tuple[Pass, ...]
    start: Start | None = None
    result: bool = True
    leaves: tuple[str, ...] = ()


class Method(NamedTuple):
    """A fresh state and what to do with it.

    Attributes:
      init: `init(key) -> TrainState`, without dynamics.
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
        """Epochs of all stages."""
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
        return any(
            epoch == sum(s.epochs for s in self.stages[: i + 1]) for i in range(len(self.stages))
        )
