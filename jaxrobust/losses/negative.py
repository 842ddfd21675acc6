"""Negative learning: the example is *not* of these classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.errors import check
from jaxrobust.losses.validation import expect, masked, prepare, present_counts, same_shape

_FEW_CLASSES = 32  # up to here comparing with every class is faster than scattering


def negative_learning(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    key: jax.Array | None = None,
    class_counts: ArrayLike | None = None,
    num_negatives: int = 110,
    complementary_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """−w_y Σₖ log max(1 − pₖ, 1e-5) over complementary labels k ≠ y; w_y = maxᵢ nᵢ / n_y.

    The complementary labels are drawn uniformly, with replacement, from the K − 1 other classes
    (for a label distribution: other than its largest entry), afresh for every key. The clip is
    part of the released program: a class excluded with p > 1 − 1e-5 gives no gradient.

    Source: Kim et al. 2019 (NLNL), arXiv 1908.07387.

    Shapes and errors: those of `cross_entropy`; logits `[..., K]`, returns `[...]`.

    Args:
      key: PRNG key to draw with, or None if `complementary_labels` is given.
      class_counts: None (all weights 1) or `[K]` training examples of each given class.
      num_negatives: M, how many to draw (static); 110 as released and for CIFAR-100,
        1 for CIFAR-10.
      complementary_labels: None or integers `[..., M]` in 0…K-1, used instead of drawing.

    Raises:
      UserError: not exactly one of `key` and `complementary_labels` is given.

    Example:
      >>> print(negative_learning(jnp.zeros(2), 0, key=jax.random.key(0), num_negatives=1))
      0.6931472
    """
    z, t = prepare(logits, labels, where)
    check(
        (key is None) != (complementary_labels is None),
        "negative_learning needs either key= or complementary_labels=.",
    )
    if complementary_labels is None:
        complementary_labels = draw_complementary(key, t, z.shape[-1], num_negatives)
    negatives = jnp.asarray(complementary_labels)
    same_shape(
        "complementary_labels", negatives, (*z.shape[:-1], *negatives.shape[-1:]), "logits", z.shape
    )
    log_not = jnp.log(jnp.maximum(-jnp.expm1(jax.nn.log_softmax(z)), 1e-5))
    # Counted, so that the gradient is a product and not a sum over draws.
    value = -jnp.sum(_times_drawn(negatives, z.shape[-1]).astype(z.dtype) * log_not, axis=-1)
    weights = jnp.ones_like(z)
    if class_counts is not None:
        counts = present_counts(class_counts, z)
        weights = jnp.broadcast_to(jnp.max(counts) / counts, z.shape)
    return masked(expect(weights, t) * value, where)


def _times_drawn(negatives: jax.Array, classes: int) -> jax.Array:
    """Returns int32 `[..., K]`: how often each class is among the negatives `[..., M]`."""
    if classes <= _FEW_CLASSES:
        return jnp.sum(jax.nn.one_hot(negatives, classes, dtype=jnp.int32), axis=-2)
    flat = negatives.reshape(-1, negatives.shape[-1])
    rows = jnp.arange(flat.shape[0])[:, None]
    counts = jnp.zeros((flat.shape[0], classes), jnp.int32).at[rows, flat].add(1)
    return counts.reshape(*negatives.shape[:-1], classes)


def draw_complementary(
    key: jax.Array, labels: jax.Array, classes: int, num_negatives: int
) -> jax.Array:
    """Draws int32 `[..., M]` classes, each uniform over those that are not the label's arg-max.

    Args:
      key: PRNG key.
      labels: as `prepare` returns them, `[...]` or `[..., K]`.
      classes: K.
      num_negatives: M.

    Raises:
      UserError: `num_negatives` is not a whole number of at least 1.
    """
    check(
        isinstance(num_negatives, int) and num_negatives >= 1,
        "num_negatives must be a whole number of at least 1, known at compile time;"
        f" got {num_negatives}.",
    )
    given = labels if jnp.issubdtype(labels.dtype, jnp.integer) else jnp.argmax(labels, axis=-1)
    # A 32-bit word is a fraction: its share of one in K - 1 is off by K / 2^32 at most.
    words = jax.random.bits(key, (*given.shape, num_negatives), jnp.uint32)
    others = classes - 1
    high, low = words >> 16, words & 0xFFFF  # words * others / 2^32 without 64 bits
    offset = (high * others + ((low * others) >> 16)) >> 16 if others < 2**16 else words % others
    return (given[..., None] + 1 + offset.astype(jnp.int32)) % classes
