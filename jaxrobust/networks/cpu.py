"""Work-arounds for XLA on CPU, behind one switch.

XLA's CPU back end is slow at some of what networks are made of. The functions here compute the
same values and derivatives (up to rounding) in an order that suits it; on other back ends, and
within `switched_off()`, they are the plain operations. The switch is read while a program is
traced: a program that is compiled already stays as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

CHUNK_BYTES = 2**20
MAX_CHUNKS = 8
_enabled = True


def active() -> bool:
    """Returns whether the work-arounds apply: on CPU, outside `switched_off()`."""
    return _enabled and jax.default_backend() == "cpu"


@contextmanager
def switched_off() -> Iterator[None]:
    """Context in which programs are traced without the work-arounds (for measurements)."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


class Conv(nn.Module):
    """`conv2d` as a linen module: kernel [height, width, in, out], the same padding on both sides.

    Attributes:
      padding: (vertical, horizontal) zeros on each side.
      dtype: of the computation; parameters are at least float32.
    """

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        exact = jnp.promote_types(self.dtype, jnp.float32)
        shape = (*self.kernel, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, exact).astype(self.dtype)
        y = conv2d(x.astype(self.dtype), kernel, self.stride, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.channels,), exact)
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return y


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def conv2d(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Cross-correlation of x [B, H, W, C] with a kernel [h, w, C, D].

    On CPU, XLA turns both operands of the kernel's gradient over, C first, and recomputes what
    went before (batch norm, ReLU) in that order, in strides that miss the cache. The derivative
    is therefore written as that of the convolutions of parts of the batch which fit into it:
    a training step of ResNet-32 at batch 128 takes 3/4 of the time, a bilevel one 4/5, and
    compiling twice as long. A map smaller than the kernel (2 x 2 in VGG-19 on CIFAR) is convolved
    as one product of matrices, there 80 times as fast. Same values, and derivatives of every order
    and mode, up to rounding.
    """
    return _conv(x, kernel, stride, padding)


def _conv2d_jvp(
    stride: Any, padding: Any, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = conv2d(x, kernel, stride, padding)
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_conv(dx, kernel, stride, padding))
    if not isinstance(dkernel, SymbolicZero):
        parts = jnp.split(x, num_chunks(x, y))
        parts = [_conv(part, dkernel, stride, padding) for part in parts]
        terms.append(jnp.concatenate(parts) if len(parts) > 1 else parts[0])
    return y, sum(terms[1:], terms[0])


conv2d.defjvp(_conv2d_jvp, symbolic_zeros=True)


def num_chunks(x: jax.Array, y: jax.Array) -> int:
    """How many parts to take the batch in: 1 but on a single CPU device; a divisor of B."""
    if not active() or jax.device_count() > 1:
        return 1
    size = max(x.size * x.dtype.itemsize, y.size * y.dtype.itemsize)
    chunks = 1
    while chunks < MAX_CHUNKS and size > chunks * CHUNK_BYTES and x.shape[0] % (2 * chunks) == 0:
        chunks *= 2
    return chunks


def is_tiny(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> bool:
    """Whether what goes in or comes out is smaller than the kernel, on CPU.

    There, XLA computes such a convolution, or its gradient, one number after the other.
    """
    sizes = zip(x.shape[1:3], kernel.shape[:2], padding, strict=True)
    small = any(min(n, (n + 2 * p - k) // stride + 1) < k for n, k, p in sizes)
    return small and active()


def _conv(x: jax.Array, kernel: jax.Array, stride: Any, padding: Any) -> jax.Array:
    if is_tiny(x, kernel, stride, padding):
        return _conv_as_product(x, kernel, stride, padding)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _conv_as_product(x: jax.Array, kernel: jax.Array, stride: Any, padding: Any) -> jax.Array:
    """One product, of the patches [B, H, W, h w C] under the kernel with the kernel."""
    x = jnp.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    down, across = (
        max((n - k) // stride * stride + 1, 0)
        for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True)
    )
    patches = [
        x[:, i : i + down : stride, j : j + across : stride]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


class DepthwiseConv(nn.Module):
    """`depthwise_conv2d` as a linen module without bias: kernel [k, k, 1, C].

    Attributes:
      kernel: k.
      stride: of both axes.
      padding: zeros before and after, on both axes.
      dtype: of the computation; the kernel is at least float32.
      kernel_init: initializer; the fan is that of one channel.
    """

    kernel: int
    stride: int
    padding: tuple[int, int]
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        exact = jnp.promote_types(self.dtype, jnp.float32)
        kernel = self.param("kernel", _per_channel(self.kernel_init), shape, exact)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return depthwise_conv2d(x, kernel, self.stride, self.padding)


def _per_channel(kernel_init: Any) -> Callable[..., jax.Array]:
    """The initializer of one channel's kernel [k, k, 1, 1], drawn for C channels."""

    def init(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
        one = jax.vmap(lambda k: kernel_init(k, (*shape[:3], 1), dtype)[..., 0], out_axes=-1)
        return one(jax.random.split(key, shape[3]))

    return init


def depthwise_conv2d(
    x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]
) -> jax.Array:
    """Cross-correlation of each channel of x [B, H, W, C] with its kernel [k, k, 1, C].

    On CPU, XLA takes such a convolution one number after the other. There it is the sum of k * k
    products of a shifted map with a row of the kernel, in one loop.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, 1, C].
      stride: of both axes.
      padding: zeros before and after, on both axes.

    Returns:
      [B, H', W', C].
    """
    if not active():
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [padding] * 2,
            feature_group_count=x.shape[-1],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    size = kernel.shape[0]
    x = jnp.pad(x, [(0, 0), padding, padding, (0, 0)])
    down, across = ((n - size) // stride * stride + 1 for n in x.shape[1:3])
    terms = [
        x[:, i : i + down : stride, j : j + across : stride] * kernel[i, j].reshape(1, 1, 1, -1)
        for i in range(size)
        for j in range(size)
    ]
    return sum(terms[1:], terms[0])


class PointwiseConv(nn.Module):
    """1 x 1 convolution of stride 1, without bias, as one product of matrices: kernel [1, 1, C, D].

    Attributes:
      channels: D.
      dtype: of the computation; the kernel is at least float32.
      kernel_init: initializer.
    """

    channels: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, x.shape[-1], self.channels)
        exact = jnp.promote_types(self.dtype, jnp.float32)
        kernel = self.param("kernel", self.kernel_init, shape, exact)
        return x.astype(self.dtype) @ kernel[0, 0].astype(self.dtype)


def spread(values: jax.Array, x: jax.Array, train: bool) -> jax.Array:
    """Returns values [C] in a shape to compute with x [B, ..., C].

    In training on CPU, for an x that does not fit into the cache, [B, 1, ..., C]: the gradient
    then sums over each example first and then over examples, as `batch_moments` does, within the
    loops that make the terms; sums to [C] at once XLA takes in passes of their own. The barrier
    keeps it from joining the two. A bilevel step of ResNet-32 at batch 128 takes 1/12 less time.
    """
    ones = (1,) * (x.ndim - 2)
    small = x.size * x.dtype.itemsize <= CHUNK_BYTES
    if not train or small or not active():
        return values.reshape(1, *ones, -1)
    rows = jax.lax.optimization_barrier(jnp.broadcast_to(values, (x.shape[0], values.size)))
    return rows.reshape(x.shape[0], *ones, -1)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Largest of every 2 x 2 square of x [B, H, W, C]; an odd last row or column is left out.

    On CPU by comparing rows, then columns: the gradient of XLA's pooling is many times slower
    there, and that of a maximum over axes asks which element equals the maximum: none does where
    the compiler computes the elements twice, rounded differently, and the gradient is NaN.
    """
    if not active():
        return nn.max_pool(x, (2, 2), (2, 2))
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    x = _larger(x[:, :, 0], x[:, :, 1])
    return _larger(x[:, :, :, 0], x[:, :, :, 1])


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where((a >= b) | jnp.isnan(a), a, b)
