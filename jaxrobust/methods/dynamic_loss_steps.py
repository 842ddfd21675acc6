"""The three kinds of step of the dynamic loss: warm-up, look-ahead and real step, fine-tuning.

Each maker returns a `Step` (see `methods.method`) for `methods.dynamic_loss`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.augment.views import mix, mixup_pairs
from jaxrobust.methods.method import StepInfo
from jaxrobust.methods.steps import bilevel_update, mean_loss, plain_update, scalars_of

_LOSS = 1000  # Folded into a step's key for the loss; views fold in 0, 1, ...


def _with_rank(batch, memory):
    return batch | {"rank": jnp.take(memory["rank"], batch["index"])}


def warm_up_step(network, objective, optimizer, meta_optimizer, strong, fit_steps):
    def step(state, batch, meta_batch, key, epoch):
        del meta_batch, epoch
        labels, where = batch["labels"], batch["where"]
        fits = state.step < fit_steps
        state, value, logits = plain_update(
            network, optimizer, state, strong(key, batch["x"]),
            lambda z: mean_loss(losses.cross_entropy(z, labels, where=where), batch),
        )
        scalars = {"loss": value}
        if objective.weights is not None:
            memory, fitting = _fit(objective, meta_optimizer, state.memory, logits, batch, fits)
            state, scalars = state._replace(memory=memory), scalars | {"fitting_loss": fitting}
        return state, StepInfo(logits, scalars)

    return step


def _fit(objective, meta_optimizer, memory, logits, batch, fits):
    """One step of the corrector towards trusting the given labels; none once `fits` is False.

    The margins stay as they are, whatever the optimizer's weight decay, and where they have an
    optimizer state of their own (`optax.partition`), so does that.
    """
    batch = _with_rank(batch, memory)

    def loss(phi):
        return losses.mean(objective.fitting_loss(phi, logits, batch), where=batch["where"])

    value, grads = jax.value_and_grad(loss)(memory["phi"])
    updates, opt_state = meta_optimizer.update(grads, memory["meta_opt_state"], memory["phi"])
    moved: Any = optax.apply_updates(memory["phi"], updates)
    phi = memory["phi"] | {"corrector": moved["corrector"]}
    if isinstance(opt_state, optax.transforms.PartitionState):
        before = memory["meta_opt_state"].inner_states
        opt_state = opt_state._replace(
            inner_states=dict(before) | {"corrector": opt_state.inner_states["corrector"]}
        )
    new = {"phi": phi, "meta_opt_state": opt_state}
    old = {name: memory[name] for name in new}
    return memory | jax.tree.map(lambda a, b: jnp.where(fits, a, b), new, old), value


def bilevel_step(bilevel, weak, strong, mixup_alpha, meta_every):
    def step(state, batch, meta_batch, key, epoch):
        weak_key, strong_key, meta_key, mix_key, draw_key, loss_key = jax.random.split(key, 6)
        batch = _with_rank(batch, state.memory) | {"epoch": epoch, "key": loss_key}
        real = {"x": strong(strong_key, batch["x"])}
        if mixup_alpha is not None:
            partner, share = mixup_pairs(mix_key, len(batch["labels"]), mixup_alpha)
            real = {"x": mix(real["x"], partner, share), "mix_partner": partner,
                    "mix_share": share}
        batch = batch | {"x": weak(weak_key, batch["x"]), "real_step": real}
        meta_batch = meta_batch | {"x": strong(meta_key, meta_batch["x"])}
        state, info = bilevel_update(
            bilevel, state, batch, meta_batch, draw_key, epoch, meta_every
        )
        return state, StepInfo(info.logits, scalars_of(info))

    return step


def fine_tune_step(network, objective, optimizer, strong):
    def step(state, batch, meta_batch, key, epoch):
        del meta_batch
        phi, loss_key = state.memory["phi"], jax.random.fold_in(key, _LOSS)
        batch = batch | {"epoch": epoch, "key": loss_key}
        state, value, logits = plain_update(
            network, optimizer, state, strong(key, batch["x"]),
            lambda z: mean_loss(objective.margin_loss(phi, z, batch["labels"], batch), batch),
        )
        return state, StepInfo(logits, {"loss": value})

    return step
