"""The step on networks that this package did not make: linen, nnx (split, merge) and Equinox."""

import inspect

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxrobust.bilevel import make_bilevel


def linen_network(x):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(5)(x))
            return nn.Dense(3)(nn.relu(x))

    net = Net()
    variables = jax.jit(lambda: net.init(jax.random.key(0), x, False))()

    def apply(params, state, x, train):
        variables = {"params": params, "batch_stats": state}
        if not train:
            return net.apply(variables, x, False), state
        logits, new = net.apply(variables, x, True, mutable=["batch_stats"])
        return logits, new["batch_stats"]

    return apply, variables["params"], variables["batch_stats"]


def nnx_network(x):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.bottom = nnx.Linear(x.shape[1], 5, rngs=rngs)
            self.norm = nnx.BatchNorm(5, rngs=rngs)
            self.top = nnx.Linear(5, 3, rngs=rngs)

        def __call__(self, x):
            return self.top(nnx.relu(self.norm(self.bottom(x))))

    graph, params, state = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)
    # Newer versions share variables with what is merged, unless told not to.
    copy = {"copy": True} if "copy" in inspect.signature(nnx.merge).parameters else {}

    def apply(params, state, x, train):
        net = nnx.merge(graph, params, state, **copy)
        net.train() if train else net.eval()
        return net(x), nnx.state(net, nnx.Not(nnx.Param))

    return apply, params, state


def equinox_network(x):
    class Net(eqx.Module):
        bottom: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        top: eqx.nn.Linear

        def __init__(self, key):
            first, second = jax.random.split(key)
            self.bottom = eqx.nn.Linear(x.shape[1], 5, key=first)
            self.norm = eqx.nn.BatchNorm(5, axis_name="batch", mode="batch")
            self.top = eqx.nn.Linear(5, 3, key=second)

        def __call__(self, x, state):
            x, state = self.norm(self.bottom(x), state)
            return self.top(jax.nn.relu(x)), state

    net, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def apply(params, state, x, train):
        net = eqx.nn.inference_mode(eqx.combine(params, static), not train)
        return jax.vmap(net, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, state)

    return apply, params, state


@pytest.mark.parametrize("make", [linen_network, nnx_network, equinox_network])
def test_any_network_and_a_predicate_on_its_paths(toy, make):
    batch, meta_batch = toy.make_batches()
    apply, params, network_state = make(batch["x"])
    bilevel = make_bilevel(
        apply,
        toy.objective,
        optax.adamw(1e-2),
        optax.sgd(10.0),
        skip=lambda path: "Dense_0" in path or "bottom" in path,
    )
    state = toy.jit(bilevel.init)(jax.random.key(0), params, network_state)
    after, info = toy.jit(bilevel.step)(state, batch, meta_batch)
    assert float(info.meta_grad_norm) > 0 and np.any(after.meta_params != state.meta_params)
    for tree in ("params", "network_state"):
        before, now = getattr(state, tree), getattr(after, tree)
        assert jax.tree.structure(before) == jax.tree.structure(now)
        moved = [
            jnp.any(a != b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True)
        ]
        assert all(moved)
