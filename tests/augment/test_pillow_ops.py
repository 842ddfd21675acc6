"""Every image operation does what Pillow does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxrobust.augment.affine import GEOMETRIC
from jaxrobust.augment.pillow_ops import Operation, apply
from jaxrobust.errors import UserError

FACTORS = (0.1, 0.37, 0.7, 1.0, 1.3, 1.9)
MAGNITUDES = {
    "identity": (0.0,),
    "invert": (0.0,),
    "equalize": (0.0,),
    "auto_contrast": (0.0,),
    "shear_x": (0.1, -0.3, 0.267),
    "shear_y": (0.1, -0.3, 0.267),
    "translate_x": (0.0, 0.05, -0.1, 0.453, -0.4028),
    "translate_y": (0.05, -0.1, 0.453, -0.4028),
    "rotate": (0.0, 30.0, -30.0, 6.67, 90.0, 180.0),
    "solarize": (256.0, 199.1, 128.0, 0.0),
    "posterize": (8.0, 5.0, 4.0, 1.0),
    "contrast": FACTORS,
    "brightness": FACTORS,
    "color": FACTORS,
    "sharpness": FACTORS,
}
CASES = [Operation(name, m) for name, values in MAGNITUDES.items() for m in values]
SHAPES = [(32, 32, 3), (8, 8, 1), (27, 19, 3)]
# One gray level, in at most this share of the pixels (1 for any); other operations are exact.
ROUNDED = {"auto_contrast": 1.0, "contrast": 0.005, "color": 0.005, "sharpness": 0.005}


@functools.cache
def images(shape):
    """Noise, soft images of little and much contrast, one with two values, a constant one."""
    rng = np.random.default_rng(0)
    soft = [rng.normal(120, s, shape).clip(0, 255) for s in (3, 20, 70)]
    two = np.where(rng.random(shape) < 0.1, 40, 200)
    return np.stack([rng.integers(0, 256, shape), *soft, two, np.full(shape, 7)]).astype(np.uint8)


@functools.cache
def ours(shape, interpolation, fill=128):
    """All cases of all images, in one batch: every example has its own operation."""
    x, cases = images(shape), np.arange(len(CASES))
    batch = np.concatenate([x] * len(cases))
    index = jnp.asarray(np.repeat(cases, len(x))[:, None])
    run = jax.jit(lambda x, i: apply(x, CASES, i, fill=fill, interpolation=interpolation))
    return np.asarray(run(batch, index)).reshape(len(cases), *x.shape)


def pillow(image, operation, resample=Image.Resampling.NEAREST, fill=128):
    """One [H, W, C] image through Pillow."""
    p = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    (w, h), (name, m) = p.size, operation
    fill = fill if p.mode == "L" else (fill,) * 3
    affine = {
        "shear_x": (1, m, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, m, 1, 0),
        "translate_x": (1, 0, m * w, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, m * h),
    }
    if name in affine:
        out = p.transform(p.size, Image.Transform.AFFINE, affine[name], resample, fillcolor=fill)
    elif name == "rotate":
        out = p.rotate(m, resample, fillcolor=fill)
    elif name in ("contrast", "brightness", "color", "sharpness"):
        out = getattr(ImageEnhance, name.title())(p).enhance(m)
    elif name in ("posterize", "solarize"):
        out = getattr(ImageOps, name)(p, int(m) if name == "posterize" else m)
    else:
        out = p if name == "identity" else getattr(ImageOps, name.replace("_", ""))(p)
    return np.asarray(out).reshape(image.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MAGNITUDES)
def test_equals_pillow(name, shape):
    for operation, got in zip(CASES, ours(shape, "nearest"), strict=True):
        if operation.name == name:
            want = np.stack([pillow(image, operation) for image in images(shape)])
            if name in ROUNDED:
                np.testing.assert_allclose(got.astype(int), want, atol=1, rtol=0)
                assert np.mean(got != want) <= ROUNDED[name]
            else:
                np.testing.assert_array_equal(got, want, err_msg=str(operation))


@pytest.mark.parametrize("name", GEOMETRIC)
def test_bilinear_is_within_one_gray_level_of_pillow(name):
    shape = SHAPES[0]
    for operation, got in zip(CASES, ours(shape, "bilinear"), strict=True):
        if operation.name == name:
            want = [pillow(i, operation, Image.Resampling.BILINEAR) for i in images(shape)]
            np.testing.assert_allclose(got.astype(int), np.stack(want), atol=1, rtol=0)


def test_gray_images_have_no_color_to_change():
    for operation, got in zip(CASES, ours((8, 8, 1), "nearest"), strict=True):
        if operation.name == "color":
            np.testing.assert_array_equal(got, images((8, 8, 1)))


def test_fill_is_what_moves_into_the_image():
    shift = CASES.index(Operation("translate_y", 0.453))
    moved = ours((8, 8, 1), "nearest", fill=9)[shift]
    np.testing.assert_array_equal(moved[:, 4:], 9)
    np.testing.assert_array_equal(moved[:, :4], images((8, 8, 1))[:, 4:])


def test_steps_are_applied_in_turn():
    operations = [Operation("solarize", 100.0), Operation("translate_x", 0.25)]
    x = images((8, 8, 1))[:2]
    out = np.asarray(apply(x, operations, jnp.array([[0, 1], [1, 0]])))
    for image, order, got in zip(x, ([0, 1], [1, 0]), out, strict=True):
        for i in order:
            image = pillow(image, operations[i])
        np.testing.assert_array_equal(got, image)
    assert set(out[0, :, 6:].flat) == {128} and set(out[1, :, 6:].flat) == {127}


def test_an_image_larger_than_the_policy_was_made_for():
    x = np.random.default_rng(1).integers(0, 256, (1, 64, 224, 3)).astype(np.uint8)
    for operation in (Operation("rotate", 17.0), Operation("shear_x", 0.2)):
        got = apply(x, [operation], jnp.zeros((1, 1), int))
        np.testing.assert_array_equal(got[0], pillow(x[0], operation))


def test_wrong_use_is_named():
    x, index = images((8, 8, 1)), jnp.zeros((6, 1), int)
    with pytest.raises(UserError, match=r"Did you mean 'rotate'\?"):
        apply(x, [Operation("rotat")], index)
    with pytest.raises(UserError, match="uint8 images"):
        apply(x / 255, CASES, index)
    with pytest.raises(UserError, match=r"\[6, 8, 4, 2\]"):
        apply(x.reshape(6, 8, 4, 2), CASES, index)
    with pytest.raises(UserError, match="interpolation 'cubic'"):
        apply(x, [Operation("rotate", 1.0)], index, interpolation="cubic")
