"""Batch norm, pooling, shortcuts: against numpy and against Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.networks import cpu, layers
from jaxrobust.networks.cpu import max_pool_2x2
from jaxrobust.networks.layers import BatchNorm
from jaxrobust.networks.resnet import padded_shortcut


def norm_of(x, **fields):
    module = BatchNorm(**fields)
    variables = BatchNorm().init(jax.random.key(0), x, False)
    scale = jnp.arange(1.0, x.shape[-1] + 1)
    variables["params"] = {"scale": scale, "bias": -scale}
    return module, variables


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 5, 4)])
def test_batch_norm_normalises_with_the_biased_and_keeps_the_unbiased_variance(shape):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), shape)
    module, variables = norm_of(x)
    y, new = module.apply(variables, x, True, mutable=["batch_stats"])
    rows = np.asarray(x, np.float64).reshape(-1, 4)
    mean, n, scale = rows.mean(0), len(rows), np.arange(1, 5)
    expected = (rows - mean) / np.sqrt(rows.var(0) + 1e-5) * scale - scale
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 4), expected, rtol=1e-4, atol=1e-4)
    new = new["batch_stats"]
    np.testing.assert_allclose(new["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * rows.var(0) * n / (n - 1), rtol=1e-5)


def test_batch_norm_evaluates_with_the_running_statistics():
    x = jax.random.normal(jax.random.key(0), (6, 4))
    module, variables = norm_of(x)
    variables["batch_stats"] = {"mean": jnp.full(4, 2.0), "var": jnp.full(4, 9.0)}
    y = module.apply(variables, x, False)
    scale = np.arange(1, 5)
    np.testing.assert_allclose(
        y, (np.asarray(x) - 2) / np.sqrt(9 + 1e-5) * scale - scale, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 5, 4)])
def test_sums_in_two_stages_are_the_same_in_every_derivative(x64, monkeypatch, shape):
    """What is done on CPU for arrays that do not fit into the cache, see `cpu.spread`."""
    x = jax.random.normal(jax.random.key(0), shape, jnp.float64)
    module, variables = norm_of(x, dtype=jnp.float64)

    def loss(params, x):
        found = module.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
        return jnp.sin(found[0]).sum()

    def derivatives(params, x):
        first = jax.grad(loss, (0, 1))
        _, second = jax.jvp(first, (params, x), (params, jnp.cos(x)))
        return (
            loss(params, x),
            first(params, x),
            second,
            jax.vmap(loss, (None, 0))(params, jnp.stack([x, 2 * x])),
        )

    expected = jax.jit(derivatives)(variables["params"], x)
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 0)
    assert cpu.spread(jnp.arange(4.0), x, True).shape == (shape[0], *(1,) * (x.ndim - 2), 4)
    actual = jax.jit(lambda *args: derivatives(*args))(variables["params"], x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), actual, expected
    )


def test_batch_norm_agrees_with_flax_in_value_and_gradient():
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    module, variables = norm_of(x)
    flax = nn.BatchNorm(use_running_average=False)

    def value(f):
        return lambda x: jnp.sin(f(x)).sum()

    ours = value(lambda x: module.apply(variables, x, True, mutable=["batch_stats"])[0])
    theirs = value(lambda x: flax.apply(variables, x, mutable=["batch_stats"])[0])
    (a, da), (b, db) = (jax.jit(jax.value_and_grad(f))(x) for f in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(da, db, rtol=1e-4, atol=1e-5)


def test_statistics_over_a_named_axis_are_those_of_the_whole_batch():
    x = jax.random.normal(jax.random.key(0), (8, 3, 3, 2))
    module, variables = norm_of(x)
    whole, stats = module.apply(variables, x, True, mutable=["batch_stats"])
    split = BatchNorm(axis_name="data")
    part, part_stats = jax.vmap(
        lambda x: split.apply(variables, x, True, mutable=["batch_stats"]), axis_name="data"
    )(x.reshape(4, 2, 3, 3, 2))
    np.testing.assert_allclose(part.reshape(x.shape), whole, rtol=1e-5, atol=1e-6)
    for key in ("mean", "var"):
        for device in range(4):
            np.testing.assert_allclose(
                part_stats["batch_stats"][key][device], stats["batch_stats"][key], rtol=1e-5
            )


def test_bfloat16_statistics_are_taken_in_float32():
    x = (100 + jax.random.normal(jax.random.key(0), (4096, 2))).astype(jnp.bfloat16)
    module, variables = norm_of(x, dtype=jnp.bfloat16)
    y, new = module.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        new["batch_stats"]["mean"], 0.1 * np.asarray(x, np.float64).mean(0), rtol=1e-5
    )


def test_constant_channels_have_finite_first_and_second_derivatives():
    x = jnp.ones((4, 2, 2, 3))
    module, variables = norm_of(x)

    def loss(x):
        y, _ = module.apply(variables, x, True, mutable=["batch_stats"])
        return jnp.square(y).sum()

    def second(x):
        return jnp.square(jax.grad(loss)(x)).sum()

    for f in (loss, second):
        assert np.isfinite(jax.jit(jax.grad(f))(x)).all()


@pytest.mark.parametrize("height, width", [(4, 6), (5, 7)])
def test_max_pooling_is_flaxs(height, width):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    np.testing.assert_array_equal(max_pool_2x2(x), nn.max_pool(x, (2, 2), (2, 2)))

    def gradient(pool):
        return jax.grad(lambda x: jnp.sin(3 * pool(x)).sum())(x)

    flaxs = gradient(lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    np.testing.assert_array_equal(gradient(max_pool_2x2), flaxs)


def test_max_pooling_of_equal_or_missing_numbers():
    """Of equal ones the first has the gradient; a NaN is not lost, wherever it is."""
    x = jnp.ones((1, 2, 2, 1))
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(x)
    assert gradient.ravel().tolist() == [1, 0, 0, 0]
    for i in range(4):
        assert np.isnan(max_pool_2x2(x.ravel().at[i].set(jnp.nan).reshape(x.shape))).all()


def test_the_gradient_of_max_pooling_divides_by_no_count_of_maxima():
    """There is none where the compiler computes its input twice and rounds it differently."""
    x = jnp.ones((1, 4, 4, 1))
    program = str(jax.make_jaxpr(jax.grad(lambda x: max_pool_2x2(x).sum()))(x))
    assert " div " not in program and "reduce_max" not in program


def test_the_padded_shortcut_takes_every_second_pixel_between_zeros():
    x = jnp.arange(2 * 4 * 4 * 2, dtype=jnp.float32).reshape(2, 4, 4, 2)
    y = padded_shortcut(x, 4, 2)
    np.testing.assert_array_equal(y[..., 1:3], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., [0, 3]], 0)


def test_initialisers_have_pytorchs_scales():
    shape, key = (3, 3, 64, 128), jax.random.key(0)
    for init, fan in ((layers.kaiming_fan_in, 9 * 64), (layers.kaiming_fan_out, 9 * 128)):
        np.testing.assert_allclose(init(key, shape).std(), np.sqrt(2 / fan), rtol=0.01)
    kernel = layers.torch_default(key, shape)
    np.testing.assert_allclose(np.abs(kernel).max(), 1 / np.sqrt(9 * 64), rtol=1e-3)
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(3 * 9 * 64), rtol=0.01)
