"""Random choices within classes: stratified and balanced shares of the data.

All rest on one draw, the rank of each example in a random order of its class; a share of n of a
class is its ranks below n, so that with the same key a smaller share is part of a larger one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from jaxrobust.errors import check

# What the seed is used for. Each purpose has its own key, so that changing one (the noise, say)
# leaves the others (the imbalance, the validation split) as they were.
SUBSET, METADATA, IMBALANCE, NOISE, VALIDATION, TEST, FOLDS = range(7)
_DATA = 0x64617461  # "data": apart from the keys of training


def key_for(seed: int, purpose: int) -> jax.Array:
    """Returns the key of one use of the seed. The generator is fixed: Threefry."""
    root = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), _DATA)
    return jax.random.fold_in(root, purpose)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Draws on the CPU, so that noise and splits do not depend on the accelerator."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        device = None
    with jax.default_device(device):
        yield


def random_rank(labels: np.ndarray, key: jax.Array) -> np.ndarray:
    """Returns int64 [N], each example's place (from 0) in a random order of its class."""
    bits = np.asarray(jax.random.bits(key, labels.shape, "uint32"))
    order = np.lexsort((bits, labels))
    by_class = labels[order]
    rank = np.empty(labels.shape, np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(by_class, by_class)
    return rank


def quotas(counts: np.ndarray, total: int, leave: int = 0) -> np.ndarray:
    """Shares `total` among classes in proportion to their sizes, by largest remainder.

    Args:
      counts: int [K], class sizes.
      total: how many to take of all.
      leave: how many of each class to leave at least; the total may then not be reached.

    Returns:
      int64 [K], at most `counts - leave` each.
    """
    exact = counts * (total / max(counts.sum(), 1))
    quota = np.floor(exact).astype(np.int64)
    missing = int(total - quota.sum())
    first = np.argsort(quota - exact, kind="stable")[:missing]
    quota[first] += 1
    return np.clip(quota, 0, np.maximum(counts - leave, 0))


def stratified(
    labels: np.ndarray,
    total: int,
    num_classes: int,
    key: jax.Array,
    leave: int = 0,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Returns bool [N], a random choice of `total` examples, the same fraction of every class.

    Args:
      labels: int [N].
      total: how many to choose; with groups as near to it as they allow.
      num_classes: K.
      key: random key.
      leave: how many of each class to leave at least.
      groups: int [N]; examples of a group are chosen all or none. A group counts for the class
        that is most frequent in it.
    """
    if groups is None:
        counts = np.bincount(labels, minlength=num_classes)
        return random_rank(labels, key) < quotas(counts, total, leave)[labels]
    group, own, sizes, before = _in_random_order(labels, groups, key)
    counts = np.bincount(own, sizes, num_classes).astype(np.int64)
    quota = quotas(counts, total, leave)[own]
    chosen = (before + sizes / 2 <= quota) & (before + sizes <= counts[own] - leave)
    return chosen[group]


def fold_of(
    labels: np.ndarray, folds: int, key: jax.Array, groups: np.ndarray | None = None
) -> np.ndarray:
    """Returns int64 [N], the fold of each example; every class is spread evenly over the folds.

    Args:
      labels: int [N].
      folds: how many.
      key: random key.
      groups: int [N]; examples of a group are in one fold.
    """
    if groups is None:
        rank, sizes = random_rank(labels, key), np.bincount(labels)
        start = np.cumsum(sizes) - sizes  # classes go on where the one before ended: equal folds
        return (rank + start[labels]) % folds
    group, own, sizes, before = _in_random_order(labels, groups, key)
    counts = np.bincount(own, sizes)
    return np.floor((before + sizes / 2) / counts[own] * folds).astype(np.int64)[group]


def _in_random_order(
    labels: np.ndarray, groups: np.ndarray, key: jax.Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Orders groups at random within their classes.

    Returns:
      Each example's group [N] from 0; and for each group its most frequent class, its size, and
      how many examples of the groups of its class come before it.
    """
    _, group = np.unique(groups, return_inverse=True)
    pairs, number = np.unique(np.stack([group, labels]), axis=1, return_counts=True)
    last = np.lexsort((pairs[1], number, pairs[0]))  # a group's most frequent label comes last
    own = np.zeros(group.max() + 1, np.int64)
    own[pairs[0][last]] = pairs[1][last]
    sizes = np.bincount(group)
    order = np.lexsort((random_rank(own, key), own))
    ends = np.cumsum(sizes[order])
    first = np.searchsorted(own[order], own[order])  # of the group's class
    before = np.empty(len(own), np.int64)
    before[order] = ends - sizes[order] - (ends - sizes[order])[first]
    return group, own, sizes, before


def balanced(
    labels: np.ndarray, per_class: int, class_names: Sequence[str], key: jax.Array
) -> np.ndarray:
    """Returns bool [N], a random choice of `per_class` examples of every class.

    Raises:
      UserError: a class has too few examples to give that many and keep one.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    smallest = int(counts.argmin())
    check(
        counts[smallest] > per_class,
        f"Metadata of {per_class} a class: class {class_names[smallest]!r} has only "
        f"{counts[smallest]} examples; choose fewer than that.",
    )
    return random_rank(labels, key) < per_class
