"""Hierarchical sampling of metadata from the training data itself.

Source: Jiang et al. 2023 (dynamic loss), arXiv 2211.12506. N examples, K classes. All of it is
sorting: no loop over examples, and everything runs on the device.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.objectives.ranks import place_in_class


def metadata_sizes(
    class_counts: np.ndarray, candidates: float = 0.5, kept: float = 0.5
) -> tuple[int, int]:
    """Returns how many examples of a class are drawn, and how many of these are kept.

    floor(candidates n) and floor(candidates kept n), n the size of the smallest class that is
    not empty; `class_counts` int [K].

    Example:
      >>> metadata_sizes(np.array([100, 40, 0]))
      (20, 10)
    """
    counts = np.asarray(class_counts)
    smallest = int(counts[counts > 0].min())

    def part(share: float) -> int:
        return math.floor(share * smallest + 1e-9)  # 0.29 * 100 is 28.99…

    return part(candidates), part(candidates * kept)


def draw_candidates(
    key: jax.Array, labels: jax.Array, num_classes: int, per_class: int
) -> jax.Array:
    """Returns bool [N]: `per_class` examples of every class, at random."""
    random = jax.random.uniform(key, labels.shape)
    return place_in_class(random, labels, num_classes) < per_class


def keep_lowest(
    losses: jax.Array, labels: jax.Array, candidates: jax.Array, num_classes: int, per_class: int
) -> jax.Array:
    """Returns bool [N]: of the candidates, the `per_class` of each class with the lowest loss."""
    values = jnp.where(candidates, losses, jnp.inf)
    return (place_in_class(values, labels, num_classes) < per_class) & candidates


def split_rows(chosen: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the rows of the `size` chosen examples and those of all others, both ascending.

    `chosen` is bool [N]; the rows are int32 [size] and [N - size].
    """
    n = chosen.shape[0]
    meta = jnp.nonzero(chosen, size=size)[0].astype(jnp.int32)
    rest = jnp.nonzero(~chosen, size=n - size)[0].astype(jnp.int32)
    return meta, rest


def hierarchical_sampling(
    key: jax.Array,
    losses: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    candidates: int,
    kept: int,
    size: int,
    by_loss: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Chooses balanced metadata, most of it rightly labeled, from the training data itself.

    From every class `candidates` examples are drawn at random; of these the `kept` ones with the
    lowest loss make the metadata. Drawing first keeps the metadata from being the same easy
    examples every epoch.

    Args:
      losses, labels: [N], to the given label.
      candidates, kept: see `metadata_sizes`.
      size: `kept` times the number of classes that are not empty.
      by_loss: False keeps examples at random, for data without wrong labels.

    Returns:
      int32 rows of the metadata [size] and of the rest [N - size].
    """
    draw, choose = jax.random.split(key)
    drawn = draw_candidates(draw, labels, num_classes, candidates)
    values = losses if by_loss else jax.random.uniform(choose, labels.shape)
    return split_rows(keep_lowest(values, labels, drawn, num_classes, kept), size)
