"""Batches: the order of the examples in an epoch, and the arrays of a batch.

A batch is a pure function of (seed, epoch, step): an epoch's order is drawn from a key that is
folded with the epoch, and a step reads its row of that order. Shapes: N examples, S steps, B
examples a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.data.examples import View

Batch = dict[str, Any]


class Order(NamedTuple):
    """The batches of one pass over the data.

    Attributes:
      index: int32 [S, B], rows of the data.
      where: bool [S, B], False where a row only fills up the last batch.
      meta_index: int32 [S, M] rows of each step's metadata batch, or None.
    """

    index: jax.Array
    where: jax.Array
    meta_index: jax.Array | None = None


def num_steps(num_examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Returns how many batches a pass over the data takes."""
    return num_examples // batch_size if drop_last else -(-num_examples // batch_size)


def shuffled(key: jax.Array, rows: jax.Array, batch_size: int, drop_last: bool = False) -> Order:
    """Returns batches that hold every one of `rows` once, in random order.

    The last batch is filled up with the first rows of the same order, masked out by `where`:
    shapes stay fixed, and batch norm sees only real examples.
    """
    n = rows.shape[0]
    steps = num_steps(n, batch_size, drop_last)
    position = jnp.arange(steps * batch_size, dtype=jnp.int32)
    index = jax.random.permutation(key, rows)[position % n]
    shape = (steps, batch_size)
    return Order(index.reshape(shape), (position < n).reshape(shape))


def cycled(key: jax.Array, rows: jax.Array, steps: int, batch_size: int) -> jax.Array:
    """Returns int32 [steps, batch_size]: `rows` again and again, each time in a new order."""
    n = rows.shape[0]
    rounds = -(-steps * batch_size // n)
    keys = jax.random.split(key, rounds)
    order = jax.vmap(lambda k: jax.random.permutation(k, rows))(keys).reshape(-1)
    return order[: steps * batch_size].reshape(steps, batch_size)


def with_metadata(
    key: jax.Array, rows: jax.Array, meta_rows: jax.Array, batch_size: int, meta_batch_size: int
) -> Order:
    """Returns the batches of `shuffled`, each with a batch of metadata out of `cycled`."""
    train_key, meta_key = jax.random.split(key)
    train = shuffled(train_key, rows, batch_size)
    steps = train.index.shape[0]
    return train._replace(meta_index=cycled(meta_key, meta_rows, steps, meta_batch_size))


def balanced(key: jax.Array, order: Order, labels: jax.Array, k: int, power: float) -> Order:
    """Returns an order of as many batches in which classes are met more evenly.

    A class of n examples is met in proportion to n^power: power 0 gives every class that occurs the
    same number of places (class-balanced sampling, Shen et al. 2016, arXiv 1512.05830), 1/2 the
    square root (Mahajan et al. 2018, arXiv 1805.00932). Within a class all examples are met equally
    often, but for one; of a class that has more examples than places, a random choice.

    Args:
      key: PRNG key.
      order: of T places in random order, of which V are not padding.
      labels: int [N] of the data, or of the rows that occur in the order.
      k: number of classes.
      power: 0 to 1.
    """
    rows, valid = order.index.reshape(-1), order.where.reshape(-1)
    own = jnp.where(valid, jnp.take(labels, rows), k)  # padding behind the last class
    by_class = rows[jnp.argsort(own, stable=True)]
    sizes = jnp.bincount(own, length=k + 1)[:k]
    weights = jnp.where(sizes > 0, sizes.astype(jnp.float32) ** power, 0)
    places = jnp.arange(len(rows))
    total = valid.sum()
    ends = jnp.round(jnp.cumsum(weights) / weights.sum() * total).astype(jnp.int32)
    ends = ends.at[-1].set(total)
    c = jnp.clip(jnp.searchsorted(ends, places, side="right"), 0, k - 1)
    before = jnp.where(c > 0, ends[c - 1], 0)
    start = (jnp.cumsum(sizes) - sizes)[c]
    drawn = by_class[start + (places - before) % jnp.maximum(sizes[c], 1)]
    late = jnp.where(places < total, jax.random.uniform(key, places.shape), 2.0)
    mixed = drawn[jnp.argsort(late, stable=True)]
    mixed = jnp.where(places < total, mixed, mixed[places % jnp.maximum(total, 1)])
    return order._replace(index=mixed.reshape(order.index.shape))


def take(data: Batch, index: jax.Array, where: jax.Array | None = None) -> Batch:
    """Returns the batch of the rows `index` [B] of `data`, a dictionary of arrays [N, ...]."""
    batch = {name: jnp.take(value, index, axis=0) for name, value in data.items()}
    batch["index"] = index
    batch["where"] = jnp.ones(index.shape, bool) if where is None else where
    return batch


def stream(x: Any, index: np.ndarray, threads: int = 2) -> Iterator[np.ndarray]:
    """Reads `x` batch by batch, ahead of use, for data that does not fit on the device.

    Args:
      x: anything with `len` and `[i]`, e.g. a folder of images that decodes when asked.
      index: int [S, B], the rows of each batch.
      threads: how many threads read and decode; 0 reads in this one.

    Yields:
      S arrays [B, ...], in the order of `index`, whatever the number of threads.
    """
    import grain  # Only here: most runs do not stream, and it takes a while to import.

    rows = grain.MapDataset.source(View(x, index.reshape(-1)))
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=4 * index.shape[-1] if threads else 0
    )
    batches = rows.to_iter_dataset(options).batch(index.shape[-1], drop_remainder=True)
    yield from batches
