"""Views of a batch: augmentation on the device, as pure functions of (key, x) inside jit.

`make_view(kind, ...)` returns `view(key, x)`, from uint8 images [B, H, W, C] (or floating-point
ones in 0..1, or tables [B, D]) to the network's float32 input. All randomness comes from the
key; what happens to an example depends on the key and its place in the batch, not on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.augment import policies
from jaxrobust.augment.color_jitter import color_jitter
from jaxrobust.augment.resized_crop import random_resized_crop, resize_center_crop, unit_range
from jaxrobust.errors import check, choose

View = Callable[[jax.Array, jax.Array], jax.Array]
VIEWS = ("none", "crop_flip", "strong", "rand_augment", "imagenet", "imagenet_eval")

# The constants of CurveNet's program for CIFAR-10, in 0..1; training takes the data's own instead.
CIFAR_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
CIFAR_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


def make_view(
    kind: str,
    *,
    mean: Any,
    std: Any,
    image_size: int | None = None,
    pad: int = 4,
    pad_mode: str = "constant",
    cutout: int = 16,
    cutout_kind: str = "black",
    flip: bool = True,
    num_ops: int = 2,
    magnitude: float = 9.0,
    fill: int = 128,
    interpolation: str = "nearest",
) -> View:
    """Returns `view(key, x) -> float32`, a pure function for a whole batch.

    none            normalize
    crop_flip       random crop, flip, normalize
    strong          random crop, flip, AutoAugment (CIFAR-10 policy), Cutout, normalize
    rand_augment    random crop, flip, RandAugment, Cutout, normalize
    imagenet        random resized crop, flip, color jitter (0.4, 0.4, 0.4, 0.2), normalize
    imagenet_eval   resize, center crop, normalize

    Args:
      kind: one of the above.
      mean, std: scalar or one value per channel, in 0..1; for a table one per column.
      image_size: side of the result: default 224 for imagenet and imagenet_eval. For the other
        kinds images keep their size, or, if it is given, are first cut as in imagenet_eval.
      pad, pad_mode: padding before the random crop, "constant" (black) or "reflect"; 0 for none.
      cutout: side of the square that Cutout covers; 0 for none.
      cutout_kind: black or gray, see `random_cutout`.
      flip: whether images are mirrored at random; not for digits and letters.
      num_ops, magnitude: RandAugment's N and M (of 30).
      fill, interpolation: what AutoAugment's and RandAugment's warps move in, and how.

    Raises:
      UserError: here for an unknown kind or setting, when called for data of the wrong shape.
    """
    choose("view", kind, VIEWS)
    std = np.asarray(std, np.float64)
    check(bool(np.all(std > 0)), "A view's standard deviations must be greater than 0.")
    check(pad >= 0 and cutout >= 0, "A view's pad and cutout must be 0 or more.")
    choose("padding", pad_mode, ("constant", "reflect"))
    choose("interpolation", interpolation, ("nearest", "bilinear"))
    imagenet = kind.startswith("imagenet")
    size = 224 if imagenet and image_size is None else image_size
    warp = {"fill": fill, "interpolation": interpolation}

    def center(key: jax.Array, x: jax.Array) -> jax.Array:
        return resize_center_crop(x, size)

    def crop(key: jax.Array, x: jax.Array) -> jax.Array:
        return random_crop(key, x, pad=pad, mode=pad_mode) if pad else x

    def mirror(key: jax.Array, x: jax.Array) -> jax.Array:
        return random_flip(key, x) if flip else x

    def policy(key: jax.Array, x: jax.Array) -> jax.Array:
        return policies.auto_augment(key, as_uint8(x), **warp)

    def rand(key: jax.Array, x: jax.Array) -> jax.Array:
        x = as_uint8(x)
        return policies.rand_augment(key, x, num_ops=num_ops, magnitude=magnitude, **warp)

    def cut(key: jax.Array, x: jax.Array) -> jax.Array:
        return random_cutout(key, x, size=cutout, kind=cutout_kind) if cutout else x

    def resized_crop(key: jax.Array, x: jax.Array) -> jax.Array:
        return random_resized_crop(key, x, size)

    steps = {
        "none": (),
        "crop_flip": (crop, mirror),
        "strong": (crop, mirror, policy, cut),
        "rand_augment": (crop, mirror, rand, cut),
        "imagenet": (resized_crop, mirror, color_jitter),
        "imagenet_eval": (center,),
    }[kind]
    if size is not None and not imagenet:
        steps = (center, *steps)

    def view(key: jax.Array, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check(
            x.ndim == 4 or (x.ndim == 2 and not steps),
            f"The view {kind!r} is for images [B, H, W, C], not for {list(x.shape)}."
            + (" Tables have the view 'none' only." if x.ndim == 2 else ""),
        )
        for i, step in enumerate(steps):
            x = step(jax.random.fold_in(key, i), x)
        return normalize(x, mean, std)

    return view


def normalize(x: jax.Array, mean: Any, std: Any) -> jax.Array:
    """Returns (x - mean) / std as float32; uint8 is first divided by 255.

    Args:
      x: [B, ..., C], uint8 or floating point.
      mean, std: static, a scalar or [C].
    """
    mean, std = (np.asarray(v, np.float64).reshape(-1) for v in (mean, std))
    check(
        x.dtype == jnp.uint8 or jnp.issubdtype(x.dtype, jnp.floating),
        f"A view takes uint8 or floating-point data, not {x.dtype}.",
    )
    check(
        mean.size in (1, x.shape[-1]) and std.size in (1, x.shape[-1]),
        f"mean and std have {mean.size} and {std.size} values for data of shape {list(x.shape)}.",
    )
    unit = 255.0 if x.dtype == jnp.uint8 else 1.0
    shape = (1,) * (x.ndim - 1) + (-1,)
    scale = (1.0 / (unit * std)).astype(np.float32).reshape(shape)
    if unit == 1.0:
        return (x.astype(jnp.float32) - mean.astype(np.float32).reshape(shape)) * scale
    return x.astype(jnp.float32) * scale - (mean / std).astype(np.float32).reshape(shape)


def as_uint8(x: jax.Array) -> jax.Array:
    """Returns images as uint8; floating-point ones in 0..1 are rounded to 0..255."""
    if x.dtype == jnp.uint8:
        return x
    return jnp.round(jnp.clip(unit_range(x), 0.0, 1.0) * 255).astype(jnp.uint8)


def random_crop(key: jax.Array, x: jax.Array, *, pad: int = 4, mode: str = "constant") -> jax.Array:
    """Pads each side by `pad` and cuts out a random window of the old size.

    Args:
      x: [B, H, W, C].
      mode: "constant" (zeros, i.e. black) or "reflect" (without repeating the border).

    Raises:
      UserError: reflect with an image no larger than the padding.
    """
    b, *window = x.shape
    check(
        mode != "reflect" or pad < min(x.shape[1:3]),
        f"Reflecting {pad} pixels needs larger images than {list(x.shape[1:3])}.",
    )
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
    start = (jax.random.uniform(key, (b, 2), jnp.float32) * (2 * pad + 1)).astype(jnp.int32)

    def cut(image: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*start, np.int32(0)), window)

    return jax.vmap(cut)(padded, start)


def random_flip(key: jax.Array, x: jax.Array) -> jax.Array:
    """Mirrors each image [B, H, W, C] left to right with probability 1/2."""
    mirrored = jax.random.uniform(key, (x.shape[0], 1, 1, 1), jnp.float32) < 0.5
    return jnp.where(mirrored, x[:, :, ::-1], x)


def random_cutout(
    key: jax.Array, x: jax.Array, *, size: int = 16, kind: str = "black"
) -> jax.Array:
    """Covers a square of each image with one value (DeVries & Taylor 2017, arXiv 1708.04552).

    Its center (y, x) is uniform over the image.

    Args:
      key: PRNG key.
      x: [B, H, W, C], pixels from 0 to 255.
      size: side of the square in pixels.
      kind: `black` is 0 in rows [y - size/2, y + size/2), clipped at every border, columns
        likewise. `gray` is 128 in rows [a, a + size), a = max(0, y - size/2): the square keeps its
        size at the upper and left border and is clipped at the others (mmcv's `cutout` with the
        padding of Jiang et al. 2023).

    Returns:
      [B, H, W, C], of x's type.

    Raises:
      UserError: the square is larger than the image, and would often leave nothing of it.
    """
    b, h, w, _ = x.shape
    check(
        size <= min(h, w),
        f"Cutout of {size} is larger than the images of {h} x {w}: set it to {min(h, w) // 2}.",
    )
    uniform = jax.random.uniform(key, (2, b, 1), jnp.float32)

    def covered(uniform: jax.Array, side: jax.Array) -> jax.Array:
        center = (uniform * side).astype(jnp.int32)
        pixel = jnp.arange(side)[None, :]
        if kind == "gray":
            first = jnp.maximum(center - size // 2, 0)
            return (pixel >= first) & (pixel < first + size)
        return (pixel >= center - size // 2) & (pixel < center + size // 2)

    box = covered(uniform[0], h)[:, :, None, None] & covered(uniform[1], w)[:, None, :, None]
    return jnp.where(box, jnp.asarray(128 if kind == "gray" else 0, x.dtype), x)


def mixup_pairs(key: jax.Array, batch_size: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Draws which example each one is mixed with, and its own share.

    One share = max(l, 1 - l), l ~ Beta(alpha, alpha), for the batch (Zhang et al. 2018, arXiv
    1710.09412; the maximum keeps each example nearer to itself, as in MixMatch).

    Returns:
      int32 [B] partners, a permutation; float32 [B] shares, all the same.
    """
    order_key, share_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha)
    shares = jnp.full((batch_size,), jnp.maximum(share, 1 - share), jnp.float32)
    return jax.random.permutation(order_key, batch_size), shares


def mix(values: jax.Array, partner: jax.Array, share: jax.Array) -> jax.Array:
    """Returns share * v + (1 - share) * v[partner], for images after the view or soft labels.

    Args:
      values: floating point [B, ...].
      partner, share: [B], see `mixup_pairs`.
    """
    check(
        jnp.issubdtype(values.dtype, jnp.floating),
        f"Only floating-point values can be mixed, not {values.dtype} {list(values.shape)}.",
    )
    share = share.astype(values.dtype).reshape((-1,) + (1,) * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]
