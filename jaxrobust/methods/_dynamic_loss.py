"""The dynamic loss as stages: warm-up, then look-ahead and meta-step with every batch.

Source: Jiang et al. 2023 (TPAMI), arXiv 2211.12506; defaults are those of the released program.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import losses
from jaxrobust.augment.views import mix, mixup_pairs
from jaxrobust.bilevel import Bilevel
from jaxrobust.data import batches
from jaxrobust.data.batches import Batch
from jaxrobust.errors import check
from jaxrobust.methods.metadata import Sampling, low_loss, sizes
from jaxrobust.methods.method import Method, Pass, Stage, Step, StepInfo, TrainState, View
from jaxrobust.methods.updates import (
    bilevel_start,
    due,
    mean_loss,
    plain_update,
    preparation,
    scalars_of,
)
from jaxrobust.networks import Network
from jaxrobust.objectives import DynamicLoss

_AS_RELEASED = Sampling()


def dynamic_loss_steps(
    num_examples: int,
    class_counts: np.ndarray,
    *,
    batch_size: int,
    epochs: int,
    warmup_epochs: int = 5,
    chosen: Sampling = _AS_RELEASED,
    fine_tune: bool = True,
) -> tuple[tuple[int, int], ...]:
    """Returns the stages as pairs (epochs, steps an epoch), for a learning-rate schedule.

    Args:
      num_examples: N.
      class_counts: int [K], of the given labels.
      batch_size: examples per step.
      epochs: in all, `warmup_epochs` of them warm-up.
      warmup_epochs: epochs before the first meta-step.
      chosen: how the meta set is chosen.
      fine_tune: whether an epoch ends with a pass over its meta set.

    Raises:
      UserError: a class that is too small to take metadata from.
    """
    _, size = sizes(class_counts, chosen)
    steps = batches.num_steps(num_examples - size, batch_size)
    steps += batches.num_steps(size, min(batch_size, size)) if fine_tune else 0
    warm_up = (warmup_epochs, batches.num_steps(num_examples, batch_size))
    return warm_up, (epochs - warmup_epochs, steps)


def dynamic_loss(
    network: Network,
    bilevel: Bilevel,
    objective: DynamicLoss,
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
    weak: View,
    strong: View,
    *,
    example: jax.Array,
    labels: jax.Array,
    class_counts: np.ndarray,
    batch_size: int,
    meta_batch_size: int,
    epochs: int,
    warmup_epochs: int = 5,
    fit_steps: int = 2000,
    num_ranks: int = 100,
    chosen: Sampling = _AS_RELEASED,
    fine_tune: bool = True,
    mixup_alpha: float | None = None,
    meta_every: int = 1,
) -> Method:
    """Returns the dynamic loss's training.

    Source: Jiang et al. 2023, arXiv 2211.12506.

    Warm-up: cross-entropy to the given label on the strong view, while the corrector is fitted
    to trust the given labels. Afterwards every epoch refreshes the ranks, chooses metadata by
    hierarchical sampling, makes a bilevel step with every batch, and ends with one pass of
    cross-entropy with margins over the metadata.

    Args:
      bilevel: of `network`, `objective`, `optimizer` and `meta_optimizer`.
      objective: see `jaxrobust.objectives.dynamic_loss`.
      weak, strong: views of the look-ahead; of the real step, the metadata and the warm-up.
      example: one raw batch, for its shape.
      labels: int32 [N], given labels of the training data.
      class_counts: int [K], their numbers.
      batch_size: examples per step.
      meta_batch_size: examples of the meta set per step.
      num_ranks: R.
      epochs: in all, `warmup_epochs` of them warm-up.
      fit_steps: the corrector is fitted during the first so many steps.
      chosen: see `Sampling`.
      fine_tune: whether an epoch ends with a pass over its metadata.
      mixup_alpha: mixes images and corrected labels with Beta(alpha, alpha); None: no mixup.
      meta_every: look-ahead and meta-step every so many epochs.

    Raises:
      UserError: the smallest class is too small to take metadata from; nothing but warm-up.
    """
    check(
        warmup_epochs < epochs,
        f"method.warmup_epochs={warmup_epochs} must be below train.epochs={epochs}: the dynamic "
        "loss is learned after the warm-up.",
    )
    n, num_classes = len(labels), len(class_counts)
    metadata = low_loss(labels, class_counts, chosen, apart=True)
    left = n - metadata.size
    check(
        left >= batch_size,
        f"train.batch_size={batch_size} exceeds the {left} examples outside the meta set.",
    )

    def init(key: jax.Array) -> TrainState:
        memory = {"rank": jnp.zeros((n,), jnp.int32), "prediction": labels} | metadata.memory
        return bilevel_start(network, bilevel, strong, example, key, memory)

    def all_rows(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
        return batches.shuffled(key, jnp.arange(n, dtype=jnp.int32), batch_size)

    def split_rows(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
        train, meta = state.memory["train_rows"], state.memory["meta_rows"]
        return batches.with_metadata(key, train, meta, batch_size, meta_batch_size)

    def meta_rows(state: TrainState, key: jax.Array, epoch: jax.Array) -> batches.Order:
        size = min(batch_size, metadata.size)
        return batches.shuffled(key, state.memory["meta_rows"], size)

    ranked = {"num_ranks": num_ranks, "predict": True}
    fit = warm_up_step(network, objective, optimizer, meta_optimizer, strong, fit_steps)
    warm_up = Pass("train", fit, all_rows, **preparation(labels, num_classes, **ranked))
    step = bilevel_step(bilevel, weak, strong, mixup_alpha, meta_every)
    found = preparation(labels, num_classes, metadata=metadata, **ranked)
    passes = (Pass("train", step, split_rows, **found),)
    if fine_tune:
        tune = fine_tune_step(network, objective, optimizer, strong)
        passes += (Pass("fine_tune", tune, meta_rows),)
    stages = (
        Stage("warm_up", warmup_epochs, (warm_up,)),
        Stage("dynamic_loss", epochs - warmup_epochs, passes),
    )
    return Method(init, stages, partial(_report, objective, labels))


def _report(objective: Any, labels: jax.Array, state: TrainState) -> dict[str, Any]:
    """What has been learned, see `Method`."""
    memory = state.memory
    rank_weights = objective.rank_weights(state.meta_params)
    weights = rank_weights[memory["rank"], labels]
    return {
        "rank_weights": rank_weights,
        "margins": objective.margins(state.meta_params),
        "rank": memory["rank"],
        "corrected": jnp.where(weights >= 0.5, labels, memory["prediction"]),
        "metadata": memory["meta_rows"],
        "weights": weights,
    }


_LOSS = 1000  # Folded into a step's key for the loss; views fold in 0, 1, ...


def _with_rank(batch: Batch, memory: dict[str, Any]) -> Batch:
    return batch | {"rank": jnp.take(memory["rank"], batch["index"])}


def warm_up_step(
    network: Network,
    objective: Any,
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
    strong: View,
    fit_steps: int,
) -> Step:
    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        del meta_batch, epoch
        labels, where = batch["labels"], batch["where"]
        fits = state.step < fit_steps
        state, value, logits = plain_update(
            network,
            optimizer,
            state,
            strong(key, batch["x"]),
            lambda z: mean_loss(losses.cross_entropy(z, labels, where=where), batch),
        )
        scalars = {"loss": value}
        if objective.weights is not None:
            state, fitting = _fit(objective, meta_optimizer, state, logits, batch, fits)
            scalars["fitting_loss"] = fitting
        return state, StepInfo(logits, scalars)

    return step


def _fit(
    objective: Any,
    meta_optimizer: optax.GradientTransformation,
    state: TrainState,
    logits: jax.Array,
    batch: Batch,
    fits: jax.Array,
) -> tuple[TrainState, jax.Array]:
    """One step of the corrector towards trusting the given labels; none once `fits` is False.

    The margins stay as they are, whatever the optimizer's weight decay, and where they have an
    optimizer state of their own (`optax.partition`), so does that.
    """
    batch, phi = _with_rank(batch, state.memory), state.meta_params

    def loss(phi: Any) -> jax.Array:
        return losses.mean(objective.fitting_loss(phi, logits, batch), where=batch["where"])

    value, grads = jax.value_and_grad(loss)(phi)
    updates, opt_state = meta_optimizer.update(grads, state.meta_opt_state, phi)
    moved: Any = optax.apply_updates(phi, updates)
    if isinstance(opt_state, optax.transforms.PartitionState):
        before = state.meta_opt_state.inner_states
        opt_state = opt_state._replace(
            inner_states=dict(before) | {"corrector": opt_state.inner_states["corrector"]}
        )
    new = phi | {"corrector": moved["corrector"]}, opt_state
    old = phi, state.meta_opt_state
    phi, opt_state = jax.tree.map(lambda a, b: jnp.where(fits, a, b), new, old)
    return state._replace(meta_params=phi, meta_opt_state=opt_state), value


def bilevel_step(
    bilevel: Bilevel, weak: View, strong: View, mixup_alpha: float | None, meta_every: int
) -> Step:
    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        weak_key, strong_key, meta_key, mix_key, draw_key, loss_key = jax.random.split(key, 6)
        batch = _with_rank(batch, state.memory) | {"epoch": epoch, "key": loss_key}
        look_ahead = batch | {"x": weak(weak_key, batch["x"])}
        batch = batch | {"x": strong(strong_key, batch["x"])}
        if mixup_alpha is not None:
            partner, share = mixup_pairs(mix_key, len(batch["labels"]), mixup_alpha)
            batch |= {
                "x": mix(batch["x"], partner, share),
                "mix_partner": partner,
                "mix_share": share,
            }
        assert meta_batch is not None
        meta_batch = meta_batch | {"x": strong(meta_key, meta_batch["x"])}
        state, info = bilevel.step(
            state, batch, meta_batch, draw_key, due(epoch, meta_every), look_ahead=look_ahead
        )
        return state, StepInfo(info.logits, scalars_of(info))

    return step


def fine_tune_step(
    network: Network, objective: Any, optimizer: optax.GradientTransformation, strong: View
) -> Step:
    def step(
        state: TrainState, batch: Batch, meta_batch: Batch | None, key: jax.Array, epoch: jax.Array
    ) -> tuple[TrainState, StepInfo]:
        del meta_batch
        phi, loss_key = state.meta_params, jax.random.fold_in(key, _LOSS)
        batch = batch | {"epoch": epoch, "key": loss_key}
        state, value, logits = plain_update(
            network,
            optimizer,
            state,
            strong(key, batch["x"]),
            lambda z: mean_loss(objective.margin_loss(phi, z, batch["labels"], batch), batch),
        )
        return state, StepInfo(logits, {"loss": value})

    return step
