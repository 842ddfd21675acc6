"""The `Network` record: pure functions of parameters and batch statistics, stage by stage.

Symbols: B batch, K classes; `params` and `state` are nested dicts whose first-level keys are the
names of the stages.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.errors import check


class Network(NamedTuple):
    """A classifier as pure functions; any four such functions will do, whatever made them.

    Attributes:
      init: `init(key, x) -> (params, state)`; of the example x [B, ...] only the shape matters.
      apply: `apply(params, state, x, train) -> (logits [B, K], state)`. `train` (a Python bool)
        says whether batch norm takes the batch's statistics, and updates the running ones, or
        takes the running ones. Logits are at least float32.
      run: `run(params, state, x, train, start=0, stop=None) -> (features or logits, state)`, only
        stages start ... stop-1, so that `apply(p, s, x, t)` is `run` of the bottom followed by
        `run` of the top. Reads only these stages' entries of `params`; returns the other stages'
        state as it was.
      stages: names of the first-level keys of `params`, in the order in which they run.
    """

    init: Callable[[jax.Array, Any], tuple[Any, Any]]
    apply: Callable[[Any, Any, jax.Array, bool], tuple[jax.Array, Any]]
    run: Callable[..., tuple[jax.Array, Any]]
    stages: tuple[str, ...]


def from_linen(modules: nn.Module | Mapping[str, nn.Module]) -> Network:
    """Returns a Network made of a linen module, or of several that run one after the other.

    A module is called as `module(x, train)`, or as `module(x)` if it has no argument `train`.
    Its collections may be `params` and `batch_stats`. It draws no random numbers (no dropout).

    Args:
      modules: one module, which becomes the only stage "network"; or stage name -> module.

    Raises:
      UserError: no module; the example is not [B, ...]; `start` or `stop` is not a stage.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> class Linear(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x):
      ...         return nn.Dense(10)(x)
      >>> network = from_linen(Linear())
      >>> params, state = network.init(jax.random.key(0), jnp.zeros((4, 64)))
      >>> logits, state = network.apply(params, state, jnp.zeros((4, 64)), True)
      >>> logits.shape, network.stages
      ((4, 10), ('network',))
    """
    modules = dict(modules) if isinstance(modules, Mapping) else {"network": modules}
    check(bool(modules), "from_linen: no module given.")
    names = tuple(modules)
    takes_train = {
        name: "train" in inspect.signature(type(module).__call__).parameters
        for name, module in modules.items()
    }

    def stage(name: str, variables: Any, x: Any, train: bool, **options: Any) -> Any:
        flag = {"train": train} if takes_train[name] else {}
        return modules[name].apply(variables, x, **flag, **options)

    def init(key: jax.Array, x: Any) -> tuple[Any, Any]:
        check(len(x.shape) >= 2, f"A network needs examples [B, ...], not shape {x.shape}.")
        x = jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32)
        params, state = {}, {}
        for i, (name, module) in enumerate(modules.items()):
            flag = {"train": False} if takes_train[name] else {}
            variables = _init_stage(module, jax.random.fold_in(key, i), x, flag)
            params[name] = variables.get("params", {})
            if "batch_stats" in variables:
                state[name] = variables["batch_stats"]
            x = jax.eval_shape(lambda v, x, name=name: stage(name, v, x, False), variables, x)
        return params, state

    def run(
        params: Any, state: Any, x: Any, train: bool, start: int = 0, stop: int | None = None
    ) -> tuple[jax.Array, Any]:
        stop = len(names) if stop is None else stop
        check(
            0 <= start <= stop <= len(names),
            f"Stages {start}:{stop} do not exist; there are {len(names)}: {', '.join(names)}.",
        )
        changed = {}
        for name in names[start:stop]:
            variables = {"params": params[name]}
            if name not in state:
                x = stage(name, variables, x, train)
                continue
            variables["batch_stats"] = state[name]
            if train:
                x, new = stage(name, variables, x, True, mutable=["batch_stats"])
                changed[name] = new["batch_stats"]
            else:
                x = stage(name, variables, x, False)
        if stop == len(names):
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return x, {**state, **changed}

    def apply(params: Any, state: Any, x: Any, train: bool) -> tuple[jax.Array, Any]:
        return run(params, state, x, train)

    return Network(init, apply, run, names)


def _init_stage(module: nn.Module, key: jax.Array, x: Any, flag: dict[str, Any]) -> Any:
    """Variables of one stage; compiled, which leaves out everything but the initializers."""
    return jax.jit(lambda key: module.init(key, jnp.zeros(x.shape, x.dtype), **flag))(key)


def count_parameters(params: Any) -> int:
    """Returns the number of scalars in `params`, a pytree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
