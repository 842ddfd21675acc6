"""The work-arounds for XLA on CPU compute the plain operations, and have one switch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.networks import cpu
from jaxrobust.networks.cpu import Conv, conv2d, num_chunks

SIZE = (5, 6)
CASES = [((3, 3), 1, (1, 1)), ((3, 3), 2, (1, 1)), ((1, 1), 2, (0, 0)), ((1, 5), 1, (0, 2))]
TINY = [  # size, kernel, stride, padding
    ((2, 2), (3, 3), 1, (1, 1)),
    ((1, 1), (3, 3), 1, (1, 1)),
    ((4, 4), (3, 3), 2, (1, 1)),
    ((5, 6), (7, 7), 2, (3, 3)),
    ((2, 9), (3, 3), 1, (1, 1)),
    ((3, 4), (3, 3), 1, (0, 0)),
]


@pytest.fixture
def chunked(monkeypatch):
    """Every batch is taken in as many parts as it can be."""
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 1)
    monkeypatch.setattr(cpu.jax, "device_count", lambda: 1)


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def arrays(kernel, batch=4, dtype=jnp.float32, size=SIZE):
    keys = jax.random.split(jax.random.key(0), 4)
    x, dx = (jax.random.normal(k, (batch, *size, 2), dtype) for k in keys[:2])
    w, dw = (jax.random.normal(k, (*kernel, 2, 3), dtype) for k in keys[2:])
    return x, w, dx, dw


@pytest.mark.parametrize("size, kernel, stride, padding", [(SIZE, *case) for case in CASES] + TINY)
def test_value_and_derivatives_are_those_of_the_plain_convolution(
    chunked, x64, size, kernel, stride, padding
):
    x, w, dx, dw = arrays(kernel, dtype=jnp.float64, size=size)
    assert num_chunks(x, x) == 4

    def results(conv, x, w, dx, dw):
        def f(x, w):
            return conv(x, w, stride, padding)

        def loss(x, w):
            return jnp.sin(f(x, w)).sum()

        def step_then_loss(x, w):
            gx, gw = jax.grad(loss, (0, 1))(x, w)
            return loss(x - 0.1 * gx, w - 0.1 * gw)

        return {
            "value": f(x, w),
            "tangent": jax.jvp(f, (x, w), (dx, dw))[1],
            "gradient": jax.grad(loss, (0, 1))(x, w),
            "gradient of a gradient": jax.grad(step_then_loss, (0, 1))(x, w),
            "forward over reverse": jax.jvp(jax.grad(loss, 1), (x, w), (dx, dw))[1],
        }

    # As arguments: of constants, XLA in JAX 0.7.2 folds the plain convolutions to wrong numbers.
    ours, expected = (
        jax.jit(functools.partial(results, conv))(x, w, dx, dw) for conv in (conv2d, plain)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), ours, expected
    )


def test_float32_kernel_gradient_agrees_to_1e_5(chunked):
    x, w, dx, _ = arrays((3, 3), batch=64)

    def gradient(conv):
        return jax.grad(lambda w: jnp.vdot(conv(x, w, 1, (1, 1)), conv(dx, w, 1, (1, 1))))(w)

    expected = gradient(plain)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient(conv2d) / scale, expected / scale, atol=1e-5)


def test_under_vmap_and_checkpoint(chunked):
    x, w, _, _ = arrays((3, 3))
    kernels = jnp.stack([w, 2 * w])

    def gradient(conv):
        loss = jax.checkpoint(lambda w: jnp.sin(conv(x, w, 1, (1, 1))).sum())
        return jax.vmap(jax.grad(loss))(kernels)

    np.testing.assert_allclose(gradient(conv2d), gradient(plain), rtol=1e-4, atol=1e-4)


def count(f, *args):
    return str(jax.make_jaxpr(f)(*args)).count("conv_general_dilated[")


@pytest.mark.parametrize("case", TINY)
def test_a_tiny_map_is_convolved_as_a_product_on_cpu_only(monkeypatch, case):
    size, kernel, *rest = case
    x, w, _, _ = arrays(kernel, size=size)

    def gradients(x, w):
        return jax.grad(lambda x, w: jnp.sin(conv2d(x, w, *rest)).sum(), (0, 1))(x, w)

    assert count(gradients, x, w) == 0
    monkeypatch.setattr(cpu.jax, "default_backend", lambda: "tpu")
    assert count(gradients, x[:3], w) == 3  # another shape: JAX keeps what it has traced


@pytest.mark.parametrize("stride", [1, 2])
def test_a_map_that_the_kernel_does_not_fit_into_gives_an_empty_one(stride):
    x, w, _, _ = arrays((3, 3), size=(2, 4))
    assert conv2d(x, w, stride, (0, 0)).shape == plain(x, w, stride, (0, 0)).shape


def test_no_convolution_for_a_derivative_that_is_not_asked_for(chunked):
    x, w, _, _ = arrays((3, 3), batch=1)

    def loss(x, w):
        return conv2d(x, w, 1, (1, 1)).sum()

    assert count(jax.grad(loss, 0), x, w) <= 2
    assert count(jax.grad(loss, 1), x, w) <= 2


def test_the_batch_is_divided_only_where_it_pays(monkeypatch):
    big = jax.ShapeDtypeStruct((128, 32, 32, 16), jnp.float32)
    odd = jax.ShapeDtypeStruct((126, 32, 32, 16), jnp.float32)
    small = jax.ShapeDtypeStruct((128, 8, 8, 16), jnp.float32)
    monkeypatch.setattr(cpu.jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(cpu.jax, "device_count", lambda: 1)
    assert [num_chunks(x, x) for x in (big, odd, small)] == [8, 2, 1]
    assert num_chunks(small, big) == 8
    monkeypatch.setattr(cpu.jax, "device_count", lambda: 2)
    assert num_chunks(big, big) == 1
    monkeypatch.setattr(cpu.jax, "device_count", lambda: 1)
    monkeypatch.setattr(cpu.jax, "default_backend", lambda: "gpu")
    assert num_chunks(big, big) == 1


def test_one_switch_leaves_the_plain_operations(chunked):
    x, w, _, _ = arrays((3, 3), size=(2, 2), batch=8)
    large = jnp.ones((4, 6, 6, 3))

    def all_of_them(x, w, large):
        y = conv2d(x, w, 1, (1, 1)).sum()
        rows = cpu.spread(large[0, 0, 0], large, True)
        return y + cpu.max_pool_2x2(large).sum() + (large * rows).sum()

    def program():
        return str(jax.make_jaxpr(lambda *a: all_of_them(*a))(x, w, large))

    assert cpu.active() and num_chunks(x, x) == 8
    ours = program()
    with cpu.switched_off():
        assert not cpu.active() and num_chunks(x, x) == 1
        plain = program()
    assert cpu.active() and program() == ours
    assert "conv_general_dilated" not in ours and "optimization_barrier" in ours
    assert "conv_general_dilated" in plain and "optimization_barrier" not in plain
    assert "reduce_window_max" in plain and "reduce_window_max" not in ours


def test_the_module_has_a_bias_only_when_told():
    x = jnp.ones((2, 4, 4, 2))
    variables = Conv(3, (1, 1), use_bias=True).init(jax.random.key(0), x)
    assert set(variables["params"]) == {"kernel", "bias"}
    variables["params"]["bias"] = jnp.array([1.0, 2.0, 3.0])
    y = Conv(3, (1, 1), use_bias=True).apply(variables, x)
    without = {"params": {"kernel": variables["params"]["kernel"]}}
    np.testing.assert_allclose(
        y - Conv(3, (1, 1)).apply(without, x),
        np.broadcast_to([1.0, 2.0, 3.0], (2, 4, 4, 3)),
        rtol=1e-6,
    )
