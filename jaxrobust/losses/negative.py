"""Negative learning: the example is *not* of these classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrobust.errors import check
from jaxrobust.losses.validation import masked, prepare, present_counts, same_shape

_COARSEST = 2**16  # products of draws that one random word may be asked for


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

    Args:
      logits: `[..., K]`, finite; half precision is computed in float32.
      labels: integers `[...]` in 0…K-1, or distributions `[..., K]`.
      key: PRNG key to draw with, or None if `complementary_labels` is given.
      class_counts: None (all weights 1) or `[K]` training examples of each given class.
      num_negatives: M, how many to draw (static); 110 as released and for CIFAR-100,
        1 for CIFAR-10.
      complementary_labels: None or integers `[..., M]` in 0…K-1, used instead of drawing.
      where: None or bool `[...]`: False rows give 0, whatever they hold.

    Returns:
      `[...]`, one loss per example, at least float32.

    Raises:
      UserError: shapes or dtypes do not fit, or a plain-number hyper-parameter is out of range.
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
    p, classes = jax.nn.softmax(z), z.shape[-1]
    places = _places(negatives, classes)
    if negatives.shape[-1] < classes:
        drawn = p.reshape(-1).at[places].get(mode="fill", fill_value=0.0)
        log_not = jnp.log(jnp.maximum(1 - drawn, 1e-5))
        value = -jnp.sum(log_not, axis=-1).reshape(z.shape[:-1])
    else:  # Counted, so that there is a logarithm per class and not one per draw.
        counts = jnp.zeros(z.size, z.dtype).at[places.reshape(-1)].add(1, mode="drop")
        log_not = jnp.log(jnp.maximum(1 - p, 1e-5))
        value = -jnp.sum(counts.reshape(z.shape) * log_not, axis=-1)
    return masked(_weights(class_counts, t, z) * value, where)


def _weights(class_counts: ArrayLike | None, labels: jax.Array, like: jax.Array) -> jax.Array:
    """Returns the weight `[...]` of each example; NaN for a label outside the classes."""
    weights = jnp.ones(like.shape[-1:], like.dtype)
    if class_counts is not None:
        counts = present_counts(class_counts, like)
        weights = jnp.max(counts) / counts
    if labels.ndim == like.ndim:
        return labels @ weights
    return jnp.take(weights, labels, mode="fill", fill_value=jnp.nan)


def _places(negatives: jax.Array, classes: int) -> jax.Array:
    """Returns int32 `[N, M]`, places of the negatives `[..., M]` in the flat probabilities.

    One index per draw: indices of row and class take twice as long. A class that does not exist
    has a place beyond the end.
    """
    flat = negatives.reshape(-1, negatives.shape[-1])
    rows = jnp.arange(len(flat), dtype=jnp.int32)[:, None]
    inside = (flat >= 0) & (flat < classes)
    return jnp.where(inside, rows * classes + flat, len(flat) * classes)


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
    others, per_word = classes - 1, 1
    while others > 1 and others ** (per_word + 1) <= _COARSEST:
        per_word += 1
    shape = (*given.shape, -(-num_negatives // per_word))
    words = jax.random.bits(key, shape, jnp.uint32)
    # A word is a fraction of 2^32; times `others`, its whole part is a draw, and what is left over
    # is a fraction again. A draw's probability is off by _COARSEST / 2^32 of itself at most.
    drawn = []
    for _ in range(per_word):
        high, low = words >> 16, words & 0xFFFF  # words * others / 2^32 without 64 bits
        whole = (high * others + ((low * others) >> 16)) >> 16
        drawn.append(whole if others < 2**16 else words % others)
        words = words * others
    offset = jnp.concatenate(drawn, axis=-1)[..., :num_negatives].astype(jnp.int32)
    chosen = given[..., None] + 1 + offset
    return jnp.where(chosen < classes, chosen, chosen - classes)
