"""Updates of the state that methods share: plain steps, bilevel steps, per-epoch preparation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.bilevel import Bilevel, Info
from jaxrobust.data.batches import Batch
from jaxrobust.methods.metadata import Metadata
from jaxrobust.methods.method import TrainState, View
from jaxrobust.networks import Network
from jaxrobust.objectives import ranks_by_class


def fresh_network(
    network: Network, view: View, example: jax.Array, key: jax.Array
) -> tuple[Any, Any]:
    """Returns parameters and batch statistics for `view` of the raw `example` [B, ...]."""
    x = jax.eval_shape(view, key, example)
    return network.init(key, jnp.zeros(x.shape, x.dtype))


def plain_start(
    network: Network,
    optimizer: optax.GradientTransformation,
    view: View,
    example: jax.Array,
    key: jax.Array,
    memory: dict[str, Any] | None = None,
) -> TrainState:
    """Returns a fresh state for `plain_update`; `memory` is what else the method remembers."""
    params, stats = fresh_network(network, view, example, key)
    step, opt_state = jnp.zeros((), jnp.int32), optimizer.init(params)
    return TrainState(step, params, stats, opt_state, {}, {}, memory or {}, {})


def bilevel_start(
    network: Network,
    bilevel: Bilevel,
    view: View,
    example: jax.Array,
    key: jax.Array,
    memory: dict[str, Any],
) -> TrainState:
    """Returns a fresh state for `bilevel.step`; `memory` is what else the method remembers."""
    net_key, meta_key, _ = jax.random.split(key, 3)
    return TrainState(
        *bilevel.init(meta_key, *fresh_network(network, view, example, net_key)), memory, {}
    )


def mean_loss(value: jax.Array, batch: Batch) -> jax.Array:
    """Returns the mean of the losses [B] of a batch's real examples, each times its weight.

    The weights are the user's, "sample_weight" [B], where there are any.
    """
    return losses.mean(value * batch.get("sample_weight", 1.0), where=batch["where"])


def plain_update(
    network: Network,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    x: jax.Array,
    loss: Callable[[jax.Array], jax.Array],
) -> tuple[TrainState, jax.Array, jax.Array]:
    """One step of the optimizer on `loss(logits [B, K]) -> scalar`.

    Returns:
      The state, the loss before the step, and the logits [B, K] it was taken from.
    """

    def objective(params: Any) -> Any:
        logits, stats = network.apply(params, state.network_state, x, True)
        return loss(logits), (logits, stats)

    (value, (logits, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state._replace(
        step=state.step + 1, params=params, network_state=stats, opt_state=opt_state
    )
    return state, value, logits


def due(epoch: jax.Array, meta_every: int) -> bool | jax.Array:
    """Returns whether an epoch has look-aheads and meta-steps: one in `meta_every` epochs has."""
    return True if meta_every == 1 else epoch % meta_every == 0


def scalars_of(info: Info) -> dict[str, jax.Array]:
    """Returns the numbers of a bilevel step that are logged every epoch."""
    names = ("loss", "meta_loss", "meta_grad_norm", "effective_sample_size")
    return {name: getattr(info, name) for name in names}


def put_rows(array: jax.Array, batch: Batch, values: jax.Array, column: Any = None) -> jax.Array:
    """Writes `values` [B] to the batch's rows of `array` [N] or, in a column, [N, T].

    Rows that only fill up the batch are left out. Where the state is donated, in place.
    """
    rows = jnp.where(batch["where"], batch["index"], array.shape[0])
    at = array.at[rows] if column is None else array.at[rows, column]
    return at.set(values.astype(array.dtype), mode="drop")


def preparation(
    labels: jax.Array,
    num_classes: int,
    *,
    num_ranks: int | None = None,
    predict: bool = False,
    metadata: Metadata | None = None,
    scores: Callable[[dict[str, Any]], jax.Array] | None = None,
) -> dict[str, Any]:
    """Returns `prepare` and `reads_logits` of a `Pass`; {} if there is nothing to prepare.

    Args:
      labels: int32 [N], given.
      num_ranks: R, if memory["rank"] [N] is wanted: ranks of the losses within the given class.
      predict: whether memory["prediction"] [N] is wanted.
      metadata: chosen anew, if it is one that chooses.
      scores: `scores(memory) -> [N]`, what it is chosen by, the lower the better; None: by
        cross-entropy, as the ranks are.
    """
    choose = None if metadata is None else metadata.choose
    ranks = num_ranks is not None
    reads_logits = ranks or predict or (choose is not None and scores is None)
    if not reads_logits and choose is None:
        return {}

    def prepare(
        state: TrainState, logits: jax.Array, key: jax.Array, epoch: jax.Array
    ) -> TrainState:
        del epoch
        memory, loss = dict(state.memory), None
        if reads_logits:
            logits = logits[: len(labels)]
            loss = losses.cross_entropy(logits, labels)
        if ranks:
            memory["rank"] = ranks_by_class(loss, labels, num_classes, num_ranks)
        if predict:
            memory["prediction"] = jnp.argmax(logits, -1).astype(jnp.int32)
        if choose is not None:
            memory = choose(memory, loss if scores is None else scores(memory), key)
        return state._replace(memory=memory)

    return {"prepare": prepare, "reads_logits": reads_logits}
