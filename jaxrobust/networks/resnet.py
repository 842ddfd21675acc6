"""Residual networks for small and for large images.

He et al. 2016, arXiv 1512.03385; Zagoruyko and Komodakis 2016, arXiv 1605.07146. All have the
stages "stem", "stage1", ..., "head". `width` and `blocks` are there to make smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.errors import choose
from jaxrobust.networks.layers import (
    ConvNorm,
    Dtype,
    Head,
    Layer,
    check_images,
    kaiming_fan_in,
    kaiming_fan_out,
    layers,
    torch_default,
)
from jaxrobust.networks.network import Network, from_linen


def _normal_around_one(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


INITS = {
    "he": (kaiming_fan_in, kaiming_fan_in, nn.initializers.ones),
    "torch": (torch_default, torch_default, nn.initializers.ones),
    "normal_0.02": (nn.initializers.normal(0.02), kaiming_fan_in, _normal_around_one),
}
"""`init` of `resnet32`: initializers of convolutions, linear layer and scales of batch norm."""


def resnet32(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 16,
    blocks: int = 5,
    init: str = "he",
) -> Network:
    """Returns the CIFAR ResNet with parameter-free shortcuts; 0.46 M parameters at 10 classes.

    Three stages of `blocks` basic blocks with width, 2 width, 4 width channels.
    Source: He et al. 2016, arXiv 1512.03385, section 4.2. Images [B, H, W, C].

    Args:
      num_classes: K.
      dtype: of the computation; parameters, statistics and logits are at least float32.
      axis_name: of a mapped axis over which batch norm shares its statistics.
      width: channels of the first stage.
      blocks: per stage; 5 makes 32 layers.
      init: "he": convolutions and linear layer Kaiming-normal (fan in). "torch": both uniform
        within 1/sqrt(fan in), PyTorch's default, as in the dynamic loss's released program.
        "normal_0.02": convolutions N(0, 0.02), scales of batch norm N(1, 0.02), linear layer
        Kaiming-normal, as in CurveNet's. Biases are 0 in all three.

    Raises:
      UserError: unknown `init`.
    """
    choose("init of resnet32", init, INITS)
    kernel_init, head_init, scale_init = INITS[init]
    conv, norm = layers(dtype, axis_name, kernel_init, scale_init=scale_init)
    stages = {
        f"stage{i + 1}": Stage(BasicBlock, conv, norm, width * 2**i, blocks, min(i + 1, 2), "pad")
        for i in range(3)
    }
    stem = Stem("resnet32", conv, norm, width)
    return from_linen({"stem": stem, **stages, "head": Head(num_classes, dtype, head_init)})


def resnet18(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 64,
    blocks: int = 2,
    large_images: bool = False,
) -> Network:
    """Returns ResNet-18 for 32 x 32 images; 11.17 M parameters at 10 classes.

    3 x 3 stem without pooling, projection shortcuts, PyTorch's default initialization: all as in
    DAL's program. Source: He et al. 2016, arXiv 1512.03385. Images [B, H, W, C].

    Args:
      num_classes: K.
      dtype: of the computation; parameters, statistics and logits are at least float32.
      axis_name: of a mapped axis over which batch norm shares its statistics.
      width: channels of the first stage.
      blocks: per stage.
      large_images: 7 x 7 stem of stride 2 and 3 x 3 max pooling instead, as torchvision's.
    """
    conv, norm = layers(dtype, axis_name, torch_default)
    stages = {
        f"stage{i + 1}": Stage(BasicBlock, conv, norm, width * 2**i, blocks, min(i + 1, 2))
        for i in range(4)
    }
    large = {"kernel": 7, "stride": 2, "pool": True} if large_images else {}
    stem = Stem("resnet18", conv, norm, width, **large)
    return from_linen({"stem": stem, **stages, "head": Head(num_classes, dtype)})


def resnet34(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 64,
    blocks: Sequence[int] = (3, 4, 6, 3),
) -> Network:
    """Returns ResNet-34 for images of about 224; 21.80 M parameters at 1000 classes.

    Convolutions are Kaiming-normal (fan out), the linear layer as PyTorch's default: as
    torchvision's. Source: He et al. 2016, arXiv 1512.03385. Images [B, H, W, C].

    Args:
      num_classes: K.
      dtype: of the computation; parameters, statistics and logits are at least float32.
      axis_name: of a mapped axis over which batch norm shares its statistics.
      width: channels of the first stage.
      blocks: per stage.
    """
    conv, norm = layers(dtype, axis_name, kaiming_fan_out)
    stages = {
        f"stage{i + 1}": Stage(BasicBlock, conv, norm, width * 2**i, n, min(i + 1, 2))
        for i, n in enumerate(blocks)
    }
    stem = Stem("resnet34", conv, norm, width, kernel=7, stride=2, pool=True)
    return from_linen({"stem": stem, **stages, "head": Head(num_classes, dtype)})


def resnet50(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 64,
    blocks: Sequence[int] = (3, 4, 6, 3),
) -> Network:
    """Returns ResNet-50 v1.5 for images of about 224; 25.56 M parameters at 1000 classes.

    The stride is in the 3 x 3 convolution of a bottleneck. Convolutions are Kaiming-normal
    (fan out), the linear layer as PyTorch's default: as torchvision's. Source: He et al. 2016,
    arXiv 1512.03385. Images [B, H, W, C].
    """
    conv, norm = layers(dtype, axis_name, kaiming_fan_out)
    stages = {
        f"stage{i + 1}": Stage(Bottleneck, conv, norm, width * 2**i, n, min(i + 1, 2))
        for i, n in enumerate(blocks)
    }
    stem = Stem("resnet50", conv, norm, width, kernel=7, stride=2, pool=True)
    return from_linen({"stem": stem, **stages, "head": Head(num_classes, dtype)})


def wrn28_10(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 160,
    blocks: int = 4,
) -> Network:
    """Returns WRN-28-10, wide and pre-activated, without dropout; 36.5 M parameters.

    Convolutions are Kaiming-normal (fan out). The last batch norm belongs to the stage "head".
    Source: Zagoruyko and Komodakis 2016, arXiv 1605.07146. Images [B, H, W, C].
    """
    conv, norm = layers(dtype, axis_name, kaiming_fan_out)
    stages = {
        f"stage{i + 1}": Stage(WideBlock, conv, norm, width * 2**i, blocks, min(i + 1, 2))
        for i in range(3)
    }
    stem = PlainStem("wrn28_10", conv, 16)
    return from_linen({"stem": stem, **stages, "head": NormHead(norm, Head(num_classes, dtype))})


class Stem(nn.Module):
    """The first convolution, batch norm and ReLU; for large images 3 x 3 max pooling."""

    network: str
    conv: Layer
    norm: Layer
    channels: int
    kernel: int = 3
    stride: int = 1
    pool: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        check_images(x, self.network)
        kernel = (self.kernel, self.kernel)
        x = ConvNorm(self.conv, self.norm, self.channels, kernel, self.stride, name="unit")(
            x, train
        )
        return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)]) if self.pool else x


class PlainStem(nn.Module):
    """The first convolution of a pre-activated network."""

    network: str
    conv: Layer
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_images(x, self.network)
        return self.conv(self.channels, (3, 3), 1, (1, 1), name="conv")(x)


class NormHead(nn.Module):
    """The last batch norm and ReLU of a pre-activated network, then the head."""

    norm: Layer
    head: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return self.head(nn.relu(self.norm(name="norm")(x, train)))


class Stage(nn.Module):
    """`blocks` blocks; the first of them may halve height and width."""

    block: type[nn.Module]
    conv: Layer
    norm: Layer
    channels: int
    blocks: int
    stride: int
    shortcut: str = "project"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = self.block(
                self.conv, self.norm, self.channels, stride, self.shortcut, name=f"block{i + 1}"
            )(x, train)
        return x


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; `shortcut` is "pad" (option A of the paper) or "project" (B)."""

    conv: Layer
    norm: Layer
    channels: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer = (self.conv, self.norm, self.channels)
        y = ConvNorm(*layer, stride=self.stride, name="unit1")(x, train)
        y = ConvNorm(*layer, relu=False, name="unit2")(y, train)
        if x.shape != y.shape:
            x = (
                padded_shortcut(x, self.channels, self.stride)
                if self.shortcut == "pad"
                else ConvNorm(*layer, (1, 1), self.stride, relu=False, name="shortcut")(x, train)
            )
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions; four times as many channels out."""

    conv: Layer
    norm: Layer
    channels: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer, out = (self.conv, self.norm), 4 * self.channels
        y = ConvNorm(*layer, self.channels, (1, 1), name="unit1")(x, train)
        y = ConvNorm(*layer, self.channels, (3, 3), self.stride, name="unit2")(y, train)
        y = ConvNorm(*layer, out, (1, 1), relu=False, name="unit3")(y, train)
        if x.shape != y.shape:
            x = ConvNorm(*layer, out, (1, 1), self.stride, relu=False, name="shortcut")(x, train)
        return nn.relu(x + y)


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3 x 3 convolutions; a projection without norm."""

    conv: Layer
    norm: Layer
    channels: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.relu(self.norm(name="norm1")(x, train))
        if x.shape[-1] != self.channels:
            x = self.conv(self.channels, (1, 1), self.stride, name="shortcut")(y)
        y = self.conv(self.channels, (3, 3), self.stride, (1, 1), name="conv1")(y)
        y = nn.relu(self.norm(name="norm2")(y, train))
        return x + self.conv(self.channels, (3, 3), 1, (1, 1), name="conv2")(y)


def padded_shortcut(x: jax.Array, channels: int, stride: int) -> jax.Array:
    """Every `stride`-th pixel, zeros for the new channels, half of them before the old ones."""
    x = x[:, ::stride, ::stride]
    before = (channels - x.shape[-1]) // 2
    after = channels - x.shape[-1] - before
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))
