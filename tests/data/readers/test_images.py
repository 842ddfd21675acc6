"""The decoder: what a viewer shows, for every kind of image."""

import io

import numpy as np
import pytest
from PIL import Image, features

from jaxrobust.data.readers import images

RAMP = np.tile(np.arange(16, dtype=np.uint8) * 17, (16, 1))
COLOR = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(image, kind="PNG", channels=3, size=None, **options):
    return images.decode(encoded(image, kind, **options), size, channels)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_of_a_camera_is_undone(tag, kind):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # bright in the upper left corner
    turns = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1], 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = Image.fromarray(np.ascontiguousarray(turns[tag](upright)))
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    got = decoded(stored, kind, exif=exif, **options)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() < 40
    small = decoded(stored, kind, size=8, exif=exif, **options)
    assert small[:3, :3].mean() > 200 > 50 > small[5:, 5:].mean()


def test_sizes_are_those_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(COLOR[:8]), exif=exif)
    lazy = images.LazyImages(lambda i: data, ["a"])
    assert lazy.shape == (1, 16, 8, 3) and lazy[0].shape == (16, 8, 3)


def test_damaged_metadata_do_not_spoil_a_picture():
    data = encoded(Image.fromarray(COLOR), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(images.decode(data, None, 3), COLOR)


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_gray_keeps_its_levels(channels):
    def gray(values, kind="TIFF"):
        return decoded(Image.fromarray(values), kind, channels)[:, :, 0]

    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(gray(RAMP.astype(np.uint16) * 257, kind), RAMP)
    np.testing.assert_array_equal(gray(RAMP.astype(np.int32)), RAMP)
    np.testing.assert_array_equal(gray(RAMP.astype(np.int32) * 257), RAMP)
    np.testing.assert_array_equal(gray(RAMP.astype(np.int32) * 8_000_000), RAMP)
    np.testing.assert_array_equal(gray((RAMP / 255).astype(np.float32)), RAMP)
    np.testing.assert_array_equal(gray(RAMP.astype(np.float32)), RAMP)
    np.testing.assert_array_equal(gray(RAMP.astype(np.float32) * 257), RAMP)
    wild = RAMP.astype(np.float32)
    wild[0, 0], wild[0, 1] = np.nan, -5
    assert gray(wild)[0, :2].tolist() == [0, 0]


def test_transparent_parts_are_white():
    clear = np.dstack([COLOR, np.full((16, 16), 255, np.uint8)])
    clear[:8, :, 3] = 0
    got = decoded(Image.fromarray(clear))
    assert (got[:8] == 255).all()
    np.testing.assert_array_equal(got[8:], COLOR[8:])
    palette = Image.fromarray(RAMP % 2, "P")
    palette.putpalette([9, 9, 9, 50, 60, 70])
    got = decoded(palette, transparency=0)
    assert got[0, :2].tolist() == [[255] * 3, [50, 60, 70]]
    assert decoded(Image.fromarray(RAMP).convert("LA"), channels=1).tolist() == (
        RAMP[:, :, None].tolist()
    )


def test_other_color_spaces_are_those_of_pillow():
    for mode in ("CMYK", "YCbCr", "P", "1", "L"):
        image = Image.fromarray(COLOR).convert(mode)
        kind = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
        options = {"quality": 95} if kind == "JPEG" else {}
        data = encoded(image, kind, **options)
        shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(images.decode(data, None, 3), shown)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert got.shape == (8, 8, 3) and got[4, 4].tolist() == [255, 0, 0]


def test_types_are_read_by_content_and_by_every_usual_suffix():
    assert {".jfif", ".webp", ".tif", ".bmp", ".jpe", ".png", ".gif"} <= images.types()
    assert (".avif" in images.types()) == features.check("avif")
    for kind in (
        "BMP",
        "WEBP",
        "TIFF",
        "GIF",
        "PPM",
        "JPEG2000",
        *["AVIF"] * features.check("avif"),
    ):
        got = decoded(Image.fromarray(COLOR), kind)
        assert got.shape == COLOR.shape and np.abs(got.astype(int) - COLOR).mean() < 12


def test_heic_is_read_with_the_reader_and_named_without(tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif")
    assert ".heic" in images.types()
    got = decoded(Image.fromarray(COLOR), "HEIF", quality=95)
    assert np.abs(got.astype(int) - COLOR).mean() < 12


def test_one_channel_if_all_are_gray_of_any_depth():
    deep = encoded(Image.fromarray(RAMP.astype(np.uint16)))
    flat = encoded(Image.fromarray(RAMP))
    assert images.LazyImages([deep, flat].__getitem__, ["a", "b"]).channels == 1
    color = encoded(Image.fromarray(COLOR))
    assert images.LazyImages([deep, color].__getitem__, ["a", "b"]).channels == 3
