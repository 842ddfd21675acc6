"""AutoAugment's CIFAR-10 policy and RandAugment, for a whole batch inside jit.

AutoAugment: Cubuk et al. 2019, arXiv 1805.09501, table 7. RandAugment: Cubuk et al. 2020,
arXiv 1909.13719. Magnitudes are those of the PyTorch port that most programs use (translations
by up to 150/331 of the side, gray 128 moves in, every signed operation with a random sign);
warps take the nearest pixel as the authors' program does, where the port takes bicubic shears.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.augment.pillow_ops import Operation, apply
from jaxrobust.errors import check

Policy = Sequence[tuple[tuple[str, float, int], tuple[str, float, int]]]

# 25 sub-policies of two (operation, probability, level of 0..9), applied in this order.
CIFAR10_POLICY: Policy = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)

# Operation's magnitude as a function of (strength 0..1, sign -1 or 1).
MAGNITUDES: dict[str, Callable[[float, int], float]] = {
    "identity": lambda strength, sign: 0.0,
    "auto_contrast": lambda strength, sign: 0.0,
    "equalize": lambda strength, sign: 0.0,
    "invert": lambda strength, sign: 0.0,
    "rotate": lambda strength, sign: sign * 30.0 * strength,
    "solarize": lambda strength, sign: 256.0 * (1 - strength),
    "posterize": lambda strength, sign: float(8 - round(4 * strength)),
    "color": lambda strength, sign: 1 + sign * 0.9 * strength,
    "contrast": lambda strength, sign: 1 + sign * 0.9 * strength,
    "brightness": lambda strength, sign: 1 + sign * 0.9 * strength,
    "sharpness": lambda strength, sign: 1 + sign * 0.9 * strength,
    "shear_x": lambda strength, sign: sign * 0.3 * strength,
    "shear_y": lambda strength, sign: sign * 0.3 * strength,
    "translate_x": lambda strength, sign: sign * 150 / 331 * strength,
    "translate_y": lambda strength, sign: sign * 150 / 331 * strength,
}
RAND_AUGMENT_OPERATIONS = tuple(name for name in MAGNITUDES if name != "invert")


def both_signs(name: str, strength: float) -> tuple[Operation, Operation]:
    """Returns the operation with a negative and with a positive sign."""
    magnitude = MAGNITUDES[name]
    return Operation(name, magnitude(strength, -1)), Operation(name, magnitude(strength, 1))


def auto_augment_operations(policy: Policy = CIFAR10_POLICY) -> tuple[Operation, ...]:
    """Returns all operations of a policy.

    Row 4p + 2s + i is sub-policy p's s-th operation with a negative (i = 0) or positive sign;
    the last row leaves the image alone.
    """
    steps = [step for sub_policy in policy for step in sub_policy]
    signed = [o for name, _, level in steps for o in both_signs(name, level / 9)]
    return (*signed, Operation("identity"))


def sample_auto_augment(
    key: jax.Array, batch_size: int, policy: Policy = CIFAR10_POLICY
) -> jax.Array:
    """Draws int [B, 2], for each example two rows of `auto_augment_operations`."""
    probability = np.array([[p for _, p, _ in sub_policy] for sub_policy in policy], np.float32)
    uniform = jax.random.uniform(key, (batch_size, 5), jnp.float32)
    chosen = (uniform[:, 0] * len(policy)).astype(jnp.int32)
    fires = uniform[:, 1:3] < jnp.asarray(probability)[chosen]
    positive = uniform[:, 3:] < 0.5
    row = 4 * chosen[:, None] + 2 * jnp.arange(2)[None, :] + positive
    return jnp.where(fires, row, 4 * len(policy))


def auto_augment(
    key: jax.Array,
    x: jax.Array,
    *,
    policy: Policy = CIFAR10_POLICY,
    fill: int = 128,
    interpolation: str = "nearest",
) -> jax.Array:
    """Applies a random sub-policy to each image: two operations, each with its probability.

    Args:
      key: fixes every choice; those of example b do not depend on the other examples.
      x: uint8 [B, H, W, C], C = 1 or 3.
      policy: static, pairs of (operation, probability, level 0..9).
      fill, interpolation: see `augment_ops.apply`.

    Returns:
      uint8 [B, H, W, C].
    """
    index = sample_auto_augment(key, x.shape[0], policy)
    operations = auto_augment_operations(policy)
    return apply(x, operations, index, fill=fill, interpolation=interpolation)


def rand_augment(
    key: jax.Array,
    x: jax.Array,
    *,
    num_ops: int = 2,
    magnitude: float = 9.0,
    fill: int = 128,
    interpolation: str = "nearest",
) -> jax.Array:
    """Applies `num_ops` of 14 operations, drawn with replacement, to each image.

    Args:
      key: fixes every choice; those of example b do not depend on the other examples.
      x: uint8 [B, H, W, C], C = 1 or 3.
      num_ops: N of the paper.
      magnitude: M of the paper, 0..30; a larger one is stronger for every operation (in the
        authors' program posterize and solarize get weaker, as an oversight).
      fill, interpolation: see `augment_ops.apply`.

    Returns:
      uint8 [B, H, W, C].

    Raises:
      UserError: magnitude is outside 0..30.
    """
    check(0 <= magnitude <= 30, f"RandAugment's magnitude is {magnitude}, not in 0..30.")
    operations = [o for n in RAND_AUGMENT_OPERATIONS for o in both_signs(n, magnitude / 30)]
    uniform = jax.random.uniform(key, (x.shape[0], num_ops), jnp.float32)
    index = (uniform * len(operations)).astype(jnp.int32)
    return apply(x, operations, index, fill=fill, interpolation=interpolation)
