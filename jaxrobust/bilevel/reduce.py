"""Means over the batch, whole or spread over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrobust import losses


def share_of_mean(
    values: jax.Array, where: jax.Array | None = None, axis_name: str | None = None
) -> jax.Array:
    """Returns the sum of `values` [B] divided by how many count on all devices together.

    On one device this is the mean. On several the shares add up to it, and so do their
    gradients: differentiate the share, then sum the gradients (`psum`).
    """
    return losses.mean(values, where=where, divisor=_count(values, where, axis_name))


def effective_sample_size(
    weights: jax.Array, where: jax.Array | None = None, axis_name: str | None = None
) -> jax.Array:
    """Returns (sum w)^2 / (sum w^2) / B, in [1/B, 1]: 1 if all weights [B] are equal."""
    shares = [share_of_mean(w, where, axis_name) for w in (weights, weights**2)]
    mean, mean_of_squares = shares if axis_name is None else jax.lax.psum(shares, axis_name)
    return mean**2 / jnp.where(mean_of_squares > 0, mean_of_squares, 1)


def _count(values: jax.Array, where: jax.Array | None, axis_name: str | None) -> jax.Array:
    here = jnp.asarray(values.size) if where is None else jnp.sum(where)
    total = here if axis_name is None else jax.lax.psum(here, axis_name)
    return jnp.maximum(total, 1).astype(values.dtype)
