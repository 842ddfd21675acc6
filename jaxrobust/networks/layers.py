"""Layers of the networks: initializers, batch norm, convolution with batch norm, linear head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.errors import check
from jaxrobust.networks.cpu import Conv, spread

Dtype = Any
Layer = Callable[..., nn.Module]
"""A linen class with some fields already given: `conv(16, (3, 3))`, `norm()`."""

kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1/sqrt(fan in): what PyTorch does to convolutions and linear layers."""


def parameter_dtype(dtype: Dtype) -> Dtype:
    """float32 for bfloat16 and float32 compute, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def layers(
    dtype: Dtype, axis_name: str | None, kernel_init: Callable, **norm: Any
) -> tuple[Layer, Layer]:
    """Returns `(conv, norm)`: a convolution without bias and batch norm, dtype and all given.

    Args:
      dtype: of the computation.
      axis_name: see `BatchNorm`.
      kernel_init: initializer of the convolutions' kernels.
      **norm: other attributes of `BatchNorm`, such as `epsilon`.
    """
    conv = partial(Conv, dtype=dtype, kernel_init=kernel_init)
    return conv, partial(BatchNorm, dtype=dtype, axis_name=axis_name, **norm)


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, over all axes but the last.

    As PyTorch's: the batch is normalized with the biased variance, the running variance takes
    the unbiased one (Flax's own takes the biased), since the papers' programs evaluate with it.
    Statistics are float32 (or float64) whatever `dtype` is. The mean is taken over each example
    first and then over examples: on CPU that is faster, and it is more exact.

    Attributes:
      momentum: fraction of the running statistics that is kept.
      axis_name: of the mapped axis (`pmap`, `shard_map`, `vmap`) over which statistics are
        shared. Under `jit` with a sharded batch they are global without it.
      scale_init: initializer of the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    axis_name: str | None = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features, exact = x.shape[-1:], parameter_dtype(self.dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, exact)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, exact)
        scale = self.param("scale", self.scale_init, features, exact)
        bias = self.param("bias", nn.initializers.zeros, features, exact)
        x = x.astype(exact)
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var, count = batch_moments(x, self.axis_name)
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
            running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        mean, factor, bias = (spread(values, x, train) for values in (mean, factor, bias))
        y = (x - mean) * factor + bias
        return y.astype(self.dtype)


def batch_moments(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array, int]:
    """Returns mean [C], biased variance [C] of x [B, ..., C], and the number of values in each."""
    inner = tuple(range(1, x.ndim - 1))
    both = jnp.stack([x.mean(inner).mean(0), jnp.square(x).mean(inner).mean(0)])
    count = x.size // x.shape[-1]
    if axis_name is not None:
        both = jax.lax.pmean(both, axis_name)
        count = count * jax.lax.psum(1, axis_name)
    mean, mean_of_square = both[0], both[1]
    return mean, jnp.maximum(mean_of_square - jnp.square(mean), 0), count


class ConvNorm(nn.Module):
    """Convolution and batch norm, then ReLU unless told otherwise; PyTorch's symmetric padding.

    Attributes:
      padding: on each side; default (kernel - 1) / 2, which keeps the size at stride 1.
    """

    conv: Layer
    norm: Layer
    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: int | None = None
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        padding = tuple(k // 2 if self.padding is None else self.padding for k in self.kernel)
        x = self.conv(self.channels, self.kernel, self.stride, padding, name="conv")(x)
        x = self.norm(name="norm")(x, train)
        return nn.relu(x) if self.relu else x


class Head(nn.Module):
    """Mean over height and width, then a linear layer with bias 0; at least float32.

    Attributes:
      flatten: take all of an example's values instead of the mean.
    """

    num_classes: int
    dtype: Dtype
    kernel_init: Callable = torch_default
    flatten: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        exact = parameter_dtype(self.dtype)
        x = x.astype(exact)
        x = x.reshape(x.shape[0], -1) if self.flatten else x.mean((1, 2))
        return nn.Dense(
            self.num_classes,
            dtype=exact,
            param_dtype=exact,
            kernel_init=self.kernel_init,
            name="linear",
        )(x)


def check_images(x: jax.Array, name: str, smallest: int = 1) -> None:
    """Raises `UserError` unless x is [B, H, W, C] with H and W at least `smallest`."""
    check(
        x.ndim == 4 and min(x.shape[1:3]) >= smallest,
        f"Network {name!r} needs images [B, H, W, C] of at least {smallest} x {smallest} pixels, "
        f"not shape {x.shape}. For tables use 'mlp'.",
    )
