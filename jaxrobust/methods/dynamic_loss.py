"""The dynamic loss as stages: warm-up, then look-ahead and meta-step with every batch.

Source: Jiang et al. 2023 (TPAMI), arXiv 2211.12506; defaults are those of the released program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import losses
from jaxrobust.bilevel import make_bilevel
from jaxrobust.data import batches, sampling
from jaxrobust.errors import check
from jaxrobust.methods.dynamic_loss_steps import bilevel_step, fine_tune_step, warm_up_step
from jaxrobust.methods.metadata import Sampling, sizes
from jaxrobust.methods.method import Method, Pass, Stage, TrainState
from jaxrobust.networks import Network
from jaxrobust.objectives import DynamicLoss

View = Callable[[jax.Array, jax.Array], jax.Array]


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
    """Returns the stages as pairs (epochs, steps an epoch), for a learning-rate schedule."""
    _, size = sizes(class_counts, chosen)
    steps = batches.num_steps(num_examples - size, batch_size)
    steps += batches.num_steps(size, min(batch_size, size)) if fine_tune else 0
    warm_up = (warmup_epochs, batches.num_steps(num_examples, batch_size))
    return warm_up, (epochs - warmup_epochs, steps)


def dynamic_loss(
    network: Network,
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
    skip: int = 0,
    look_ahead_steps: int = 1,
    hypergradient: str = "exact",
    bottom_batch_norm: str = "eval",
    axis_name: str | None = None,
) -> Method:
    """Returns the dynamic loss's training.

    Warm-up: cross-entropy to the given label on the strong view, while the corrector is fitted
    to trust the given labels. Afterwards every epoch refreshes the ranks, chooses metadata by
    hierarchical sampling, makes a bilevel step with every batch, and ends with one pass of
    cross-entropy with margins over the metadata.

    Args:
      objective: see `jaxrobust.objectives.dynamic_loss`.
      weak, strong: views of the look-ahead; of the real step, the metadata and the warm-up.
      example: one raw batch, for its shape.
      labels: int32 [N], given labels of the training data.
      class_counts: int [K], their numbers.
      epochs: in all, `warmup_epochs` of them warm-up.
      fit_steps: the corrector is fitted during the first so many steps.
      chosen: see `Sampling`.
      fine_tune: whether an epoch ends with a pass over its metadata.
      mixup_alpha: mixes images and corrected labels with Beta(alpha, alpha); None: no mixup.
      meta_every: look-ahead and meta-step every so many epochs.
      skip, look_ahead_steps, hypergradient, bottom_batch_norm, axis_name: see
        `jaxrobust.bilevel.make_bilevel`.

    Raises:
      UserError: the smallest class is too small to take metadata from.
    """
    num_classes, n = len(class_counts), len(labels)
    (drawn, kept), size = sizes(class_counts, chosen)
    check(
        n - size >= batch_size,
        f"train.batch_size={batch_size} exceeds the {n - size} examples left beside the metadata.",
    )
    bilevel = make_bilevel(
        network, objective, optimizer, meta_optimizer, steps=look_ahead_steps,
        mode=hypergradient, skip=skip, bottom_batch_norm=bottom_batch_norm, axis_name=axis_name,
    )

    def init(key):
        net_key, meta_key, view_key = jax.random.split(key, 3)
        x = jax.eval_shape(strong, view_key, example)
        params, stats = network.init(net_key, jnp.zeros(x.shape, x.dtype))
        state = bilevel.init(meta_key, params, stats)
        memory = {
            "phi": state.meta_params,
            "meta_opt_state": state.meta_opt_state,
            "rank": jnp.zeros((n,), jnp.int32),
            "prediction": labels,
            "meta_rows": jnp.zeros((size,), jnp.int32),
            "train_rows": jnp.zeros((n - size,), jnp.int32),
        }
        return TrainState(state.step, params, stats, state.opt_state, memory)

    @partial(jax.jit, static_argnames="sample")
    def refresh(memory, logits, key, sample):
        value = losses.cross_entropy(logits[:n], labels)
        rank = sampling.ranks_by_class(value, labels, num_classes, num_ranks)
        prediction = jnp.argmax(logits[:n], -1).astype(jnp.int32)
        memory = memory | {"rank": rank, "prediction": prediction}
        if sample:
            meta, rest = sampling.hierarchical_sampling(
                key, value, labels, num_classes=num_classes, candidates=drawn, kept=kept,
                size=size, by_loss=chosen.by_loss,
            )
            memory |= {"meta_rows": meta, "train_rows": rest}
        return memory

    def prepare(state, forward, key, epoch, *, sample):
        del epoch
        return state._replace(memory=refresh(state.memory, forward(state), key, sample=sample))

    warm_up = Pass(
        "train",
        warm_up_step(network, objective, optimizer, meta_optimizer, strong, fit_steps),
        lambda state, key, epoch: batches.shuffled(key, jnp.arange(n, dtype=jnp.int32), batch_size),
        partial(prepare, sample=False),
    )

    def order(state, key, epoch):
        del epoch
        train_key, meta_key = jax.random.split(key)
        train = batches.shuffled(train_key, state.memory["train_rows"], batch_size)
        steps = train.index.shape[0]
        meta = batches.cycled(meta_key, state.memory["meta_rows"], steps, meta_batch_size)
        return train._replace(meta_index=meta)

    learn = Pass(
        "train", bilevel_step(bilevel, weak, strong, mixup_alpha, meta_every), order,
        partial(prepare, sample=True),
    )
    tune = Pass(
        "fine_tune",
        fine_tune_step(network, objective, optimizer, strong),
        lambda state, key, epoch: batches.shuffled(
            key, state.memory["meta_rows"], min(batch_size, size)
        ),
    )

    def report(state):
        memory = state.memory
        weights = objective.rank_weights(memory["phi"])
        trusted = weights[memory["rank"], labels] >= 0.5
        return {
            "rank_weights": weights,
            "margins": objective.margins(memory["phi"]),
            "rank": memory["rank"],
            "corrected": jnp.where(trusted, labels, memory["prediction"]),
            "metadata": memory["meta_rows"],
            "weights": weights[memory["rank"], labels],
        }

    passes = (learn, tune) if fine_tune else (learn,)
    return Method(
        init,
        (Stage("warm_up", warmup_epochs, (warm_up,)),
         Stage("dynamic_loss", epochs - warmup_epochs, passes)),
        report,
    )
