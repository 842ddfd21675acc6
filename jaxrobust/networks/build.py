"""Networks by name."""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp

from jaxrobust.errors import UserError, check, choose, nearest
from jaxrobust.networks import NETWORKS
from jaxrobust.networks.network import Network


def make(
    name: str,
    num_classes: int,
    *,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
    **sizes: Any,
) -> Network:
    """Returns the network called `name`, a key of `NETWORKS`.

    Args:
      name: see `NETWORKS`.
      num_classes: K.
      dtype: of the computation; bfloat16 keeps parameters, statistics and logits float32.
      axis_name: of a mapped axis over which batch norm shares its statistics, for `pmap` and
        `shard_map`; not needed under `jit` with a sharded batch.
      **sizes: the network's own arguments, such as `width`.

    Raises:
      UserError: unknown name or size (with the nearest known one), no classes.
    """
    build = NETWORKS[choose("network", name, NETWORKS)]
    takes = _sizes(name)
    for key in sizes:
        check(
            key in takes,
            f"Network {name!r} has no {key!r}.{nearest(key, takes)} It has: {', '.join(takes)}.",
        )
    check(num_classes > 0, f"Network {name!r} needs at least one class, not {num_classes}.")
    return build(num_classes, dtype=dtype, axis_name=axis_name, **sizes)


def width_of(name: str, width: int) -> dict[str, Any]:
    """Returns the arguments of `make` for a network that is `width` units or channels wide.

    Two hidden layers of `width` for mlp, channels of the first stage for the others.

    Args:
      name: see `NETWORKS`.
      width: hidden units or channels, positive.

    Raises:
      UserError: unknown name, or a network whose width is fixed.
    """
    choose("network", name, NETWORKS)
    if name == "mlp":
        return {"hidden": (width, width)}
    if "width" in _sizes(name):
        return {"width": width}
    raise UserError(f"The width of network {name!r} is fixed: leave out network.width={width}.")


def _sizes(name: str) -> list[str]:
    common = ("num_classes", "dtype", "axis_name")
    return [key for key in inspect.signature(NETWORKS[name]).parameters if key not in common]
