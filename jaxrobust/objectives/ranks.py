"""Ranks of examples by their loss within a class, N examples, K classes, R ranks.

Source: Jiang et al. 2023 (dynamic loss), arXiv 2211.12506. All of it is sorting: no loop over
examples, and everything runs on the device.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def place_in_class(values: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns int32 [N], the 0-based place of each value among those of its class, ascending.

    Ties keep the order of the examples.
    """
    n = labels.shape[0]
    order = jnp.lexsort((values, labels))
    counts = jnp.zeros((num_classes,), jnp.int32).at[labels].add(1)
    start = jnp.cumsum(counts) - counts
    place = jnp.arange(n, dtype=jnp.int32) - start[labels[order]]
    return jnp.zeros((n,), jnp.int32).at[order].set(place)


def ranks_by_class(
    losses: jax.Array, labels: jax.Array, num_classes: int, num_ranks: int = 100
) -> jax.Array:
    """Returns int32 [N], the rank of each example by its loss within its given class.

    The j-th smallest of a class of n gets floor(j R / (n + 1)), computed in integers.

    Args:
      losses: float [N], of each example to its given label.
      labels: int [N], given labels.
      num_classes: K.
      num_ranks: R.
    """
    counts = jnp.zeros((num_classes,), jnp.int32).at[labels].add(1)
    place = place_in_class(losses, labels, num_classes)
    return place * num_ranks // (counts[labels] + 1)
