"""Metadata for a look-ahead: held out, or chosen from the training data.

A hold-out's rows follow the training rows of the data. Symbols: N training examples, M metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.errors import check
from jaxrobust.methods import sampling


class Sampling(NamedTuple):
    """How metadata is chosen: drawn share of the smallest class, kept share of the drawn."""

    candidates: float = 0.5
    kept: float = 0.5
    by_loss: bool = True


def sizes(class_counts: np.ndarray, chosen: Sampling) -> tuple[tuple[int, int], int]:
    """Returns how many of a class are drawn and kept, and the size of the metadata.

    Raises:
      UserError: the smallest class is too small to take metadata from.
    """
    counts = np.asarray(class_counts)
    drawn, kept = sampling.metadata_sizes(counts, chosen.candidates, chosen.kept)
    check(
        kept >= 1,
        f"The smallest given class has {int(counts[counts > 0].min())} examples: too few to choose "
        "metadata from. Raise method.candidates or method.kept, or merge or drop the class.",
    )
    return (drawn, kept), kept * int((counts > 0).sum())


class Metadata(NamedTuple):
    """Rows of the metadata.

    Attributes:
      size: M.
      memory: what the state carries of it: "meta_rows" int32 [M] if it is chosen, and
        "train_rows" int32 [N - M] if the rest is trained on alone; else nothing.
      rows: `rows(memory) -> int32 [M]`.
      choose: `choose(memory, values [N], key) -> memory`, once an epoch, by the examples' losses;
        None if it is held out.
    """

    size: int
    memory: dict[str, jax.Array]
    rows: Callable[[dict[str, Any]], jax.Array]
    choose: Callable[..., dict[str, Any]] | None = None


def held_out(num_examples: int, size: int) -> Metadata:
    """Returns metadata that follow the N = `num_examples` training rows."""
    rows = jnp.arange(num_examples, num_examples + size, dtype=jnp.int32)
    return Metadata(size, {}, lambda memory: rows)


def low_loss(
    labels: jax.Array, class_counts: np.ndarray, chosen: Sampling, *, apart: bool = False
) -> Metadata:
    """Returns metadata chosen anew every epoch by hierarchical sampling.

    Args:
      labels: int32 [N], given.
      class_counts: int [K], their numbers.
      apart: whether the rest is trained on alone; else the metadata stay trained on.

    Raises:
      UserError: see `sizes`.
    """
    (drawn, kept), size = sizes(class_counts, chosen)
    num_classes = len(class_counts)

    def choose(memory: dict[str, Any], values: jax.Array, key: jax.Array) -> dict[str, Any]:
        rows, rest = sampling.hierarchical_sampling(
            key,
            values,
            labels,
            num_classes=num_classes,
            candidates=drawn,
            kept=kept,
            size=size,
            by_loss=chosen.by_loss,
        )
        return memory | {"meta_rows": rows} | ({"train_rows": rest} if apart else {})

    memory = {"meta_rows": jnp.zeros((size,), jnp.int32)}
    if apart:
        memory["train_rows"] = jnp.zeros((len(labels) - size,), jnp.int32)
    return Metadata(size, memory, lambda memory: memory["meta_rows"], choose)
