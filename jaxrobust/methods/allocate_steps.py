"""The two kinds of step of an allocation: learning the weights, and training with them kept.

Each maker returns a `Step` (see `methods.method`) for `methods.allocate`. `read(memory, batch, key,
epoch) -> batch` adds what weigher and base read, "epoch" of the allocation among it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrobust import losses
from jaxrobust.methods.method import StepInfo
from jaxrobust.methods.steps import bilevel_update, plain_update, put_rows, scalars_of


def learn_step(bilevel, view, read, meta_every):
    def step(state, batch, meta_batch, key, epoch):
        view_key, meta_key, draw_key, loss_key = jax.random.split(key, 4)
        batch = read(state.memory, batch, loss_key, epoch) | {"x": view(view_key, batch["x"])}
        # Smoothing is for the weights that train: the look-ahead learns from the new ones alone.
        batch["real_step"] = {"last_weight": jnp.take(state.memory["weights"], batch["index"])}
        meta_batch = meta_batch | {"x": view(meta_key, meta_batch["x"])}
        state, info = bilevel_update(
            bilevel, state, batch, meta_batch, draw_key, batch["epoch"], meta_every
        )
        weights = put_rows(state.memory["weights"], batch, info.weights)
        state = state._replace(memory=state.memory | {"weights": weights})
        return state, StepInfo(info.logits, scalars_of(info))

    return step


def keep_step(network, optimizer, view, objective, read):
    def step(state, batch, meta_batch, key, epoch):
        del meta_batch
        view_key, draw_key, loss_key = jax.random.split(key, 3)
        phi = state.memory["phi"]["base"]
        batch = read(state.memory, batch, loss_key, epoch)
        weights = jnp.take(state.memory["weights"], batch["index"])

        def loss(logits):
            seen = batch
            if objective.observe is not None:
                seen = objective.observe(draw_key, jax.lax.stop_gradient(logits), batch)
            value = objective.loss(phi, logits, seen)
            return losses.mean(weights * value, where=batch["where"])

        x = view(view_key, batch["x"])
        state, value, logits = plain_update(network, optimizer, state, x, loss)
        return state, StepInfo(logits, {"loss": value})

    return step
