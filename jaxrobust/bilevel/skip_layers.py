"""Skip-layer meta-optimization: the look-ahead updates only the upper stages of a network.

The frozen lower stages run once per batch, without gradient (Jiang et al. 2022, arXiv 2201.00849,
section "Skip-Layer Meta Optimization").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxrobust.errors import check, choose


class Parts(NamedTuple):
    """A network as the look-ahead sees it.

    Attributes:
      bottom: `bottom(params, state, x) -> features`; x itself where nothing is split off.
      top: `top(params, state, features) -> logits`, batch norm in train mode.
      frozen: predicate on parameter paths; where true, the look-ahead neither updates nor
        differentiates the parameter; None: no parameter is frozen.
    """

    bottom: Callable[[Any, Any, jax.Array], jax.Array]
    top: Callable[[Any, Any, jax.Array], jax.Array]
    frozen: Callable[[str], bool] | None


def split(network: Any, skip: int | Callable[[str], bool], bottom_batch_norm: str) -> Parts:
    """Returns the network's parts.

    Args:
      network: a record with `apply` (and, to be split, `run` and `stages`), or `apply` itself.
      skip: how many of `network.stages` are frozen, counted from the input; or a predicate on the
        parameter's path, which needs no `stages`: the whole network then runs in train mode.
      bottom_batch_norm: "eval" (running statistics, as in the released programs) or "batch"
        (the batch's own: where look-ahead and real step see the same batch, XLA computes the
        bottom's features once for both).

    Raises:
      UserError: the network has no such stages, or nothing would be left to move.
    """
    choose("bottom_batch_norm", bottom_batch_norm, ("eval", "batch"))
    apply = getattr(network, "apply", network)
    if callable(skip) or skip == 0:
        frozen = skip if callable(skip) else None
        return Parts(lambda _, __, x: x, lambda p, s, x: apply(p, s, x, True)[0], frozen)
    stages = getattr(network, "stages", ())
    check(
        0 < skip < len(stages),
        f"skip={skip}: must leave at least one of the network's {len(stages)} stages "
        f"({', '.join(stages)}) to the look-ahead; or give a predicate on the parameter's path.",
    )
    train = bottom_batch_norm == "batch"

    def bottom(params: Any, state: Any, x: jax.Array) -> jax.Array:
        return network.run(params, state, x, train, 0, skip)[0]

    def top(params: Any, state: Any, features: jax.Array) -> jax.Array:
        return network.run(params, state, features, True, skip, None)[0]

    return Parts(bottom, top, lambda path: path.split("/")[0] in stages[:skip])
