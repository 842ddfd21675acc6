"""Run by test_devices.py with four virtual CPU devices: prints one JSON line per case.

Each line holds the largest difference, over everything a step returns, between one device and
four: once under `jit` with the batches sharded over a mesh, once under `pmap`.
"""

import json

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrobust.bilevel import make_bilevel
from jaxrobust.objectives import dynamic_loss

CASES = {
    "two steps": {"steps": 2},
    "first_order": {"mode": "first_order"},
    "finite_difference": {"mode": "finite_difference"},
    "skip": {"skip": 1, "bottom_batch_norm": "eval"},
    "skip with batch statistics, every other step": {
        "skip": 1,
        "bottom_batch_norm": "batch",
        "meta_every": 2,
    },
}
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(0.1), optax.add_decayed_weights(1e-3), optax.sgd(0.1, momentum=0.9)
)
PER_EXAMPLE = ("weights", "logits")


def make(objective, options, axis_name=None):
    network = conftest.make_network(axis_name=axis_name)
    bilevel = make_bilevel(
        network, objective, OPTIMIZER, optax.sgd(1.0), axis_name=axis_name, **options
    )
    return network, bilevel


def batches():
    """Examples of which some do not count: not equally many on each device."""
    batch, meta_batch = conftest.make_batches(b=8, m=8)
    batch["where"], meta_batch["where"] = jnp.arange(8) != 5, jnp.arange(8) > 2
    return batch, meta_batch


def on_two_views(step):
    """The step on another view of the examples that the look-ahead sees as they are."""
    return lambda state, batch, meta_batch, key: step(
        state, batch | {"x": 1 + batch["x"]}, meta_batch, key, look_ahead=batch
    )


def difference(one, other):
    """Largest difference of any two leaves."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.subtract(a, b, dtype=np.float64)))) for a, b in pairs)


def sharded(step, state, batch, meta_batch, key):
    """The step under `jit`, batches spread over a mesh of four."""
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    return jax.jit(step)(
        state, jax.device_put(batch, spread), jax.device_put(meta_batch, spread), key
    )


def mapped(step, state, batch, meta_batch, key):
    """The step under `pmap`: the four states, and the info put together again."""
    shards = jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:]), (batch, meta_batch))
    step = jax.pmap(step, axis_name="devices", in_axes=(None, 0, 0, None))
    states, info = jax.device_get(step(state, *shards, key))
    info = {
        name: None
        if value is None
        else value.reshape(8, *value.shape[2:])
        if name in PER_EXAMPLE
        else value[0]
        for name, value in info._asdict().items()
    }
    return [jax.tree.map(lambda a, d=d: a[d], states) for d in range(4)], info


def compare(name, options, objective):
    (batch, meta_batch), key = batches(), jax.random.key(0)
    network, bilevel = make(objective, options)
    state = jax.device_get(
        jax.jit(lambda: bilevel.init(key, *network.init(jax.random.key(1), batch["x"])))()
    )
    state = state._replace(meta_params=jax.tree.map(np.float64, state.meta_params))
    one, info = jax.jit(on_two_views(bilevel.step))(state, batch, meta_batch, key)
    spread = sharded(on_two_views(bilevel.step), state, batch, meta_batch, key)
    step = on_two_views(make(objective, options, axis_name="devices")[1].step)
    states, infos = mapped(step, state, batch, meta_batch, key)
    print(
        json.dumps(
            {
                "case": name,
                "meta_grad_norm": float(info.meta_grad_norm),
                "jit": difference(spread, (one, info)),
                "pmap": max(difference(s, one) for s in states)
                + difference(tuple(infos.values()), tuple(info)),
            }
        ),
        flush=True,
    )


def main():
    jax.config.update("jax_enable_x64", True)
    compare("dynamic loss", {}, dynamic_loss(3, 5, 4))
    for name, options in CASES.items():
        compare(name, options, conftest.by_rank())


if __name__ == "__main__":
    main()
