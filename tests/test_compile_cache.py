"""The suite's own machinery: the kept programs, the compiler's settings, the gallery of runs."""

import os
import shutil

import compile_cache
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_what_was_not_used_for_longest_goes_first(folder):
    for age, name in enumerate("cab"):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1000 - age, 1000 - age))
    assert compile_cache.prune(limit=300) == 300
    assert compile_cache.prune(limit=299) == 200
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c"]


def test_a_program_is_written_whole_read_back_and_kept_from_pruning(folder):
    from jax._src.lru_cache import LRUCache

    cache = LRUCache(str(folder), max_size=-1)
    assert cache.get("key") is None
    cache.put("key", b"program")
    assert cache.get("key") == b"program"
    [path] = folder.iterdir()  # nothing of the writing is left
    os.utime(path, (0, 0))
    cache.get("key")
    assert path.stat().st_mtime > 1000


def test_a_child_reads_programs_and_writes_none(folder):
    code = "import jax; print(jax.jit(lambda x: x * {} + 7)(1.0))"
    environment = helpers.environment()
    assert helpers.child("-c", code.format(2), env=environment).stdout == "9.0\n"
    assert list(folder.iterdir()) == []


CONVOLUTIONS = [  # images, kernel, stride, padding
    ((2, 8, 8, 3), (3, 3, 3, 4), 1, 1), ((4, 16, 16, 8), (3, 3, 8, 16), 2, 1),
    ((2, 12, 12, 3), (5, 5, 3, 8), 1, 2), ((8, 7, 7, 16), (1, 1, 16, 32), 1, 0),
    ((2, 2, 2, 64), (3, 3, 64, 64), 1, 1),
]


@pytest.mark.parametrize("image, kernel, stride, padding", CONVOLUTIONS, ids=str)
def test_a_compiler_that_does_not_optimize_computes_the_same(image, kernel, stride, padding):
    """Values, both gradients, and a gradient of a gradient, as the look-ahead takes it."""
    rng = np.random.default_rng(0)
    x, k = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (image, kernel))

    def value(x, k):
        y = jax.lax.conv_general_dilated(
            x, k, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(jnp.tanh(y) * jnp.cos(jnp.arange(y.size)).reshape(y.shape))

    def all_of_it(x, k):
        mixed = jax.grad(lambda k: jnp.sum(jnp.sin(jax.grad(value)(x, k))))
        return value(x, k), *jax.grad(value, (0, 1))(x, k), mixed(k)

    default = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
    quick = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    expected, found = (jax.jit(all_of_it, compiler_options=o)(x, k) for o in (default, quick))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


@pytest.fixture
def own_gallery(tmp_path, monkeypatch):
    """A gallery of its own, whose training writes one file; and the trainings."""
    trained = []

    def train(config, workdir):
        workdir.mkdir()
        (workdir / "results.json").write_text(str(config.seed))
        trained.append(config.seed)

    monkeypatch.setattr("jaxrobust.train", train, raising=False)
    return helpers.Gallery(tmp_path / "gallery"), trained


def test_a_configuration_is_trained_once_and_another_apart(own_gallery):
    gallery, trained = own_gallery
    first = gallery(helpers.settings())
    assert gallery(helpers.settings()) == first != gallery(helpers.settings(seed=1))
    assert trained == [0, 1]


def test_a_run_that_was_written_into_is_named_and_a_copy_is_free(own_gallery, tmp_path):
    gallery, _ = own_gallery
    copy = gallery.copy(helpers.settings(), tmp_path / "copy")
    (copy / "new").write_text("x")
    assert gallery.changed() == []
    run = gallery(helpers.settings())
    (run / "new").write_text("x")
    assert gallery.changed() == [str(run.parent)]
    (run / "new").unlink()
    shutil.rmtree(copy)
    assert gallery.changed() == []
