"""Shears, translations and rotations: one gather by an affine map per example.

Bit for bit what Pillow's `Image.transform` and `Image.rotate` do with the nearest pixel; bilinear
is within one gray level, except where a source lies exactly on the image's border, which Pillow
counts in or out as its rounding has it.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.errors import choose

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def matrix(
    name: str, magnitude: float, height: int, width: int, *, interpolation: str = "nearest"
) -> np.ndarray:
    """Returns the map from output to input, int32 [6] in 16.16 fixed point, rounded as Pillow's.

    Args:
      name, magnitude: see `augment_ops.Operation`; the identity for what is not geometric.
      height, width: of the image.
      interpolation: what `warp` will do.
    """
    m, a = magnitude, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    # A pure translation is not done in fixed point there: the nearest pixel is known here.
    whole = (lambda v: math.floor(v + 0.5)) if interpolation == "nearest" else float
    if name == "shear_x":
        a[1] = m
    elif name == "shear_y":
        a[3] = m
    elif name == "translate_x":
        a[2] = whole(m * width)
    elif name == "translate_y":
        a[5] = whole(m * height)
    elif name == "rotate":
        c, s = (round(f(-math.radians(m % 360)), 15) for f in (math.cos, math.sin))
        cx, cy = width / 2, height / 2
        a = [c, s, cx - c * cx - s * cy, -s, c, cy + s * cx - c * cy]
    a[2] += (a[0] + a[1]) / 2
    a[5] += (a[3] + a[4]) / 2
    return np.array([math.floor(v * 65536 + 0.5) for v in a], np.int32)


def warp(
    x: jax.Array, matrix: jax.Array, *, fill: int = 128, interpolation: str = "nearest"
) -> jax.Array:
    """Warps each image by its own affine map, `Image.transform(AFFINE)`.

    Args:
      x: uint8 [B, H, W, C].
      matrix: int32 [B, 6], from output to input, in 16.16 fixed point, half a pixel included:
        the input of output pixel (row y, column x) is column m0 x + m1 y + m2, row
        m3 x + m4 y + m5.
      fill: the value of what lies outside the image.
      interpolation: "nearest" (as Pillow, bit for bit) or "bilinear" (within one gray level).
    """
    choose("interpolation", interpolation, ("nearest", "bilinear"))
    h, w = x.shape[1:3]
    rows = jnp.arange(h, dtype=jnp.int32)[None, :, None]
    columns = jnp.arange(w, dtype=jnp.int32)[None, None, :]
    m = matrix[:, :, None, None]
    column = m[:, 0] * columns + m[:, 1] * rows + m[:, 2]
    row = m[:, 3] * columns + m[:, 4] * rows + m[:, 5]
    inside = (row >= 0) & (row < h << 16) & (column >= 0) & (column < w << 16)
    if interpolation == "nearest":
        out = _pixels(x, row >> 16, column >> 16)
    else:
        out = _bilinear(x, row - 32768, column - 32768)
    return jnp.where(inside[..., None], out, jnp.uint8(fill))


def _pixels(x: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Returns x[b, row[b, i, j], column[b, i, j]], rows and columns clipped to the image."""
    b, h, w, c = x.shape
    index = jnp.clip(row, 0, h - 1) * w + jnp.clip(column, 0, w - 1)
    flat = jnp.take_along_axis(
        x.reshape(b, h * w, c), index.reshape(b, -1, 1), axis=1, mode="promise_in_bounds"
    )
    return flat.reshape(*index.shape, c)


def _bilinear(x: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    r, c = row >> 16, column >> 16
    dr, dc = (((v & 65535) / 65536.0).astype(jnp.float32)[..., None] for v in (row, column))

    def across(r: Any) -> jax.Array:
        left, right = (_pixels(x, r, v).astype(jnp.float32) for v in (c, c + 1))
        return left + dc * (right - left)

    top, bottom = across(r), across(r + 1)
    return (top + dr * (bottom - top)).astype(jnp.uint8)
