"""Files: whole or not at all; what cannot be read is one clear error."""

import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxrobust import files
from jaxrobust.errors import UserError


@pytest.mark.parametrize("mode, old, new", [("w", "old\n", "é\n"), ("wb", b"old\n", b"\xff")])
def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path, mode, old, new):
    path = tmp_path / "a.txt"

    def content():
        return path.read_bytes() if "b" in mode else path.read_text(encoding="utf-8")

    with files.whole(path, mode) as file:
        file.write(old)
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), files.whole(path, mode) as file:
        file.write(new)
        raise KeyboardInterrupt
    assert content() == old and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with files.whole(path, mode) as file:
        file.write(new)
        assert content() == old
    assert content() == new and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    """Each writes a whole file; the last to finish wins."""
    path = tmp_path / "a.txt"
    first, second = files.whole(path), files.whole(path)
    one, two = first.__enter__(), second.__enter__()
    one.write(10 * "A")
    one.flush()
    two.write(4 * "B")
    two.flush()
    one.write(3 * "A")
    first.__exit__(None, None, None)
    assert path.read_text() == 13 * "A"
    second.__exit__(None, None, None)
    assert path.read_text() == 4 * "B"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files, "sync", lambda descriptor: done.append("file"))
    monkeypatch.setattr(files.os, "replace", lambda a, b: done.append("name"))
    monkeypatch.setattr(files, "sync_folder", lambda folder: done.append("folder"))
    with files.whole(tmp_path / "a.txt") as file:
        file.write("x")
    assert done == ["file", "name", "folder"]


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path):
    (tmp_path / "precious").write_text("old")
    (tmp_path / "a.json").symlink_to(tmp_path / "precious")
    with files.whole(tmp_path / "a.json") as file:
        file.write("new")
    assert (tmp_path / "precious").read_text() == "old"
    assert (tmp_path / "a.json").read_text() == "new" and not (tmp_path / "a.json").is_symlink()


def test_a_name_may_be_as_long_as_the_system_has_it(tmp_path):
    path = tmp_path / (250 * "x")
    with files.whole(path) as file:
        file.write("x")
    assert path.read_text() == "x"
    with pytest.raises(FileNotFoundError) as error, files.whole(tmp_path / "no" / "a"):
        pass
    assert error.value.filename == str(tmp_path / "no" / "a")


def test_a_pipe_is_written_to_and_stays(tmp_path):
    path, said = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: said.append(path.read_text()))
    reader.start()
    with files.whole(path) as file:
        file.write("hello")
    reader.join()
    assert said == ["hello"] and path.is_fifo()


def archive(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


RANDOM = archive(x=np.random.default_rng(0).integers(0, 256, 5000, np.uint8))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"hello", r"a.npz is not an .npz file\.$"),
        (b"", r"a.npz is not an .npz file\.$"),
        (RANDOM[:2000], r"a.npz is not an .npz file\.$"),
        (RANDOM[:2000] + bytes(100) + RANDOM[2100:], "a.npz is not an .npz file: it cannot be"),
        (archive(x=np.array([None])), "not an .npz file: it cannot be read .Object arrays"),
        (None, "No such file: '.*a.npz'"),
    ],
)
def test_an_archive_that_cannot_be_read_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_npz(tmp_path / "a.npz")


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"hello", "Labels file .*a.npy cannot be read as .npy"),
        (b"", "Labels file .*a.npy cannot be read as .npy"),
        (array(np.arange(100))[:300], "Labels file .*a.npy cannot be read as .npy"),
        (array(np.array([None])), "Labels file .*a.npy cannot be read as .npy"),
        (RANDOM, "Labels file .*a.npy cannot be read as .npy: it is an archive"),
        (None, "No such file: '.*a.npy'"),
    ],
)
def test_an_array_that_cannot_be_read_is_named(tmp_path, content, message, mapped):
    if content is not None:
        (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_npy(tmp_path / "a.npy", "Labels file ", mapped=mapped)


def header(version, text, size):
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(size, "little") + text


SHAPE = b"{'descr': '<f4', 'fortran_order': False, 'shape': %b}\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (header((1, 0), SHAPE % b"(-1, 2)", 2) + bytes(64), "claims a negative size"),
        (header((1, 0), SHAPE % b"(-2, -2)", 2) + bytes(16), "claims a negative size"),
        (header((1, 0), SHAPE % b"(10**9,)", 2), "cannot be read"),
        (header((2, 0), SHAPE % b"(1000000000000,)", 4), "claims to hold 1000000000000 numbers"),
        (header((3, 0), SHAPE % b"(1000000000000,)", 4), "in version 3.0 of .npy"),
        (header((9, 9), SHAPE % b"(2,)", 4) + bytes(8), "in version 9.9 of .npy"),
    ],
)
def test_claims_are_checked_before_memory_is_taken(tmp_path, content, message):
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", content)
    for read, name in ((files.read_npy, "a.npy"), (files.read_npz, "a.npz")):
        with pytest.raises(UserError, match=message) as error:
            read(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_what_can_be_read_is(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    np.testing.assert_array_equal(files.read_npy(tmp_path / "a.npy"), np.arange(3))
    assert isinstance(files.read_npy(tmp_path / "a.npy", mapped=True), np.memmap)
    (tmp_path / "a.npz").write_bytes(RANDOM)
    assert list(files.read_npz(tmp_path / "a.npz")) == ["x"]


def test_a_home_that_nobody_knows_is_part_of_a_name(tmp_path, monkeypatch):
    assert files.expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expanded("~/x") == tmp_path / "x"
