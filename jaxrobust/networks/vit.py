"""Vision transformer. Dosovitskiy et al. 2021, arXiv 2010.11929."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.errors import check
from jaxrobust.networks.layers import Dtype, Head, check_images, parameter_dtype
from jaxrobust.networks.network import Network, from_linen

PATCH = 16


def vit_small(
    num_classes: int,
    *,
    dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
) -> Network:
    """Returns ViT-S/16, for images whose sides are multiples of 16; 22.05 M parameters at 1000.

    Layer norm first (epsilon 1e-6), exact GELU, a class token; no dropout, no batch norm. Kernels
    and tokens are N(0, 0.02), truncated, as timm's. The position embedding has the size of the
    images at initialization. Stages: "stem", "block1", ..., "top", "head". Images [B, H, W, C].
    Source: Dosovitskiy et al. 2021, arXiv 2010.11929; size S: Touvron et al. 2021,
    arXiv 2012.12877.

    Args:
      num_classes: K.
      dtype: of the computation; parameters and logits are at least float32.
      axis_name: unused, as there are no batch statistics.
      width: of a token; a multiple of `heads`.
      depth: blocks.
      heads: of the attention.

    Raises:
      UserError: `width` is not a multiple of `heads`.
    """
    del axis_name
    check(width % heads == 0, f"vit_small: width={width} is not a multiple of heads={heads}.")
    blocks = {f"block{i + 1}": _Block(dtype, heads) for i in range(depth)}
    return from_linen(
        {
            "stem": _Stem(dtype, width),
            **blocks,
            "top": _Top(dtype),
            "head": Head(num_classes, dtype, flatten=True),
        }
    )


def _dense(width: int, dtype: Dtype, name: str) -> nn.Dense:
    return nn.Dense(
        width,
        dtype=dtype,
        param_dtype=parameter_dtype(dtype),
        name=name,
        kernel_init=nn.initializers.truncated_normal(0.02),
    )


def _norm(dtype: Dtype, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(1e-6, dtype=dtype, param_dtype=parameter_dtype(dtype), name=name)


class _Patches(nn.Module):
    """A linear layer on each 16 x 16 patch: kernel [16, 16, C, D], bias [D]."""

    dtype: Dtype
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        exact, (b, h, w, c) = parameter_dtype(self.dtype), x.shape
        init = nn.initializers.truncated_normal(0.02)
        kernel = self.param("kernel", init, (PATCH, PATCH, c, self.width), exact)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), exact)
        x = x.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, -1, PATCH * PATCH * c).astype(self.dtype)
        y = x @ kernel.reshape(-1, self.width).astype(self.dtype)
        return y + bias.astype(self.dtype).reshape(1, 1, -1)


class _Stem(nn.Module):
    dtype: Dtype
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_images(x, "vit_small", PATCH)
        check(
            x.shape[1] % PATCH == x.shape[2] % PATCH == 0,
            f"Network 'vit_small' needs sides that are multiples of {PATCH}: {x.shape}.",
        )
        tokens = _Patches(self.dtype, self.width, name="patches")(x)
        exact, init = parameter_dtype(self.dtype), nn.initializers.truncated_normal(0.02)
        first = self.param("cls_token", init, (1, 1, self.width), exact)
        place = self.param("pos_embed", init, (1, tokens.shape[1] + 1, self.width), exact)
        first = jnp.broadcast_to(first, (x.shape[0], 1, self.width)).astype(self.dtype)
        return jnp.concatenate([first, tokens], 1) + place.astype(self.dtype)


class _Block(nn.Module):
    """Attention, then a perceptron four times as wide; each on the norm, added to its input."""

    dtype: Dtype
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, n, d = x.shape
        dense = partial(_dense, dtype=self.dtype)
        y = dense(3 * d, name="qkv")(_norm(self.dtype, "norm1")(x))
        q, k, v = y.reshape(b, n, 3, self.heads, d // self.heads).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) * (d // self.heads) ** -0.5
        scores = jax.nn.softmax(scores.astype(parameter_dtype(self.dtype))).astype(self.dtype)
        y = (scores @ v).transpose(0, 2, 1, 3).reshape(b, n, d)
        x = x + dense(d, name="out")(y)
        y = dense(4 * d, name="expand")(_norm(self.dtype, "norm2")(x))
        return x + dense(d, name="project")(nn.gelu(y, approximate=False))


class _Top(nn.Module):
    """The norm of the class token."""

    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _norm(self.dtype, "norm")(x[:, 0])
