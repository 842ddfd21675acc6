"""Mean and deviation: of all pixels, some at a time, in one pass over what is not an array."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.data import statistics as module
from jaxrobust.data.examples import View
from jaxrobust.data.statistics import moments, statistics

RNG = np.random.default_rng(0)


class Lazy:
    """Images that are counted when they are read."""

    shape, dtype = (6, 40, 50, 3), np.dtype(np.uint8)

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 6

    def __getitem__(self, i):
        self.reads.append(i)
        return np.full((40, 50, 3), i, np.uint8)


def test_by_channel_and_by_feature():
    images = RNG.integers(0, 255, (20, 4, 4, 3), np.uint8)
    mean, deviation = statistics(images)
    np.testing.assert_allclose(mean, images.reshape(-1, 3).mean(0) / 255, rtol=1e-6)
    np.testing.assert_allclose(deviation, images.reshape(-1, 3).std(0) / 255, rtol=1e-6)
    assert mean.dtype == deviation.dtype == np.float32
    features = np.stack([RNG.normal(2, 3, 50), np.full(50, 7.0)], 1).astype(np.float32)
    mean, deviation = statistics(features)
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, [features[:, 0].std(), 1], rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 700, 1 << 21])
def test_moments_are_those_of_all_pixels_however_they_are_cut(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    x = RNG.integers(0, 256, (2100, 3, 2, 3)).astype(np.uint8)
    mean, std = moments(x)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, x.std((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose([v * 255 for v in moments(x / 255)], (mean, std), rtol=1e-12)
    far = (RNG.normal(1e6, 1, (900, 2))).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(moments(far), (far.mean(0), far.std(0)), rtol=1e-9)


@pytest.mark.parametrize("chunk", [4, 1 << 21])
def test_a_column_that_never_changes(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    table = np.stack([np.full(9, 5.1), np.arange(9) + 1e6], 1).astype(np.float32)
    mean, std = moments(table)
    np.testing.assert_allclose(mean, [5.1, 1e6 + 4], rtol=1e-7)
    np.testing.assert_allclose(std, [1, np.arange(9).std()])


def test_what_is_not_an_array_is_read_once_and_gives_the_same(monkeypatch):
    lazy = Lazy()
    mean, deviation = moments(lazy)
    np.testing.assert_allclose(mean, [2.5] * 3)
    np.testing.assert_allclose(deviation, np.arange(6).std())
    assert sorted(lazy.reads) == list(range(6)) and all(type(i) is int for i in lazy.reads)
    monkeypatch.setattr(module, "_CHUNK", 100)
    x = RNG.integers(0, 256, (50, 3, 2, 3)).astype(np.uint8)
    wanted = moments(x[::-1])
    for other in (View(x, np.arange(50)[::-1]), jnp.asarray(x[::-1])):
        for a, b in zip(moments(other), wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_sample_is_evenly_spaced():
    x = np.arange(11, dtype=np.float32)[:, None]
    assert moments(x, sample=3)[0] == 5 and moments(x, sample=2)[1] == 5


def test_memory_is_bounded():
    x = RNG.integers(0, 256, (3000, 32, 32, 3), np.uint8)
    tracemalloc.start()
    try:
        moments(x)
        assert tracemalloc.get_traced_memory()[1] < 3 * module._CHUNK * 8 < x.size * 8
    finally:
        tracemalloc.stop()
