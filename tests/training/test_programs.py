"""`shared_jit`: equal programs are compiled once, and never one for another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust.training import programs
from jaxrobust.training.programs import shared_jit


@pytest.fixture
def compiled(monkeypatch):
    """Counts the programs that are really compiled, from an empty store."""
    monkeypatch.setattr(programs, "_PROGRAMS", type(programs._PROGRAMS)())
    return lambda: len(programs._PROGRAMS)


def affine(scale, shift, key=None):
    """A function that closes over arrays as a step does: within loops, gradients and keys."""

    def f(x, i):
        def body(carry, j):
            return jax.grad(lambda x: jnp.sum(x**2 * scale))(carry) + shift * j, None

        y = jax.lax.scan(body, x, jnp.arange(3, dtype=jnp.float32))[0]
        if key is not None:
            y += jax.random.normal(key, y.shape)
        return {"y": y, "i": i + 1}

    return f


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_functions_that_differ_in_their_arrays_share_a_program(compiled, kind):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        f = affine(
            *(kind(rng.normal(size=4).astype(np.float32)) for _ in range(2)), jax.random.key(seed)
        )
        found, wanted = (j(f)(jnp.ones(4), np.int32(seed)) for j in (shared_jit, jax.jit))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
    assert compiled() == 1


def test_functions_that_differ_in_anything_else_do_not(compiled):
    one, two = jnp.ones(4), jnp.ones(2)
    big = [np.zeros(10_000, np.float32) for _ in range(2)]
    big[1][5_000] = 1.0

    def of_number(n):
        return lambda x: x + n

    def of_inner(a):
        inner = jax.jit(lambda x: x + a)
        return lambda x: inner(x)

    def of_unused(a):
        return lambda x: (x + 1, jnp.sum(a) * 0)[0]

    cases = [
        (of_number(1.0), one, 2.0),
        (of_number(2.0), one, 3.0),
        (of_number(1.0), two, 2.0),
        (of_inner(np.ones(4)), one, 2.0),
        (of_inner(np.full(4, 2.0)), one, 3.0),
        (of_unused(jnp.ones(3)), one, 2.0),
        (of_unused(jnp.ones(5)), one, 2.0),
        (lambda x: {"a": x}["a"], one, 1.0),
        (lambda x: x + jnp.asarray(big[0]).sum(), one, 1.0),
        (lambda x: x + jnp.asarray(big[1]).sum(), one, 2.0),
    ]
    for f, x, value in cases:
        np.testing.assert_array_equal(shared_jit(f)(x), np.full(x.shape, value))


def test_new_shapes_of_one_function_are_compiled_and_old_ones_found(compiled):
    f = shared_jit(lambda x: x * 2)
    for n in (3, 4, 3, 4):
        np.testing.assert_array_equal(f(jnp.ones(n)), np.full(n, 2.0))
    assert compiled() == 2


def test_memory_is_given_up_on_request():
    x = jnp.ones(1000)
    shared_jit(lambda x: x + 1, donate=(0,))(x)
    assert x.is_deleted()


def test_the_store_does_not_grow_for_ever(compiled, monkeypatch):
    monkeypatch.setattr(programs, "_KEPT", 2)
    for n in range(4):
        shared_jit(lambda x: x, options=None)(jnp.ones(n + 1))
    assert compiled() == 2


@pytest.mark.parametrize("loss", ["ce", "ldam"])
def test_another_seed_compiles_nothing_new(compiled, tmp_path, loss):
    def train(seed, name):
        config = configuration.load(f"digits_losses:{loss}")
        config.update_from_flattened_dict(
            {
                "seed": seed,
                "network.name": "mlp",
                "network.width": 16,
                "train.epochs": 2,
                "data.noise.kind": "symmetric",
                "data.noise.rate": 0.4,
                "log.figures": False,
                "log.tensorboard": False,
            }
        )
        return jaxrobust.train(config, tmp_path / name)["last"]

    first = train(0, "a")
    count = compiled()
    other = train(1, "b")
    assert compiled() == count and other != first
    assert train(0, "c") == first
