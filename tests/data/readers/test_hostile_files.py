"""Files from others: claims, bombs, programs in disguise, pipes. One line each, nothing started."""

import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from jaxrobust import files
from jaxrobust.data.readers import csv_columns, folder, images
from jaxrobust.errors import UserError


def header(shape, dtype="<f4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1000000000000,)"), "'x.npy' claims to hold 1000000000000 numbers"),
        (header("(1000000000000000000000,)"), "claims to hold"),
        (header("(3,)", "|O") + b"x" * 24, "Object arrays, which are pickled"),
        (header("(3,)")[:40], "cannot be read"),
        (b"hello", "is not in NumPy's .npy format"),
        (b"", "is not in NumPy's .npy format"),
    ],
)
def test_members_of_an_archive_that_are_no_arrays(tmp_path, content, message):
    path = archive(tmp_path / "x.npz", x=content)
    with pytest.raises(UserError, match=message):
        files.read_npz(path)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(1000000000000000000000,)"])
def test_a_claim_of_a_single_array(tmp_path, shape):
    (tmp_path / "x.npy").write_bytes(header(shape) + b"\0" * 12)
    with pytest.raises(UserError, match="claims to hold"):
        files.read_npy(tmp_path / "x.npy")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.npz", x=header("(250000,)") + bytes(10**6))
    assert files.read_npz(path)["x"].shape == (250000,)  # small: whatever its ratio
    monkeypatch.setattr(files, "_SMALL", 1000)
    with pytest.raises(UserError, match="times its size"):
        files.read_npz(path)


def test_more_than_memory_holds_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    np.savez(tmp_path / "x.npz", x=np.zeros(2000))
    with pytest.raises(UserError, match="of memory; this machine has"):
        files.read_npz(tmp_path / "x.npz")


def pictures(root):
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(3):
            noise = np.random.default_rng(9 * i + ord(name)).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(root / name / f"{i}{name}.png")
    return root


def load(path, **more):
    reading = dict(label_key=None, image_size=8, on_unreadable="error", max_bytes=1 << 30)
    return folder.load(str(path), **(reading | more))


def test_postscript_called_png_starts_no_interpreter(tmp_path, monkeypatch):
    root = pictures(tmp_path / "p")
    (root / "a" / "evil.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    )
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("started"))
    with pytest.raises(UserError, match="evil.png cannot be read.*on_unreadable=skip"):
        load(root)
    loaded = load(root, on_unreadable="skip")
    assert len(loaded.splits["train"].labels) == 6 and "a/evil.png" in loaded.notes[-1]


def test_formats_are_decoders_only():
    assert {"EPS", "WMF", "PSD", "FITS", "PCD"}.isdisjoint(images.FORMATS)


def test_too_many_pixels_and_bytes_are_unreadable(tmp_path, monkeypatch):
    root = pictures(tmp_path / "p")
    monkeypatch.setattr(images, "MAX_PIXELS", 60)
    with pytest.raises(UserError, match="8 x 8 are too many pixels"):
        load(root)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 20)
    with pytest.raises(UserError, match="MiB, too much for an image"):
        load(root)


def test_pipes_and_broken_links_are_counted_and_never_opened(tmp_path):
    root = pictures(tmp_path / "p")
    os.mkfifo(root / "a" / "z.png")
    os.mkfifo(root / "a" / "pipe")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "b" / "null.png").symlink_to("/dev/zero")
    loaded = load(root)
    assert len(loaded.splits["train"].labels) == 6
    assert loaded.notes == (
        "Left out: 3 pipes, sockets or devices (e.g. a/pipe), 1 broken links (e.g. b/gone.png).",
    )
    (root / "list.csv").write_text("path,label\na/z.png,x\nb/0b.png,y\n")
    with pytest.raises(UserError, match="a/z.png, which does not exist"):
        load(root / "list.csv")


def test_a_pipe_in_place_of_an_image_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "z.png")
    with pytest.raises(OSError, match="no regular file"):
        images.read_file(str(tmp_path / "z.png"))


def test_one_long_cell_costs_its_own_length(tmp_path):
    rows = [f"{i},{'x' * 300_000 if i == 7 else 'short'},c{i % 2}" for i in range(2000)]
    (tmp_path / "a.csv").write_text("\n".join(["n,caption,label", *rows]))
    columns = csv_columns.read(tmp_path / "a.csv").columns
    assert columns["caption"].nbytes == 2000 * 8 and len(columns["caption"][7]) == 300_000


def test_a_cell_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_columns, "MAX_CELL", 1000)
    (tmp_path / "a.csv").write_text('n,label\n1,"' + "x" * 5000 + "\n")
    with pytest.raises(UserError, match="a.csv is no CSV file: field larger than"):
        csv_columns.read(tmp_path / "a.csv")
