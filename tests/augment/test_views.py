"""Views: what happens to a batch before the network sees it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.augment import policies as augment_policy
from jaxrobust.augment import resized_crop
from jaxrobust.augment import views as augment
from jaxrobust.data.statistics import statistics
from jaxrobust.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.integers(1, 256, (64, 12, 10, 3)).astype(np.uint8)
MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
KEY = jax.random.key(0)
SETTINGS = {"mean": MEAN, "std": STD, "cutout": 4}


def standardized(x):
    return (np.asarray(x) / 255 - MEAN) / STD


@pytest.fixture(scope="module")
def views():
    """Every view, compiled once; the ImageNet ones to 8 x 8."""
    sizes = {"imagenet": 8, "imagenet_eval": 8}
    return {
        kind: jax.jit(augment.make_view(kind, image_size=sizes.get(kind), **SETTINGS))
        for kind in augment.VIEWS
    }


# The steps.


@pytest.mark.parametrize("mode, pad", [("constant", 4), ("reflect", 4), ("constant", 1)])
def test_a_random_crop_is_a_window_of_the_padded_image(mode, pad):
    out = np.asarray(augment.random_crop(KEY, X, pad=pad, mode=mode))
    padded = np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (12, 10), axis=(1, 2))
    match = (windows == out.transpose(0, 3, 1, 2)[:, None, None]).all(axis=(3, 4, 5))
    np.testing.assert_array_equal(match.sum(axis=(1, 2)), 1)
    used = match.any(axis=0)
    assert used.any(axis=1).all() and used.any(axis=0).all()  # every shift, both ways


def test_half_of_the_images_are_mirrored():
    out = np.asarray(augment.random_flip(KEY, X))
    mirrored = (out == X[:, :, ::-1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(out[~mirrored], X[~mirrored])
    assert 20 < mirrored.sum() < 44
    np.testing.assert_array_equal(augment.random_flip(KEY, out), X)  # the same are mirrored back


@pytest.mark.parametrize("size", [4, 5, 10])
def test_cutout_removes_one_square_clipped_at_the_border(size):
    x = np.repeat(X, 8, axis=0)
    out = np.asarray(augment.random_cutout(KEY, x, size=size))
    removed = (out == 0).all(axis=3)
    np.testing.assert_array_equal(out[~removed], x[~removed])
    np.testing.assert_array_equal(removed, removed.any(2)[:, :, None] & removed.any(1)[:, None, :])
    half = size // 2
    for marked in (removed.any(axis=2), removed.any(axis=1)):
        side = marked.shape[1]
        boxes = {(max(c - half, 0), min(c + half, side)) for c in range(side)}
        ends = (np.flatnonzero(row)[[0, -1]] + [0, 1] for row in marked)
        assert {tuple(e.tolist()) for e in ends} == boxes


def test_gray_cutout_keeps_its_size_at_the_upper_and_left_border():
    x = jnp.zeros((400, 8, 8, 1))
    out = np.asarray(augment.random_cutout(KEY, x, size=4, kind="gray"))[..., 0]
    assert set(np.unique(out)) == {0, 128}
    for image in out:
        rows, columns = (np.flatnonzero(image.any(axis=a)) for a in (1, 0))
        for covered in (rows, columns):
            first, size = covered[0], len(covered)
            assert size == min(4, 8 - first)  # clipped only where it leaves at the far side
    # Centers 0, 1 and 2 of 8 all give a square that begins at 0.
    first_rows = np.array([np.flatnonzero(image.any(axis=1))[0] for image in out])
    np.testing.assert_allclose((first_rows == 0).mean(), 3 / 8, atol=0.1)


def test_cutout_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match="Cutout of 16 .* 12 x 10: set it to 5"):
        augment.random_cutout(KEY, X)


def test_reflecting_more_than_the_image_is_refused():
    with pytest.raises(UserError, match="Reflecting 10"):
        augment.random_crop(KEY, X, pad=10, mode="reflect")


def test_normalize_is_the_same_for_uint8_and_floating_point():
    got = augment.normalize(jnp.asarray(X), MEAN, STD)
    np.testing.assert_allclose(got, standardized(X), atol=1e-5)
    np.testing.assert_allclose(augment.normalize(X / np.float32(255), MEAN, STD), got, atol=1e-5)
    np.testing.assert_allclose(augment.normalize(X, 0.5, 0.25), (X / 255 - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize("mean, x", [((0.5, 0.5), X), (0.5, X.astype(np.int32))])
def test_normalize_refuses_what_does_not_fit(mean, x):
    with pytest.raises(UserError):
        augment.normalize(x, mean, 1.0)


# The views.


def test_a_view_is_its_steps(views):
    @jax.jit
    def steps(x):
        keys = [jax.random.fold_in(KEY, i) for i in range(4)]
        flipped = augment.random_flip(keys[1], augment.random_crop(keys[0], x))
        strong = augment_policy.auto_augment(keys[2], flipped)
        strong = augment.random_cutout(keys[3], strong, size=4)
        return flipped, strong, resized_crop.resize_center_crop(x, 8) * 255

    kinds = ("crop_flip", "strong", "imagenet_eval")
    for kind, x in zip(kinds, steps(jnp.asarray(X)), strict=True):
        np.testing.assert_allclose(views[kind](KEY, X), standardized(x), atol=2e-5)
    np.testing.assert_allclose(views["none"](KEY, X), standardized(X), atol=2e-5)


@pytest.mark.parametrize("kind", augment.VIEWS)
def test_a_view_depends_on_the_key_and_each_example_alone(kind, views):
    out = views[kind](KEY, X)
    side = (8, 8) if kind.startswith("imagenet") else (12, 10)
    assert out.shape == (64, *side, 3) and out.dtype == jnp.float32
    np.testing.assert_array_equal(out, views[kind](KEY, X))
    others = np.concatenate([X[:3], 255 - X[3:]])
    np.testing.assert_array_equal(views[kind](KEY, others)[:3], out[:3])
    same = np.array_equal(out, views[kind](jax.random.key(1), X))
    assert same == (kind in ("none", "imagenet_eval"))


@pytest.fixture
def cropped(views):
    return np.asarray(views["crop_flip"](KEY, X))


def test_float64_mode_changes_nothing(cropped, views, x64):
    out = views["crop_flip"](KEY, X)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, cropped, atol=1e-6)


def test_a_batch_of_one_and_gray_digits():
    view = jax.jit(augment.make_view("strong", mean=0.3, std=0.4, cutout=4, flip=False))
    out = view(KEY, X[:1, :8, :8, :1])
    assert out.shape == (1, 8, 8, 1) and bool(jnp.isfinite(out).all())


def test_floating_point_images_get_the_same_view(views):
    unit = (X / 255).astype(np.float32)
    np.testing.assert_allclose(views["crop_flip"](KEY, unit), views["crop_flip"](KEY, X), atol=2e-5)
    np.testing.assert_array_equal(augment.as_uint8(unit), X)  # what the policies work on
    assert augment.as_uint8(unit).dtype == jnp.uint8


def test_zero_leaves_a_step_out():
    view = augment.make_view("crop_flip", mean=MEAN, std=STD, pad=0, flip=False)
    np.testing.assert_allclose(view(KEY, X), standardized(X), atol=1e-5)


def test_every_view_has_the_image_size_asked_for(views):
    got = jax.jit(augment.make_view("none", image_size=8, **SETTINGS))(KEY, X)
    np.testing.assert_allclose(got, views["imagenet_eval"](KEY, X), atol=1e-6)


def test_tables_are_only_standardised():
    table = RNG.normal(3, 2, (50, 4)).astype(np.float32)
    mean, std = statistics(table)
    out = np.asarray(augment.make_view("none", mean=mean, std=std)(KEY, table))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-5)
    with pytest.raises(UserError, match="Tables have the view 'none' only"):
        augment.make_view("crop_flip", mean=mean, std=std)(KEY, table)


@pytest.mark.parametrize(
    "kind, setting, message",
    [
        ("stronk", {}, r"Did you mean 'strong'\?"),
        ("crop_flip", {"pad_mode": "constnt"}, r"Did you mean 'constant'\?"),
        ("crop_flip", {"pad": -1}, "pad and cutout"),
        ("none", {"std": (0.1, 0.0, 0.1)}, "standard deviations"),
        ("strong", {"interpolation": "bicubic"}, "interpolation 'bicubic'"),
    ],
)
def test_wrong_settings_are_named_before_any_data_is_seen(kind, setting, message):
    with pytest.raises(UserError, match=message):
        augment.make_view(kind, **{**SETTINGS, **setting})


# Mixup.


def test_cifar_constants_are_the_papers():
    np.testing.assert_allclose(np.array(augment.CIFAR_MEAN) * 255, [125.3, 123.0, 113.9])
    np.testing.assert_allclose(np.array(augment.CIFAR_STD) * 255, [63.0, 62.1, 66.7])


def test_mixup_shares_are_beta_distributed_and_partners_a_permutation():
    draw, shares = jax.jit(lambda key: augment.mixup_pairs(key, 6, 0.5)), []
    for seed in range(300):
        partner, share = draw(jax.random.key(seed))
        assert sorted(np.asarray(partner)) == list(range(6))
        assert (np.asarray(share) == share[0]).all() and share[0] >= 0.5
        shares.append(float(share[0]))
    # The mean of max(l, 1 - l), l ~ Beta(1/2, 1/2).
    np.testing.assert_allclose(np.mean(shares), 0.5 + 1 / np.pi, atol=0.03)


def test_mix_mixes_images_and_targets_alike():
    partner, share = jnp.array([1, 2, 0]), jnp.full((3,), 0.75)
    targets = jax.nn.one_hot(jnp.arange(3), 3)
    np.testing.assert_allclose(
        augment.mix(targets, partner, share),
        [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]],
        rtol=1e-6,
    )
    images = targets[:, :, None, None] * jnp.array([1.0, 2.0])[None, None, None, :]
    np.testing.assert_allclose(
        augment.mix(images, partner, share)[:, :, 0, 1],
        2 * augment.mix(targets, partner, share),
        rtol=1e-6,
    )


def test_mix_needs_floating_point_values():
    with pytest.raises(UserError, match="floating-point"):
        augment.mix(jnp.arange(4), jnp.arange(4), jnp.ones(4))
