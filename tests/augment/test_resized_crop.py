"""Crop-then-resize as Pillow's, boxes as torchvision's RandomResizedCrop draws them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrobust.augment import resized_crop as resize
from jaxrobust.errors import UserError

crop_resize = jax.jit(resize.crop_resize, static_argnames="size")
center_crop = jax.jit(resize.resize_center_crop, static_argnums=1)
sample_boxes = jax.jit(resize.sample_boxes, static_argnums=(1, 2, 3), static_argnames="scale")
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (3, 40, 30, 3)).astype(np.uint8)


def pillow(image, box, size):
    top, left, height, width = box
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(cut.resize(size[::-1], Image.Resampling.BILINEAR)) / 255


def test_every_example_has_its_own_box():
    boxes = np.array([(0, 0, 40, 30), (3, 7, 9, 21), (39, 0, 1, 30)])  # down, both, a single row
    out = crop_resize(X, *(jnp.asarray(v) for v in boxes.T), size=(16, 12))
    assert out.shape == (3, 16, 12, 3) and out.dtype == jnp.float32
    for image, box, got in zip(X, boxes, out, strict=True):
        # Pillow rounds to a gray level after either direction.
        np.testing.assert_allclose(got, pillow(image, box, (16, 12)), rtol=0, atol=1.01 / 255)


def test_a_box_of_the_resulting_size_is_only_cut():
    box = (jnp.full((3,), v) for v in (4, 5, 16, 12))
    out = crop_resize(X, *box, size=(16, 12))
    np.testing.assert_allclose(out, X[:, 4:20, 5:17] / 255.0, rtol=0, atol=1e-6)


def test_floating_point_images_are_taken_as_0_to_1():
    np.testing.assert_allclose(resize.unit_range(X), X / 255, atol=1e-7)
    np.testing.assert_array_equal(resize.unit_range(X / np.float32(255)), X / np.float32(255))


def test_boxes_lie_inside_and_have_the_right_area_and_shape():
    top, left, h, w = (np.asarray(v) for v in sample_boxes(jax.random.key(0), 4000, 200, 300))
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= 200).all() and (left + w <= 300).all()
    area, ratio = h * w / 60_000, w / h
    assert 0.075 < area.min() < 0.1 and 0.85 < area.max() <= 1.0
    assert 0.74 < ratio.min() < 0.77 and 1.30 < ratio.max() < 1.35
    np.testing.assert_allclose(np.mean(np.log(ratio) > 0), 0.5, atol=0.08)
    assert (top[h < 200] == 0).any() and (top + h == 200)[h < 200].any()


def test_the_largest_central_box_where_none_fits():
    boxes = sample_boxes(jax.random.key(0), 2, 100, 1000, scale=(1.0, 1.0))
    np.testing.assert_array_equal(np.stack(boxes, 1), [[0, 433, 100, 133]] * 2)
    boxes = sample_boxes(jax.random.key(0), 2, 1000, 30, scale=(1.0, 1.0))
    np.testing.assert_array_equal(np.stack(boxes, 1), [[480, 0, 40, 30]] * 2)


def test_random_resized_crop_is_a_crop_by_the_sampled_boxes():
    key = jax.random.key(1)
    out = jax.jit(lambda k, x: resize.random_resized_crop(k, x, 8))(key, X)
    want = crop_resize(X, *sample_boxes(key, 3, 40, 30), size=(8, 8))
    np.testing.assert_allclose(out, want, atol=1e-6)
    assert float(out.min()) >= 0 and float(out.max()) <= 1


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (32, 32)])
def test_resize_center_crop_is_torchvisions(shape):
    x = RNG.integers(0, 256, (1, *shape, 3)).astype(np.uint8)
    short = 16  # 8/7 of 14
    full = tuple(int(short * side / min(shape)) for side in shape)
    top, left = (round((side - 14) / 2) for side in full)
    want = pillow(x[0], (0, 0, *shape), full)[top : top + 14, left : left + 14]
    got = center_crop(x, 14)[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1.01 / 255)


def test_a_center_crop_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match="center crop of 14"):
        resize.resize_center_crop(X, 14, resize=13)
