"""VGG-19 with batch norm. Simonyan and Zisserman 2015, arXiv 1409.1556."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.networks.cpu import max_pool_2x2
from jaxrobust.networks.layers import (
    ConvNorm,
    Dtype,
    Head,
    Layer,
    check_images,
    kaiming_fan_out,
    layers,
)
from jaxrobust.networks.network import Network, from_linen


def vgg19_bn(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 64,
) -> Network:
    """Returns VGG-19 with batch norm for small images (ANIMAL-10N's 64 x 64); 20.04 M parameters.

    16 convolutions in five stages, each followed by 2 x 2 max pooling; then the mean over what is
    left and one linear layer, as usual for small images, instead of the 4096-unit layers, and
    without the convolutions' biases, which batch norm takes out. Convolutions are Kaiming-normal
    (fan out). Images [B, H, W, C] of at least 32 x 32. Stages: "stage1", ..., "stage5", "head".
    Source: Simonyan and Zisserman 2015, arXiv 1409.1556.
    """
    conv, norm = layers(dtype, axis_name, kaiming_fan_out)
    plan = ((width, 2), (2 * width, 2), (4 * width, 4), (8 * width, 4), (8 * width, 4))
    stages = {
        f"stage{i + 1}": _Stage(conv, norm, channels, depth, 32 // 2**i)
        for i, (channels, depth) in enumerate(plan)
    }
    return from_linen({**stages, "head": Head(num_classes, dtype)})


class _Stage(nn.Module):
    conv: Layer
    norm: Layer
    channels: int
    depth: int
    smallest: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        check_images(x, "vgg19_bn", self.smallest)
        for i in range(self.depth):
            x = ConvNorm(self.conv, self.norm, self.channels, name=f"unit{i + 1}")(x, train)
        return max_pool_2x2(x)
