"""A network in plain JAX, and the reference numbers of one look-ahead step as nested dicts."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.objectives import Objective


def dense(p, x):
    return x @ p["kernel"] + p["bias"][None, :]


def batch_norm(p, state, x, train, axis_name=None):
    """Train mode: the batch's statistics, of all devices of `axis_name`; running average 0.9."""
    mean, var = state["mean"], state["var"]
    if train:
        moments = x.mean(0), (x**2).mean(0)
        if axis_name is not None:
            moments = jax.lax.pmean(moments, axis_name)
        mean, var = moments[0], moments[1] - moments[0] ** 2
        state = {"mean": 0.9 * state["mean"] + 0.1 * mean, "var": 0.9 * state["var"] + 0.1 * var}
    y = (x - mean[None, :]) / jnp.sqrt(var + 1e-5)[None, :]
    return y * p["scale"][None, :] + p["bias"][None, :], state


def make_network(with_bn=True, axis_name=None, activation=jax.nn.relu):
    """D -> H (-> batch norm) -> activation -> K, two stages: l1 (with bn) and l2."""

    def run(params, state, x, train, start, stop):
        if start < 1:
            x = dense(params["l1"], x)
            if with_bn:
                x, bn = batch_norm(params["l1"]["bn"], state["bn"], x, train, axis_name)
                state = {"bn": bn}
            x = activation(x)
        return (x if stop == 1 else dense(params["l2"], x)), state

    def apply(params, state, x, train):
        return run(params, state, x, train, 0, None)

    def init(key, x, hidden=6, classes=3):
        k1, k2 = jax.random.split(key)
        bn = {"scale": jnp.ones(hidden), "bias": jnp.zeros(hidden)}
        l1 = {"kernel": jax.random.normal(k1, (x.shape[1], hidden)) / 2, "bias": jnp.zeros(hidden)}
        l2 = {"kernel": jax.random.normal(k2, (hidden, classes)) / 2, "bias": jnp.zeros(classes)}
        state = {"bn": {"mean": jnp.zeros(hidden), "var": jnp.ones(hidden)}} if with_bn else {}
        return {"l1": l1 | ({"bn": bn} if with_bn else {}), "l2": l2}, state

    return SimpleNamespace(init=init, apply=apply, run=run, stages=("l1", "l2"))


def make_batches(seed=0, b=8, m=6, d=4, classes=3, ranks=5):
    """A batch and a metadata batch of random numbers, with all that the objectives read."""
    rng = np.random.default_rng(seed)

    def batch(n):
        return {
            "x": jnp.asarray(rng.normal(size=(n, d))),
            "labels": jnp.asarray(rng.integers(0, classes, n), jnp.int32),
            "rank": jnp.asarray(rng.integers(0, ranks, n), jnp.int32),
            "index": jnp.asarray(rng.permutation(n), jnp.int32),
        }

    return batch(b), batch(m)


def by_rank():
    """The smallest objective: a weight per rank, sigmoid(phi [5])."""

    def weights(phi, logits, batch):
        return jax.nn.sigmoid(phi)[batch["rank"]]

    def loss(phi, logits, batch):
        value = losses.cross_entropy(logits, batch["labels"], where=batch.get("where"))
        return weights(phi, logits, batch) * value

    return Objective(lambda key: jnp.linspace(-1.0, 1.0, 5), loss, weights=weights)


def weighted_cross_entropy(params, phi, batch, network, state):
    """An inner loss of phi [B] and, through the logits, of params."""
    logits, _ = network.apply(params, state, batch["x"], True)
    return jnp.mean(jax.nn.sigmoid(phi) * losses.cross_entropy(logits, batch["labels"]))


@pytest.fixture
def toy():
    return SimpleNamespace(
        make_network=make_network,
        make_batches=make_batches,
        dense=dense,
        batch_norm=batch_norm,
        objective=by_rank(),
        jit=jax.jit,
        weighted_cross_entropy=weighted_cross_entropy,
    )


@pytest.fixture
def nested():
    """Reads the entries `prefix/...` of a golden file as a nested dict of float64 arrays."""

    def read(file, prefix, rename=lambda name: name):
        tree = {}
        for name in file:
            if name.startswith(prefix + "/"):
                *path, leaf = rename(name.removeprefix(prefix + "/")).split("/")
                node = tree
                for part in path:
                    node = node.setdefault(part, {})
                node[leaf] = jnp.asarray(file[name])
        return tree

    return read
