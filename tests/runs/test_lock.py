"""The lock of a workdir: one owner; a killed owner's is taken over, another host's is not."""

import json
import multiprocessing
import os
import socket
import time

import pytest

from jaxrobust.errors import UserError
from jaxrobust.runs import lock
from jaxrobust.runs.lock import locked


def test_it_names_its_owner_and_goes_with_it(tmp_path):
    with locked(tmp_path):
        owner = json.loads((tmp_path / "lock").read_text())
        assert owner["host"] == socket.gethostname() and owner["pid"] == os.getpid()
        with (
            pytest.raises(UserError, match=rf"in use by another process: process {os.getpid()}"),
            locked(tmp_path),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_it_goes_when_the_run_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / "lock").exists()


def hold(folder, pipe):
    with locked(folder):
        pipe.send("held")
        time.sleep(60)


def test_a_killed_owner_leaves_it_and_the_next_takes_it_over(tmp_path):
    here, there = multiprocessing.Pipe()
    owner = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, there))
    owner.start()
    assert here.recv() == "held"
    with pytest.raises(UserError, match=f"process {owner.pid} on this host is training"):
        locked(tmp_path).__enter__()
    owner.kill()
    owner.join()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path):
    with locked(tmp_path):
        text = (tmp_path / "lock").read_text()
    (tmp_path / "lock").write_text(text)
    change(tmp_path / "lock", started="another time")
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() != text


@pytest.mark.parametrize("entries", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_that_of_another_host_or_container_is_never_broken(tmp_path, entries):
    with locked(tmp_path):
        text = (tmp_path / "lock").read_text()
    (tmp_path / "lock").write_text(text)
    change(tmp_path / "lock", **entries, pid=999_999_999)
    before = (tmp_path / "lock").read_text()
    with pytest.raises(UserError, match="If it does not run any more, remove .*lock and run"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "lock").read_text() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_one_that_cannot_be_read_is_not_broken(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with pytest.raises(UserError, match="its file cannot be read"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "lock").read_text() == text


def test_leftovers_of_killed_writers_go_and_those_of_others_stay(tmp_path):
    old = time.time() - 7200
    names = {
        ".a.csv.999999999.ab.partial": old,
        f".b.csv.{os.getpid()}.ab.partial": old,
        ".c.csv.999999999.ab.partial": time.time(),
        "mine.partial": old,
    }
    for name, modified in names.items():
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (modified, modified))
    with locked(tmp_path):
        left = {p.name for p in tmp_path.iterdir()} - {"lock"}
    assert left == set(names) - {".a.csv.999999999.ab.partial"}


def test_the_start_of_a_process_that_is_not_there_is_empty():
    assert lock._started(999_999_999) == "" != lock._started(os.getpid())


def test_where_nothing_can_be_written_the_lock_itself_is_named(tmp_path, monkeypatch):
    """As on a read-only mount, which refuses to remove even what is not there."""

    def refuse(self, *args, **options):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(lock.Path, "open", refuse)
    monkeypatch.setattr(lock.Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only file system") as error:
        locked(tmp_path).__enter__()
    assert error.value.filename == str(tmp_path / "lock")
