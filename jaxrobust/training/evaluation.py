"""Logits of a whole data set, batch by batch, in evaluation mode."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.data import batches
from jaxrobust.networks import Network
from jaxrobust.training.programs import shared_jit
from jaxrobust.training.sharding import ONE_DEVICE, Layout

Forward = Callable[[Any, Any, Any], jax.Array]


def make_forward(
    network: Network,
    view: Callable[[jax.Array, jax.Array], jax.Array],
    batch_size: int,
    threads: int = 2,
    layout: Layout = ONE_DEVICE,
) -> Forward:
    """Returns `forward(params, batch_stats, x) -> logits [N, K]`, on the device.

    `x` is an array [N, ...] on the device, or anything with `len` and `[i]` on the host, which
    is then streamed. `view` must not be random. Every call has the same shape: the last batch
    is filled up with the last example.
    """

    def logits_of(params: Any, batch_stats: Any, x: Any) -> jax.Array:
        x = layout.shard(view(jax.random.key(0), x))
        return network.apply(params, batch_stats, x, False)[0]

    def logits_at(params: Any, batch_stats: Any, x: Any, rows: Any) -> jax.Array:
        return logits_of(params, batch_stats, jnp.take(x, rows, axis=0))

    copies = layout.copies()
    jit = shared_jit if copies is None else functools.partial(jax.jit, out_shardings=copies)
    whole, some = jit(logits_of), jit(logits_at)

    def forward(params: Any, batch_stats: Any, x: Any) -> jax.Array:
        n = len(x)
        size = min(batch_size, n)
        steps = batches.num_steps(n, size)
        rows = np.minimum(np.arange(steps * size, dtype=np.int32), n - 1).reshape(steps, size)
        if isinstance(x, jax.Array):
            parts = [some(params, batch_stats, x, r) for r in rows]
        else:
            stream = map(layout.put, batches.stream(x, rows, threads))
            parts = [whole(params, batch_stats, part) for part in stream]
        return jnp.concatenate(parts)[:n]

    return forward
