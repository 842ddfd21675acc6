"""Inception-ResNet-v2. Szegedy et al. 2017, arXiv 1602.07261, figures 3, 7, 16-20.

The sizes follow the authors' own program, which differs from the paper's figures in places; most
work on mini-WebVision uses it. A branch is a chain of convolutions, written as a tuple of
(channels, kernel) or (channels, kernel, stride, padding).
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.networks.layers import (
    ConvNorm,
    Dtype,
    Head,
    Layer,
    check_images,
    layers,
    torch_default,
)
from jaxrobust.networks.network import Network, from_linen

ONE, THREE = (1, 1), (3, 3)

MIXED_5B = (
    ((96, ONE),),
    ((48, ONE), (64, (5, 5))),
    ((64, ONE), (96, THREE), (96, THREE)),
)
BLOCK_35 = (((32, ONE),), ((32, ONE), (32, THREE)), ((32, ONE), (48, THREE), (64, THREE)))
REDUCE_A = (((384, THREE, 2, 0),), ((256, ONE), (256, THREE), (384, THREE, 2, 0)))
BLOCK_17 = (((192, ONE),), ((128, ONE), (160, (1, 7)), (192, (7, 1))))
REDUCE_B = (
    ((256, ONE), (384, THREE, 2, 0)),
    ((256, ONE), (288, THREE, 2, 0)),
    ((256, ONE), (288, THREE), (320, THREE, 2, 0)),
)
BLOCK_8 = (((192, ONE),), ((192, ONE), (224, (1, 3)), (256, (3, 1))))


def inception_resnet_v2(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    blocks: Sequence[int] = (10, 20, 10),
) -> Network:
    """Returns Inception-ResNet-v2 for images of 299 (at least 75); 55.84 M parameters at 1000.

    Batch norm's epsilon is 1e-3. PyTorch's default initialization; no dropout. Stages: "stem",
    "stage1" (35 x 35), "stage2" (17 x 17), "stage3" (8 x 8), "head". Images [B, H, W, C].
    Source: Szegedy et al. 2017, arXiv 1602.07261.
    """
    unit = layers(dtype, axis_name, torch_default, epsilon=1e-3)
    return from_linen(
        {
            "stem": _Stem(*unit),
            "stage1": _Stage1(*unit, blocks[0]),
            "stage2": _Stage2(*unit, blocks[1]),
            "stage3": _Stage3(*unit, blocks[2]),
            "head": Head(num_classes, dtype),
        }
    )


class _Branches(nn.Module):
    """Chains of convolutions side by side, concatenated."""

    conv: Layer
    norm: Layer
    branches: tuple

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        outputs = []
        for i, branch in enumerate(self.branches):
            y = x
            for j, unit in enumerate(branch):
                y = ConvNorm(self.conv, self.norm, *unit, name=f"branch{i}_unit{j}")(y, train)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


class _Residual(nn.Module):
    """x + scale * (1 x 1 convolution, with bias, of the branches), then ReLU."""

    conv: Layer
    norm: Layer
    branches: tuple
    scale: float
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = _Branches(self.conv, self.norm, self.branches, name="branches")(x, train)
        y = self.conv(x.shape[-1], ONE, use_bias=True, name="up")(y)
        x = x + self.scale * y
        return nn.relu(x) if self.relu else x


class _Stem(nn.Module):
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        check_images(x, "inception_resnet_v2", 75)
        before = ((32, THREE, 2, 0), (32, THREE, 1, 0), (64, THREE))
        x = _Branches(self.conv, self.norm, (before,), name="before")(x, train)
        x = nn.max_pool(x, THREE, (2, 2))
        after = ((80, ONE), (192, THREE, 1, 0))
        x = _Branches(self.conv, self.norm, (after,), name="after")(x, train)
        return nn.max_pool(x, THREE, (2, 2))


class _Stage1(nn.Module):
    conv: Layer
    norm: Layer
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        unit = (self.conv, self.norm)
        pooled = nn.avg_pool(x, THREE, padding="SAME", count_include_pad=False)
        x = jnp.concatenate(
            [
                _Branches(*unit, MIXED_5B, name="mixed")(x, train),
                ConvNorm(*unit, 64, ONE, name="pooled")(pooled, train),
            ],
            axis=-1,
        )
        for i in range(self.blocks):
            x = _Residual(*unit, BLOCK_35, 0.17, name=f"block{i + 1}")(x, train)
        return x


class _Stage2(nn.Module):
    conv: Layer
    norm: Layer
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        unit = (self.conv, self.norm)
        reduced = _Branches(*unit, REDUCE_A, name="reduce")(x, train)
        x = jnp.concatenate([reduced, nn.max_pool(x, THREE, (2, 2))], axis=-1)
        for i in range(self.blocks):
            x = _Residual(*unit, BLOCK_17, 0.1, name=f"block{i + 1}")(x, train)
        return x


class _Stage3(nn.Module):
    conv: Layer
    norm: Layer
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        unit = (self.conv, self.norm)
        reduced = _Branches(*unit, REDUCE_B, name="reduce")(x, train)
        x = jnp.concatenate([reduced, nn.max_pool(x, THREE, (2, 2))], axis=-1)
        for i in range(self.blocks):
            last = i == self.blocks - 1
            scale = 1.0 if last else 0.2
            x = _Residual(*unit, BLOCK_8, scale, relu=not last, name=f"block{i + 1}")(x, train)
        return ConvNorm(*unit, 1536, ONE, name="unit")(x, train)
