"""Color jitter: random brightness, contrast, saturation and hue in random order.

As torchvision's ColorJitter on floating-point images: nothing is rounded between the steps.
Gray images have neither saturation nor hue: those two leave them as they are.
Images: float32 [B, H, W, C] in 0..1, C = 1 or 3.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.augment.resized_crop import unit_range
from jaxrobust.errors import check

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def color_jitter(
    key: jax.Array,
    x: jax.Array,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.2,
) -> jax.Array:
    """Changes each image's colors by random factors, in random order.

    Args:
      x: [B, H, W, C], uint8 or floating point 0..1.
      brightness, contrast, saturation: the factor is uniform in [max(0, 1 - v), 1 + v].
      hue: the shift is uniform in [-hue, hue] of the color circle, at most 0.5.

    Returns:
      float32 [B, H, W, C], 0..1.

    Raises:
      UserError: x has neither 1 nor 3 channels, or a strength is out of range.
    """
    x = unit_range(x)
    check(
        x.ndim == 4 and x.shape[-1] in (1, 3),
        f"Color jitter needs images [B, H, W, 1 or 3], not {list(x.shape)}.",
    )
    strength = np.array([brightness, contrast, saturation, hue], np.float32)
    check(
        (strength >= 0).all() and hue <= 0.5,
        "Color jitter's strengths must be 0 or more, and hue at most 0.5.",
    )
    neutral = np.array([1, 1, 1, 0], np.float32)
    low = np.maximum(neutral - strength, np.array([0, 0, 0, -hue], np.float32))[None]
    high = (neutral + strength)[None]
    uniform = jax.random.uniform(key, (x.shape[0], 8), jnp.float32)
    factor = low + (high - low) * uniform[:, :4]
    order = jnp.argsort(uniform[:, 4:], axis=1)
    return jitter(x, order, factor)


def jitter(x: jax.Array, order: jax.Array, factor: jax.Array) -> jax.Array:
    """Applies the four steps to each image in its own order.

    The hue, which costs most, is computed once: the steps before it, the hue, the steps after.

    Args:
      x: float32 [B, H, W, C].
      order: int [B, 4], the steps (0 brightness, 1 contrast, 2 saturation, 3 hue) in order.
      factor: float32 [B, 4], by step; of hue the shift.
    """
    position = jnp.argmax(order == HUE, axis=1)
    for slot in range(3):
        x = _step(x, order[:, slot], factor, slot < position)
    x = adjust_hue(x, factor[:, HUE])
    for slot in range(1, 4):
        x = _step(x, order[:, slot], factor, slot > position)
    return x


def _step(x: jax.Array, step: jax.Array, factor: jax.Array, where: jax.Array) -> jax.Array:
    """Applies brightness, contrast or saturation, whichever `step` [B] says, where `where`."""
    step, where = step[:, None, None, None], where[:, None, None, None]
    factor = jnp.take_along_axis(factor[:, None, None, :], step, axis=3)
    gray = luma(x)
    mean = jnp.mean(gray, axis=(1, 2, 3), keepdims=True)
    other = jnp.where(step == SATURATION, gray, jnp.where(step == CONTRAST, mean, 0.0))
    blended = jnp.clip(other + factor * (x - other), 0.0, 1.0)
    return jnp.where(where, blended, x)


def luma(x: jax.Array) -> jax.Array:
    """Returns 0.299 R + 0.587 G + 0.114 B, [B, H, W, 1]."""
    if x.shape[-1] == 1:
        return x
    return 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]


def adjust_hue(x: jax.Array, shift: jax.Array) -> jax.Array:
    """Turns the color circle of each image by `shift` [B] (1 is a full turn), in HSV space.

    With V = max, D = V - min and h the hue in 0..6: channel c of the result is
    V - D clip(min(k, 4 - k), 0, 1), k = (n_c + h + 6 shift) mod 6, n = 5, 3, 1 for R, G, B.
    """
    if x.shape[-1] == 1:
        return x
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    value, chroma = jnp.max(x, axis=3), jnp.max(x, axis=3) - jnp.min(x, axis=3)
    sector = jnp.where(
        value == r, g - b, jnp.where(value == g, b - r + 2 * chroma, r - g + 4 * chroma)
    )
    hue = sector / jnp.where(chroma > 0, chroma, 1.0) + 6 * shift[:, None, None]

    def channel(n: jax.Array) -> jax.Array:
        k = jnp.mod(n + hue, 6.0)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=3)
