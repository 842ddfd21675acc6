"""EfficientNet-Lite0. Tan and Le 2019, arXiv 1905.11946, without squeeze-and-excitation.

The Lite variants of the authors' TPU repository: ReLU6 instead of swish, no squeeze-and-excitation,
stem and top of fixed width. Padding is TensorFlow's for images whose sides are multiples of 32.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.networks.cpu import DepthwiseConv, PointwiseConv
from jaxrobust.networks.layers import (
    Dtype,
    Head,
    Layer,
    check_images,
    kaiming_fan_out,
    layers,
)
from jaxrobust.networks.network import Network, from_linen

# Blocks, kernel, stride of the first block, expansion, channels out; stage by stage.
PLAN = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
) -> Network:
    """Returns EfficientNet-Lite0 for images of 224 (at least 32); 4.65 M parameters at 1000.

    Batch norm's epsilon is 1e-3 and its running statistics keep 0.99 per step, as published; no
    dropout and no stochastic depth. Convolutions are Kaiming-normal (fan out), the linear layer
    has PyTorch's default. Stages: "stem", "stage1", ..., "stage7", "top" (1280 channels), "head".
    Images [B, H, W, C]. Source: Tan and Le 2019, arXiv 1905.11946, table 1; Lite0 of the authors'
    repository (tensorflow/tpu, efficientnet/lite).

    Args:
      num_classes: K.
      dtype: of the computation; parameters, statistics and logits are at least float32.
      axis_name: of a mapped axis over which batch norm shares its statistics.
    """
    conv, norm = layers(dtype, axis_name, kaiming_fan_out, epsilon=1e-3, momentum=0.99)
    stages = {f"stage{i + 1}": _Stage(norm, dtype, *row) for i, row in enumerate(PLAN)}
    return from_linen(
        {
            "stem": _Stem(conv, norm),
            **stages,
            "top": _Pointwise(norm, dtype, 1280),
            "head": Head(num_classes, dtype),
        }
    )


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding before and after a side that is a multiple of `stride`."""
    return (kernel - stride) // 2, (kernel - stride + 1) // 2


class _Stem(nn.Module):
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        check_images(x, "efficientnet_lite0", 32)
        x = jnp.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
        x = self.conv(32, (3, 3), 2, name="conv")(x)
        return relu6(self.norm(name="norm")(x, train))


class _Pointwise(nn.Module):
    """1 x 1 convolution and batch norm, then ReLU6 unless `linear`."""

    norm: Layer
    dtype: Dtype
    channels: int
    linear: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = PointwiseConv(self.channels, self.dtype, kaiming_fan_out, name="conv")(x)
        x = self.norm(name="norm")(x, train)
        return x if self.linear else relu6(x)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, project; added to the input if it fits."""

    norm: Layer
    dtype: Dtype
    kernel: int
    stride: int
    expansion: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x
        if self.expansion > 1:
            wide = x.shape[-1] * self.expansion
            y = _Pointwise(self.norm, self.dtype, wide, name="expand")(y, train)
        padding = same_padding(self.kernel, self.stride)
        y = DepthwiseConv(
            self.kernel, self.stride, padding, self.dtype, kaiming_fan_out, name="depthwise"
        )(y)
        y = relu6(self.norm(name="norm")(y, train))
        y = _Pointwise(self.norm, self.dtype, self.channels, linear=True, name="project")(y, train)
        return x + y if x.shape == y.shape else y


class _Stage(nn.Module):
    norm: Layer
    dtype: Dtype
    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = _Block(
                self.norm,
                self.dtype,
                self.kernel,
                stride,
                self.expansion,
                self.channels,
                name=f"block{i + 1}",
            )(x, train)
        return x
