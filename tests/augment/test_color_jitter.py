"""Color jitter as torchvision defines it."""

import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxrobust.augment import color_jitter as color
from jaxrobust.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
UNIT = jnp.asarray(X, jnp.float32) / 255
NEUTRAL = np.array([1, 1, 1, 0], np.float32)
jitter = jax.jit(color.jitter)
ORDER = jnp.tile(jnp.arange(4)[None], (4, 1))


def only(step, value):
    """Factors [4, 4] that change one step, and leave the others neutral."""
    factor = np.tile(NEUTRAL, (4, 1))
    factor[:, step] = value
    return jnp.asarray(factor)


@pytest.mark.parametrize("step, name", [(0, "Brightness"), (1, "Contrast"), (2, "Color")])
@pytest.mark.parametrize("value", [0.6, 1.0, 1.4])
def test_each_step_is_pillows_up_to_rounding(step, name, value):
    got = jitter(UNIT, ORDER, only(step, value)) * 255
    want = [getattr(ImageEnhance, name)(Image.fromarray(i)).enhance(value) for i in X]
    np.testing.assert_allclose(got, np.stack(want), rtol=0, atol=1.3)


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.13, 0.5])
def test_hue_is_turned_in_hsv_space(shift):
    x = UNIT.at[0, 0, 0].set(0.3).at[0, 0, 1].set(jnp.array([0.5, 0.5, 0.1]))  # gray, and a tie
    got = jitter(x, ORDER, only(color.HUE, shift))

    def turn(rgb):
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb((h + shift) % 1, s, v)

    want = np.apply_along_axis(turn, -1, np.asarray(x, np.float64))
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_the_steps_come_in_the_order_given():
    orders = np.array(list(itertools.permutations(range(4))))
    factor = np.tile(np.array([0.7, 1.4, 0.6, 0.15], np.float32), (24, 1))
    x = jnp.tile(UNIT[:1], (24, 1, 1, 1))
    got = jitter(x, jnp.asarray(orders), jnp.asarray(factor))
    for out, order in zip(got, orders, strict=True):
        want = UNIT
        for step in order:
            want = jitter(want, ORDER, only(step, factor[0, step]))
        np.testing.assert_allclose(out, want[0], atol=1e-5)
    assert len({tuple(np.round(np.asarray(out).ravel(), 4)) for out in got}) >= 12


def test_factors_are_drawn_evenly():
    x = np.full((2000, 1, 1, 3), 0.5, np.float32)
    only_brightness = functools.partial(color.color_jitter, contrast=0, saturation=0, hue=0)
    factor = np.asarray(jax.jit(only_brightness)(jax.random.key(0), x))[:, 0, 0, 0] / 0.5
    assert 0.6 <= factor.min() < 0.61 and 1.39 < factor.max() <= 1.4001
    np.testing.assert_allclose(factor.mean(), 1.0, atol=0.02)


def test_pure_and_by_example():
    run = jax.jit(color.color_jitter)
    out = run(jax.random.key(0), X)
    assert out.dtype == jnp.float32 and out.shape == X.shape
    assert float(out.min()) >= 0 and float(out.max()) <= 1
    np.testing.assert_array_equal(out, run(jax.random.key(0), X))
    others = np.concatenate([X[:1], 255 - X[1:]])
    np.testing.assert_allclose(run(jax.random.key(0), others)[0], out[0], atol=1e-6)
    assert (np.asarray(out[0]) != np.asarray(run(jax.random.key(1), X)[0])).any()


def test_gray_images_have_neither_saturation_nor_hue():
    x = UNIT[..., :1]
    factor = jnp.tile(jnp.array([[1.0, 1.0, 0.3, 0.4]]), (4, 1))
    np.testing.assert_allclose(jitter(x, ORDER, factor), x, atol=1e-6)


def test_wrong_use_is_named():
    key = jax.random.key(0)
    with pytest.raises(UserError, match="1 or 3"):
        color.color_jitter(key, UNIT[..., :2])
    with pytest.raises(UserError, match="hue at most 0.5"):
        color.color_jitter(key, UNIT, hue=0.6)
