"""Probing: what is recorded, when, in how much memory, at which learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import losses, networks
from jaxrobust.methods import TrainState
from jaxrobust.methods._curvenet import Probe, class_means, empty_curves, probe_stages, record
from jaxrobust.objectives import class_centred
from jaxrobust.training import schedules


def points(n=22, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(n, 2)), jnp.float32)
    return {"x": x, "labels": jnp.asarray(rng.integers(0, 3, n), jnp.int32)}


def plain(key, x):
    del key
    return x


@pytest.mark.golden
def test_golden_learning_rate(golden):
    """The released program's, by epoch, with as many steps an epoch as the smaller batches take."""
    rates = np.load(golden("curvenet_probe_lr.npz"))["lr"]
    probe = Probe(len(rates), 16, 2)
    stages = probe.steps(100)
    assert [steps for _, steps in stages] == [7, 50]
    schedule = schedules.make_schedule("cyclic", float(rates[0]), stages=stages, cycle=probe.cycle)
    per_epoch = [steps for epochs, steps in stages for _ in range(epochs)]
    starts = np.cumsum([0, *per_epoch])[:-1]
    found = np.asarray(schedule(jnp.asarray(starts)))
    np.testing.assert_allclose(found, rates, rtol=1e-6)
    ends = np.asarray(schedule(jnp.asarray(starts + per_epoch - 1)))
    np.testing.assert_allclose(ends, rates, rtol=1e-6)


def test_a_short_probe_cycles_in_proportion():
    assert Probe(300, 8, 1).cycle == (120, 15)
    assert Probe(60, 8, 1).cycle == (24, 3)
    assert Probe(1, 8, 1).cycle == (0, 1)
    assert sum(epochs for epochs, _ in Probe(7, 8, 1).steps(20)) == 7


def test_curves_are_the_losses_as_they_were_met():
    """Every step by hand: 22 examples in batches of 8 and of 2; the last batch is filled up."""
    data, network = points(), networks.make("mlp", 3, hidden=(5,))
    optimizer = optax.sgd(0.5, momentum=0.9)
    stages = probe_stages(network, optimizer, plain, Probe(5, 8, 2), 22)
    assert [(s.name, s.epochs) for s in stages] == [("probe", 2), ("probe_cycles", 3)]
    params, stats = network.init(jax.random.key(0), data["x"])
    memory = {"curves": jnp.full((24, 5), -1.0)}
    state = TrainState(jnp.int32(0), params, stats, optimizer.init(params), {}, {}, memory, {})
    expected, epoch, sizes = np.full((24, 5), -1.0), 0, []
    for stage in stages:
        (pass_,) = stage.passes
        step = jax.jit(pass_.step)
        for _ in range(stage.epochs):
            order = pass_.order(state, jax.random.key(epoch), epoch)
            sizes.append(order.index.shape)
            for index, where in zip(order.index, order.where, strict=True):
                rows = np.asarray(index)[np.asarray(where)]
                logits, _ = network.apply(state.params, state.network_state, data["x"][rows], True)
                expected[rows, epoch] = losses.cross_entropy(logits, data["labels"][rows])
                batch = {name: value[index] for name, value in data.items()}
                batch |= {"index": index, "where": where}
                state, info = step(state, batch, None, jax.random.key(1), jnp.int32(epoch))
            epoch += 1
    assert sizes == [(3, 8)] * 2 + [(11, 2)] * 3
    assert (expected[:22] > 0).all() and (expected[22:] == -1).all()
    np.testing.assert_allclose(state.memory["curves"], expected, rtol=1e-5, atol=1e-6)


def test_a_loss_too_large_for_half_precision_is_the_largest_there_is():
    batch = {"index": jnp.array([1, 0]), "where": jnp.array([True, False])}
    curves = record(jnp.zeros((3, 2), jnp.float16), batch, jnp.array([1e6, 5.0]), jnp.int32(1))
    np.testing.assert_array_equal(curves, np.float16([[0, 0], [0, 65504], [0, 0]]))


def test_mean_curves_by_class_are_those_that_centring_subtracts():
    rng = np.random.default_rng(0)
    curves = jnp.asarray(rng.normal(size=(64, 7)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 50), jnp.int32)
    means = class_means(curves, labels, 4)
    centred = curves[:50] - means[labels]
    np.testing.assert_allclose(centred, class_centred(curves[:50], labels, 4), atol=1e-6)
    np.testing.assert_array_equal(means[3], np.zeros(7))


def test_a_million_curves_of_300_epochs_take_six_tenths_of_a_gigabyte():
    shape = jax.eval_shape(lambda: empty_curves(1_000_000, 300, "float16"))
    assert shape.size * shape.dtype.itemsize == 600_000_000
    labels = jax.ShapeDtypeStruct((1_000_000,), jnp.int32)
    means = jax.jit(lambda c, y: class_means(c, y, 100)).lower(shape, labels).compile()
    assert means.memory_analysis().temp_size_in_bytes < 20_000_000
    batch = {
        "index": jax.ShapeDtypeStruct((128,), jnp.int32),
        "where": jax.ShapeDtypeStruct((128,), jnp.bool),
    }
    loss, epoch = jax.ShapeDtypeStruct((128,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    scatter = jax.jit(record, donate_argnums=0).lower(shape, batch, loss, epoch).compile()
    memory = scatter.memory_analysis()
    assert memory.temp_size_in_bytes < 1_000_000  # In place.
    assert memory.alias_size_in_bytes == 600_000_000


def test_four_devices_share_the_curves_by_rows_and_record_the_same(four_devices):
    four_devices("curves")  # `curves_on_four_devices.py` asserts it.
