"""Networks for tables, digits and quick experiments."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.errors import check
from jaxrobust.networks.cpu import max_pool_2x2
from jaxrobust.networks.layers import (
    ConvNorm,
    Dtype,
    Head,
    Layer,
    check_images,
    kaiming_fan_in,
    layers,
    parameter_dtype,
)
from jaxrobust.networks.network import Network, from_linen


class _Hidden(nn.Module):
    width: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(
            self.width,
            dtype=self.dtype,
            param_dtype=parameter_dtype(self.dtype),
            kernel_init=kaiming_fan_in,
            name="linear",
        )(x)
        return nn.relu(x)


def mlp(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    hidden: Sequence[int] = (256, 256),
) -> Network:
    """Returns a ReLU perceptron for tables [B, D] and, flattened, for images.

    Stages: "hidden1", ..., "head". It has no batch norm, so its state is {}.
    Source: none; made for this library.

    Raises:
      UserError: a hidden size that is not positive.
    """
    del axis_name
    check(all(width > 0 for width in hidden), f"mlp: hidden sizes must be positive: {hidden}.")
    stages = {f"hidden{i + 1}": _Hidden(width, dtype) for i, width in enumerate(hidden)}
    return from_linen({**stages, "head": Head(num_classes, dtype, flatten=True)})


class _Block(nn.Module):
    conv: Layer
    norm: Layer
    channels: int
    pool: bool
    network: str = "small_cnn"
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        check_images(x, self.network)
        if self.pool and min(x.shape[1:3]) >= 2:
            x = max_pool_2x2(x)
        unit = ConvNorm(self.conv, self.norm, self.channels, stride=self.stride, name="unit")
        return unit(x, train)


def small_cnn(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 32,
) -> Network:
    """Returns three blocks of 3 x 3 convolution, batch norm and ReLU, for small images.

    Channels width, 2 width, 4 width; 2 x 2 max pooling before the second and the third block,
    global mean before the linear head. Any size of image from 1 x 1 on; made for 8 x 8 digits
    and 32 x 32 pictures. Images [B, H, W, C]. Stages: "block1", "block2", "block3", "head".
    Source: none; made for this library.
    """
    check(width > 0, f"small_cnn: width must be positive, not {width}.")
    conv, norm = layers(dtype, axis_name, kaiming_fan_in)
    blocks = {f"block{i + 1}": _Block(conv, norm, width * 2**i, pool=i > 0) for i in range(3)}
    return from_linen({**blocks, "head": Head(num_classes, dtype)})


def small_vgg(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 24,
    hidden: int = 256,
) -> Network:
    """Returns three blocks as in `small_cnn`, the first of stride 2, then a hidden layer of ReLU.

    A network that memorizes wrong labels in a minute on a CPU: most of its parameters are in the
    hidden layer, where they cost little, and it sees the whole map of the last block. (`small_cnn`
    ends with a mean, and has no room for them.) 2 x 2 max pooling before the second and the third
    block. Images [B, H, W, C]. Stages: "block1", "block2", "block3", "hidden", "head".
    Source: none; made for this library.

    Args:
      num_classes: K.
      dtype: of the computation; parameters, statistics and logits are at least float32.
      axis_name: of a mapped axis over which batch norm shares its statistics.
      width: channels of the first block; twice and four times as many in the others.
      hidden: units of the hidden layer.

    Raises:
      UserError: a width that is not positive.
    """
    check(min(width, hidden) > 0, f"small_vgg: width must be positive, not {width}, {hidden}.")
    conv, norm = layers(dtype, axis_name, kaiming_fan_in)
    blocks = {
        f"block{i + 1}": _Block(conv, norm, width * 2**i, i > 0, "small_vgg", 1 if i else 2)
        for i in range(3)
    }
    head = Head(num_classes, dtype, flatten=True)
    return from_linen({**blocks, "hidden": _Hidden(hidden, dtype), "head": head})
