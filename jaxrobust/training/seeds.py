"""Several seeds of one training as one program: `vmap` over state, order and keys.

The seeds share the data and the method, and differ in initialization, order, augmentation and
draws. Their states are one `TrainState` whose arrays have a leading axis S. Every number that is
random comes from the seed's own keys, as in a run of that seed alone; the sums of a matrix product
over several seeds at once may be ordered differently, so that results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.methods.method import Method, Pass, Stage, TrainState
from jaxrobust.training.loop import (
    Compiled,
    Feed,
    NonFinite,
    Place,
    Runner,
    bad_step,
    means,
    pass_functions,
)
from jaxrobust.training.metric_table import METRICS
from jaxrobust.training.programs import shared_jit


def of_seed(states: Any, seed: int) -> Any:
    """Returns what belongs to one of the seeds, counted from 0, of a pytree of arrays [S, ...]."""
    return jax.tree.map(
        lambda a: a[seed] if isinstance(a, jax.Array) else np.asarray(a[seed]), states
    )


class SeedsRunner(Runner):
    """A `Runner` of several seeds: states, keys, orders and sums have a leading axis S.

    Args:
      method, feed, forward, loop, options: as `Runner`; for one device, nothing streamed.
      seeds: S seeds.
    """

    def __init__(
        self,
        method: Method,
        feed: Feed,
        forward: Callable,
        seeds: tuple[int, ...],
        *,
        loop: str,
        options: dict[str, str] | None = None,
    ):
        self.seeds = seeds
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        super().__init__(method, feed, forward, keys, loop=loop, options=options)

    def init(self, init: Callable[[jax.Array], TrainState]) -> TrainState:
        """Returns the states that training starts from; `init` is that of one seed."""
        return shared_jit(jax.vmap(init), options=self._options)(self._key)

    def _fold(self, key: jax.Array, number: int) -> jax.Array:
        return jax.vmap(lambda k: jax.random.fold_in(k, number))(key)

    def _compile(self, stage: Stage, pass_: Pass, state: TrainState) -> Compiled:
        name = (stage.name, pass_.name)
        if name not in self._compiled:
            keys = jax.vmap(jax.random.split)(self._pass_key(*name))
            self._compiled[name] = self._together(pass_, (keys[:, 0], keys[:, 1]))
        return self._compiled[name]

    def _together(self, pass_: Pass, keys: tuple[jax.Array, jax.Array]) -> Compiled:
        single = pass_functions(pass_, self.method.epochs)

        def one(states, sums, data, truth, orders, epoch, i, streamed):
            def step(keys, state, sums, order):
                return single.one(keys, state, sums, data, truth, order, epoch, i, streamed)

            return jax.vmap(step)(keys, states, sums, orders)

        def many(states, sums, data, truth, orders, epoch):
            def steps(keys, state, sums, order):
                return single.many(keys, state, sums, data, truth, order, epoch)

            return jax.vmap(steps)(keys, states, sums, orders)

        def order(states, epoch):
            return jax.vmap(lambda keys, state: single.order(keys, state, epoch))(keys, states)

        def info(states, data, orders, epoch, i, streamed):
            def numbers(keys, state, order):
                return single.info(keys, state, data, order, epoch, i, streamed)

            return jax.vmap(numbers)(keys, states, orders)

        of_pass: Any = pass_.prepare

        def prepare(states, logits, keys, epoch):
            def of_one(state, logits, key):
                return of_pass(state, logits, key, epoch)

            axes = (0, None if logits is None else 0, 0)
            return jax.vmap(of_one, in_axes=axes)(states, logits, keys)

        def jit(function, donate=()):
            return shared_jit(function, donate=donate, options=self._options)

        prepared = None if pass_.prepare is None else jit(prepare, (0,))
        return Compiled(prepared, jit(order), jit(one, (0,)), jit(many, (0, 1)), info)

    def _start(self, stage: Stage, state: TrainState, key: jax.Array, epoch: int) -> TrainState:
        if stage.start is None or not self.method.stage_begins(epoch):
            return state

        begin = stage.start

        def start(state, key):
            return begin(state, key)._replace(dynamics=state.dynamics)

        keys = jax.vmap(jax.random.split)(key)[:, 0]
        return shared_jit(jax.vmap(start), donate=(0,), options=self._options)(state, keys)

    def _all_logits(self, state: TrainState) -> jax.Array:
        one = super()._all_logits
        return jnp.stack([one(of_seed(state, s)) for s in range(len(self.seeds))])

    def _zeros(self, scalars: dict[str, Any]) -> dict[str, jax.Array]:
        zeros = super()._zeros(scalars)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (len(self.seeds),)), zeros)

    def _row(self, stage: Stage, place: Place) -> list[dict[str, float]]:
        """Returns the numbers of an epoch, a row per seed."""
        sums = jax.device_get(place.sums)
        rows: list[dict[str, float]] = []
        for s, seed in enumerate(self.seeds):
            row: dict[str, float] = {}
            for index, pass_ in enumerate(stage.passes):
                own = of_seed(sums[pass_.name], s)
                if bad_step(own) >= 0:
                    raise NonFinite(bad_step(own), place.epoch, f" with seed {seed}")
                prefix = f"{pass_.name}_" if index else ""
                row |= {prefix + name: value for name, value in means(own).items()}
            rows.append(row)
        return rows


class SeedsSelection:
    """Keeps, on the host, the parameters of each seed's best epoch on the validation data.

    What `place` holds of the selection are lists with an entry per seed.
    """

    def __init__(self, metric: str, place: Place, seeds: int, weights: Any = None):
        self._metric, self._place, self._weights = metric, place, weights
        if place.selected_value is None:
            place.selected_value, place.selected_epoch = [None] * seeds, [0] * seeds

    def offer(self, states: TrainState, numbers: list[dict[str, Any]]) -> None:
        """Takes the numbers of the validation data after an epoch, a dictionary per seed."""
        for s, found in enumerate(numbers):
            score, best = METRICS[self._metric].score(found[self._metric]), self._place
            if best.selected_value[s] is None or score > best.selected_value[s]:
                self._weights = self.of(states, s)
                best.selected_value[s], best.selected_epoch[s] = score, best.epoch

    def of(self, states: TrainState, renewed: int | None = None) -> Any:
        """Returns (params, batch_stats) [S, ...] of each seed's best epoch.

        Those of `states` for a seed of which none was offered yet, and for `renewed`.
        """
        now = jax.device_get((states.params, states.network_state))
        if self._weights is None:
            return now
        values = enumerate(self._place.selected_value)
        new = np.array([value is None or s == renewed for s, value in values])
        return jax.tree.map(
            lambda a, b: np.where(new.reshape(-1, *[1] * (a.ndim - 1)), a, b), now, self._weights
        )
