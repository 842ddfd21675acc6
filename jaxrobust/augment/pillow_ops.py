"""The image operations of AutoAugment and RandAugment, for a whole batch at once.

`apply` gives every example its own operation out of a static list, without evaluating every
operation for every example: the operations fall into three families, and each family is one
computation for the whole batch, left out when no example needs it. What depends on the operation
alone is tabulated before compilation and looked up per example:

  geometric (shear, translate, rotate)          an affine matrix, then one gather
  gray-value (equalize, solarize, contrast...)  a table of 256 values per channel, then one gather
  color, sharpness                              a blend with a gray or a smoothed image

An example that an operation does not concern gets the identity matrix, table or blend. All
arithmetic follows Pillow's, whose `ImageOps`, `ImageEnhance` and `Image.transform` the published
policies were searched with: equal bit for bit, but for one gray level in

  auto_contrast                 Pillow's table truncates what may lie a rounding below an integer
  contrast, color, sharpness    fewer than 1 pixel in 200: compilers fuse multiply and add
  bilinear warps                Pillow's own default, and ours, is nearest

Shapes: x uint8 [B, H, W, C] with C 1 (gray) or 3 (RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.augment.affine import GEOMETRIC, matrix, warp
from jaxrobust.errors import check, choose

GREY_VALUE = (
    "auto_contrast",
    "equalize",
    "contrast",
    "brightness",
    "invert",
    "solarize",
    "posterize",
)
BLENDED = ("color", "sharpness")
OPERATIONS = ("identity", *GEOMETRIC, *GREY_VALUE, *BLENDED)


class Operation(NamedTuple):
    """An operation and its strength.

    Attributes:
      name: one of `OPERATIONS`.
      magnitude: shear_x, shear_y: the slope; translate_x, translate_y: a share of the image's
        side; rotate: degrees, counter-clockwise; brightness, contrast, color, sharpness: the
        enhancement factor, 1 for no change; solarize: values from it on are inverted;
        posterize: the bits that are kept. The other operations have none.
    """

    name: str
    magnitude: float = 0.0


def apply(
    x: jax.Array,
    operations: Sequence[Operation],
    index: jax.Array,
    *,
    fill: int = 128,
    interpolation: str = "nearest",
) -> jax.Array:
    """Applies `operations[index[b, s]]` to example b, for s = 0 ... S - 1 in turn.

    Args:
      x: uint8 [B, H, W, C], C = 1 or 3. Color leaves gray images as they are.
      operations: static.
      index: int [B, S].
      fill: the gray value of what a geometric operation moves into the image.
      interpolation: "nearest" or "bilinear", for geometric operations.

    Returns:
      uint8 [B, H, W, C].

    Raises:
      UserError: x is no batch of uint8 images, or an operation is unknown.
    """
    x = jnp.asarray(x)
    check(
        x.ndim == 4 and x.shape[-1] in (1, 3) and x.dtype == jnp.uint8,
        f"Image operations need uint8 images [B, H, W, 1 or 3], not {x.dtype} {list(x.shape)}.",
    )
    names = {choose("image operation", o.name, OPERATIONS) for o in operations}
    h, w = x.shape[1:3]
    matrices = np.stack([matrix(*o, h, w, interpolation=interpolation) for o in operations])
    families = {
        GEOMETRIC: lambda x, i: warp(
            x, jnp.asarray(matrices)[i], fill=fill, interpolation=interpolation
        ),
        GREY_VALUE: lambda x, i: look_up(x, _tables(x, operations, names, i)),
        BLENDED: lambda x, i: _blended(x, operations, names, i),
    }

    def step(x: jax.Array, index: Any) -> tuple[jax.Array, None]:
        for family, apply_family in families.items():
            if names & set(family):
                needed = jnp.any(_chosen(family, operations, index))
                x = jax.lax.cond(needed, apply_family, lambda x, _: x, x, index)
        return x, None

    return jax.lax.scan(step, x, index.T)[0]


def _chosen(names: Sequence[str], operations: Sequence[Operation], index: jax.Array) -> jax.Array:
    """Returns which examples get one of the operations `names`, bool [B, 1, 1, 1]."""
    return jnp.asarray(np.array([o.name in names for o in operations]))[index][:, None, None, None]


def _factor(operations: Sequence[Operation], index: jax.Array) -> jax.Array:
    """Returns each example's enhancement factor, 1 where it has none, float32 [B, 1, 1, 1]."""
    enhancing = ("brightness", "contrast", *BLENDED)
    factor = [o.magnitude if o.name in enhancing else 1.0 for o in operations]
    return jnp.asarray(np.array(factor, np.float32))[index][:, None, None, None]


# Operations on gray values.


def look_up(x: jax.Array, tables: jax.Array) -> jax.Array:
    """Returns tables[b, c, x[b, i, j, c]]; tables uint8 [B, C, 256]."""
    b, h, w, c = x.shape
    flat = jnp.take_along_axis(
        tables.transpose(0, 2, 1),
        x.reshape(b, h * w, c).astype(jnp.int32),
        axis=1,
        mode="promise_in_bounds",
    )
    return flat.reshape(x.shape)


def _fixed_table(operation: Operation) -> np.ndarray:
    """Returns the table, uint8 [256], of an operation that does not look at the image."""
    v = np.arange(256)
    if operation.name == "invert":
        v = 255 - v
    elif operation.name == "solarize":
        v = np.where(v < operation.magnitude, v, 255 - v)
    elif operation.name == "posterize":
        v = v & (0x100 - (1 << (8 - int(operation.magnitude))))
    elif operation.name == "brightness":
        v = np.clip(v.astype(np.float32) * np.float32(operation.magnitude), 0, 255)
    return v.astype(np.uint8)


def _tables(x: jax.Array, operations: Any, names: Any, index: Any) -> jax.Array:
    """Returns each example's table, uint8 [B, C, 256]."""
    fixed = jnp.asarray(np.stack([_fixed_table(o) for o in operations]))[index]
    tables = jnp.broadcast_to(fixed[:, None, :], (x.shape[0], x.shape[3], 256))
    from_image = {
        "contrast": lambda: contrast_table(x, _factor(operations, index)[:, 0, 0, 0]),
        "auto_contrast": lambda: auto_contrast_table(x),
        "equalize": lambda: equalize_table(x),
    }
    for name in sorted(names & set(from_image)):
        chosen = _chosen([name], operations, index)[..., 0]
        tables = jnp.where(chosen, from_image[name](), tables)
    return tables


def contrast_table(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns the blend of each value with the image's mean gray, uint8 [B, 1, 256]."""
    pixels = x.shape[1] * x.shape[2]
    mean = (2 * jnp.sum(gray(x), axis=(1, 2)) + pixels) // (2 * pixels)
    values = jnp.arange(256, dtype=jnp.int32)[None, None, :]
    return _blend(mean[:, None, None], values, factor[:, None, None])


def auto_contrast_table(x: jax.Array) -> jax.Array:
    """Returns the line from (darkest, 0) to (lightest, 255) per channel, uint8 [B, C, 256]."""
    low, high = (f(x.astype(jnp.int32), axis=(1, 2))[..., None] for f in (jnp.min, jnp.max))
    values = jnp.arange(256, dtype=jnp.int32)[None, None, :]
    stretched = jnp.clip(_quotient((values - low) * 255, high - low), 0, 255)
    return jnp.where(high > low, stretched, values).astype(jnp.uint8)


def equalize_table(x: jax.Array) -> jax.Array:
    """Returns the table that flattens each channel's histogram, uint8 [B, C, 256]."""
    count = _histogram(x)
    values = jnp.arange(256, dtype=jnp.int32)[None, None, :]
    pixels = x.shape[1] * x.shape[2]
    highest = jnp.max(x.astype(jnp.int32), axis=(1, 2))[..., None]
    last = jnp.take_along_axis(count, highest, axis=2)
    step = _quotient(pixels - last, 255)
    below = jnp.cumsum(count, axis=2) - count
    flattened = jnp.minimum(_quotient((step >> 1) + below, step), 255)
    return jnp.where(step > 0, flattened, values).astype(jnp.uint8)


def _quotient(a: jax.Array, b: jax.Array | int) -> jax.Array:
    """Returns a // b for b > 0 and a < 2^20; vectors divide floating point only."""
    a, b = jnp.asarray(a).astype(jnp.float32), jnp.asarray(b).astype(jnp.float32)
    return jnp.floor((a + 0.5) / jnp.maximum(b, 1.0)).astype(jnp.int32)


def _histogram(x: jax.Array) -> jax.Array:
    """Returns how often each value occurs, int32 [B, C, 256]."""
    b, h, w, c = x.shape
    channel = jnp.arange(c, dtype=jnp.int32)[None, None, :]
    bins = x.reshape(b, h * w, c).astype(jnp.int32) + 256 * channel

    def count(bins: jax.Array) -> jax.Array:
        return jnp.zeros(c * 256, jnp.int32).at[bins].add(1, mode="promise_in_bounds")

    return jax.vmap(count)(bins).reshape(b, c, 256)


# Blends.


def _blended(x: jax.Array, operations: Any, names: Any, index: Any) -> jax.Array:
    """Applies color and sharpness."""
    other = x
    for name, degenerate in (("color", gray_image), ("sharpness", smooth)):
        if name in names:
            other = jnp.where(_chosen([name], operations, index), degenerate(x), other)
    return _blend(other, x, _factor(operations, index))


def _blend(a: jax.Array, b: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns a + factor (b - a) clipped and truncated, `Image.blend`."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.clip(a + factor * (b - a), 0, 255).astype(jnp.uint8)


def gray(x: jax.Array) -> jax.Array:
    """Returns int32 [B, H, W], Pillow's mode "L" (ITU-R 601-2 luma in 16-bit fixed point)."""
    v = x.astype(jnp.int32)
    if x.shape[-1] == 1:
        return v[..., 0]
    return (v[..., 0] * 19595 + v[..., 1] * 38470 + v[..., 2] * 7471 + 32768) >> 16


def gray_image(x: jax.Array) -> jax.Array:
    """Returns the image without color, uint8 [B, H, W, C]."""
    return jnp.broadcast_to(gray(x)[..., None], x.shape).astype(jnp.uint8)


def smooth(x: jax.Array) -> jax.Array:
    """Returns `ImageFilter.SMOOTH`: (3x3 sum + 4 center) / 13; the border stays as it is."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    box = sum(padded[:, i : i + h, j : j + w].astype(jnp.float32) for i, j in shifts)
    smoothed = jnp.floor((box + 4 * x.astype(jnp.float32) + 6.5) / 13).astype(jnp.uint8)
    inner = np.zeros((1, h, w, 1), bool)
    inner[:, 1:-1, 1:-1] = True
    return jnp.where(inner, smoothed, x)
