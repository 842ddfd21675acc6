"""The optimiser's steps that the network would take. Symbols as in `hypergradient`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

NUDGE = 1e-15  # Its square is still a normal number in float32.

Held = Callable[[str], bool]
"""`held(path) -> bool`, with the path of a parameter as "stage1/conv/kernel"."""


class LookAhead(NamedTuple):
    """Two losses, an optimiser, and what it may move.

    Attributes:
      inner_loss: `(params, meta_params, batch) -> (loss, aux)`.
      meta_loss: `(params, meta_batch) -> loss`.
      optimizer: optax.
      held: parameters that stay; None: none.
      axis_name: of the `pmap` over whose devices gradients are summed, or None.
    """

    inner_loss: Callable[[Any, Any, Any], tuple[jax.Array, Any]]
    meta_loss: Callable[[Any, Any], jax.Array]
    optimizer: optax.GradientTransformation
    held: Held | None
    axis_name: str | None

    def gradient(self, params: Any, meta_params: Any, batch: Any) -> tuple[Any, Any]:
        """Returns (loss, aux) and grad_theta L, zero where held."""

        def loss(params):
            return self.inner_loss(stop(params, self.held), meta_params, batch)

        found, grads = jax.value_and_grad(loss, has_aux=True)(params)
        return found, self.sum(grads)

    def meta_gradient(self, params: Any, meta_batch: Any) -> tuple[jax.Array, Any]:
        """Returns M and grad_theta M, zero where held."""

        def loss(params):
            return self.meta_loss(stop(params, self.held), meta_batch)

        value, grads = jax.value_and_grad(loss)(params)
        return value, self.sum(grads)

    def move(self, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        """Returns U(grads, params), with what is held in its place, and the optimiser's state.

        Gradients that are exactly zero, as of an input that never fires or where the look-ahead
        starts at weights of zero, are nudged: at zero itself Adam's square root and a clipped norm
        have no derivative, and reverse mode makes NaN of it. Values change by less than rounding.
        """
        grads = jax.tree.map(lambda g: g + jnp.where(g == 0, NUDGE, 0).astype(g.dtype), grads)
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        return keep(params, optax.apply_updates(params, updates), self.held), opt_state

    def run(
        self, steps: int, meta_params: Any, params: Any, opt_state: Any, batch: Any
    ) -> tuple[Any, Any, Any]:
        """Returns theta_K, the optimiser's state, and (loss, aux) of the first step.

        More than one step are rematerialised: each keeps only its parameters for the backward
        pass and runs again there.
        """

        def one(params, opt_state, meta_params, batch):
            found, grads = self.gradient(params, meta_params, batch)
            return *self.move(grads, opt_state, params), found

        one, first = (jax.checkpoint(one) if steps > 1 else one), None
        for _ in range(steps):
            params, opt_state, found = one(params, opt_state, meta_params, batch)
            first = found if first is None else first
        return params, opt_state, first

    def sum(self, tree: Any) -> Any:
        """Returns the sum over devices."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)


def keep(before: Any, after: Any, held: Held | None) -> Any:
    """Returns `before` where held and `after` elsewhere."""
    if held is None:
        return after

    def pick(path, old, new):
        return old if held(jax.tree_util.keystr(path, simple=True, separator="/")) else new

    return jax.tree_util.tree_map_with_path(pick, before, after)


def stop(params: Any, held: Held | None) -> Any:
    """Returns the parameters, without gradient where held."""
    return params if held is None else keep(jax.lax.stop_gradient(params), params, held)
