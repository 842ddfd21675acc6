"""Class sizes that fall from the first class to the last, and drawing data with such sizes.

`factor` is the size of the smallest class divided by that of the largest (its inverse is the
"imbalance ratio" of some papers).
"""

from __future__ import annotations

import jax
import numpy as np

from jaxrobust.data.splits import random_rank
from jaxrobust.errors import check, choose

KINDS = ("none", "exponential", "step")


def class_counts(kind: str, factor: float, num_classes: int, largest: int) -> np.ndarray:
    """Returns the number of examples of every class, int64 [K].

    `exponential`: n_c = floor(largest * factor^(c / (K-1))), c = 0 ... K-1.
    `step`: the first half of the classes (K // 2) has `largest`, the others
    floor(largest * factor).

    Args:
      kind: exponential, step or none (all classes have `largest`).
      factor: smallest / largest class, in (0, 1].
      num_classes: K.
      largest: size of the largest class.

    Raises:
      UserError: unknown kind, factor outside (0, 1], fewer than two classes.

    Example:
      >>> print(class_counts("exponential", 0.25, 3, 100))
      [100  50  25]

    References:
      Cui et al. 2019 (https://arxiv.org/abs/1901.05555): long-tailed CIFAR.
      Buda et al. 2018 (https://arxiv.org/abs/1710.05381): step imbalance.
    """
    choose("imbalance", kind, KINDS)
    check(0 < factor <= 1, f"Imbalance factor {factor:g} is outside (0, 1].")
    check(num_classes >= 2, f"Imbalance needs two classes or more, not {num_classes}.")
    # Python's floats, one class at a time: a last digit decides what truncation gives.
    power = {
        "none": lambda c: 1.0,
        "exponential": lambda c: factor ** (c / (num_classes - 1.0)),
        "step": lambda c: 1.0 if c < num_classes // 2 else factor,
    }[kind]
    return np.array([int(largest * power(c)) for c in range(num_classes)], np.int64)


def subsample(labels: np.ndarray, counts: np.ndarray, key: jax.Array) -> np.ndarray:
    """Draws `counts[c]` examples of every class c, or all where there are no more.

    With the same key, smaller counts give a part of what larger ones give.

    Args:
      labels: int [N].
      counts: int [K].
      key: JAX random key.

    Returns:
      int64 [M], the rows drawn, ascending.
    """
    counts = np.asarray(counts)
    return np.flatnonzero(random_rank(labels, key) < counts[labels])
