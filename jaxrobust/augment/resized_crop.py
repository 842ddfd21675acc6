"""Random resized crops, and the center crop that goes with them in evaluation.

A resize is two products with a matrix of triangle weights [size, H], one per example, so that
every example may have its own crop box in one compiled program. The weights widen with the scale
(anti-aliasing) and stop at the box, as in Pillow's and torchvision's crop-then-resize. Images
come as uint8 0..255 or floating point 0..1 and leave as float32 0..1.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrobust.errors import check


def unit_range(x: jax.Array) -> jax.Array:
    """Returns images as float32 0..1: uint8 is divided by 255, floating point kept."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) / 255.0 if x.dtype == jnp.uint8 else x.astype(jnp.float32)


def crop_resize(
    x: jax.Array,
    top: jax.Array,
    left: jax.Array,
    height: jax.Array,
    width: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """Cuts a box out of each image and resizes it, bilinear with anti-aliasing.

    Args:
      x: [B, H, W, C], uint8 or floating point 0..1.
      top, left, height, width: [B], each example's box in pixels.
      size: height and width of the result.

    Returns:
      float32 [B, *size, C], 0..1.
    """
    rows = _weights(top, height, size[0], x.shape[1])
    columns = _weights(left, width, size[1], x.shape[2])
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("bsh,bhwc->bswc", rows, unit_range(x), precision=exact)
    return jnp.einsum("btw,bswc->bstc", columns, x, precision=exact)


def _weights(start: jax.Array, length: jax.Array, size: int, full: int) -> jax.Array:
    """Returns float32 [B, size, full], the share of input pixel i in output pixel o."""
    start, length = (v.astype(jnp.float32)[:, None, None] for v in (start, length))
    scale = length / size
    output = jnp.arange(size, dtype=jnp.float32)[None, :, None]
    pixel = jnp.arange(full, dtype=jnp.float32)[None, None, :] + 0.5
    distance = jnp.abs(pixel - start - (output + 0.5) * scale) / jnp.maximum(scale, 1.0)
    inside = (pixel > start) & (pixel < start + length)
    weights = jnp.where(inside, jnp.maximum(1.0 - distance, 0.0), 0.0)
    return weights / jnp.sum(weights, axis=2, keepdims=True)


def sample_boxes(
    key: jax.Array,
    batch_size: int,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws top, left, height, width, each int32 [B], as torchvision's RandomResizedCrop does.

    Of 10 draws of (area, aspect ratio) the first that fits into the image is taken; else the
    largest central box whose aspect ratio (width / height) is allowed.
    """
    uniform = jax.random.uniform(key, (batch_size, 22), jnp.float32)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[:, :10])
    aspect = jnp.exp(low + (high - low) * uniform[:, 10:20])
    w = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    h = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = jnp.argmax(fits, axis=1)[:, None]
    found = jnp.any(fits, axis=1)
    central = min(max(width / height, ratio[0]), ratio[1])
    whole = (min(height, round(width / central)), min(width, round(height * central)))
    h, w = (
        jnp.where(found, jnp.take_along_axis(v, first, axis=1)[:, 0], otherwise)
        for v, otherwise in ((h, whole[0]), (w, whole[1]))
    )
    top, left = (
        jnp.where(found, (u * (room + 1)).astype(jnp.int32), room // 2)
        for u, room in ((uniform[:, 20], height - h), (uniform[:, 21], width - w))
    )
    return top, left, h, w


def random_resized_crop(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cuts a random box (share of the area, aspect ratio) out of each image and resizes it.

    Args:
      x: [B, H, W, C], uint8 or floating point 0..1.

    Returns:
      float32 [B, size, size, C], 0..1.
    """
    top, left, height, width = sample_boxes(key, *x.shape[:3], scale, ratio)
    return crop_resize(x, top, left, height, width, (size, size))


def resize_center_crop(x: jax.Array, size: int, *, resize: int | None = None) -> jax.Array:
    """Resizes the shorter side to `resize` and cuts out the central square, for evaluation.

    Args:
      x: [B, H, W, C], uint8 or floating point 0..1.
      size: side of the result.
      resize: default 8/7 size (256 for 224).

    Returns:
      float32 [B, size, size, C], 0..1.

    Raises:
      UserError: resize is smaller than size.
    """
    resize = round(size * 8 / 7) if resize is None else resize
    check(resize >= size, f"The center crop of {size} is larger than the resized {resize}.")
    b, h, w, _ = x.shape
    full = (resize, int(resize * w / h)) if h <= w else (int(resize * h / w), resize)
    zero = jnp.zeros((b,), jnp.int32)
    x = crop_resize(x, zero, zero, zero + h, zero + w, full)
    top, left = (round((side - size) / 2) for side in full)
    return x[:, top : top + size, left : left + size]
