"""Checkpoints: what is read is what was written; damage is noticed; the one before is taken."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.errors import RunError, UserError
from jaxrobust.training import checkpoints


def tree(seed):
    k1, k2 = jax.random.split(jax.random.key(seed))
    return {
        "params": {"w": jax.random.normal(k1, (40, 30)), "b": jnp.zeros((3,), jnp.bfloat16)},
        "step": jnp.int32(seed),
        "selected": {"w": np.asarray(jax.random.normal(k2, (4,)))},
        "none": {},
    }


def damage(folder):
    """Changes the largest file of a checkpoint, as a bad disk would."""
    file = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(lambda x: x.dtype, a) == jax.tree.map(lambda x: x.dtype, b)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_newest_comes_back_bit_for_bit(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c", keep=2)
    for seed in (1, 2, 3):
        manager.save(seed, tree(seed), {"epoch": seed, "sums": {"loss": 0.1}})
    assert manager.steps() == [2, 3]
    manager.close()
    for found in (
        checkpoints.Checkpoints(tmp_path / "c").restore(tree(0)),
        checkpoints.read(tmp_path / "c", tree(0)),
    ):
        assert found.place == {"epoch": 3, "sums": {"loss": 0.1}} and found.problems == []
        assert_same(found.arrays, tree(3))


def test_without_a_target_arrays_come_back_in_dictionaries(tmp_path):
    checkpoints.Checkpoints(tmp_path / "c").save(1, tree(1), {"epoch": 1})
    arrays = checkpoints.read(tmp_path / "c").arrays
    np.testing.assert_array_equal(arrays["params"]["w"], tree(1)["params"]["w"])
    assert arrays["params"]["b"].dtype == jnp.bfloat16


def test_one_of_another_structure_is_left_alone(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})
    before = contents(tmp_path)
    wider = tree(0) | {"params": {"w": jnp.zeros((41, 30)), "b": jnp.zeros((3,), jnp.bfloat16)}}
    for target, said in (
        (tree(0) | {"more": jnp.zeros(2)}, r"more is absent in it, here float32"),
        (wider, r"params.w is float32\[40, 30\] in it, here float32\[41, 30\]"),
    ):
        for read in (manager.restore, lambda t: checkpoints.read(tmp_path / "c", t)):
            with pytest.raises(RunError, match=said) as error:
                read(target)
            assert "damaged" not in str(error.value)
    assert contents(tmp_path) == before


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.Checkpoints(tmp_path / "c").restore(tree(0)) is None


def test_a_damaged_one_is_set_aside_and_the_one_before_taken(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    for seed in (1, 2):
        manager.save(seed, tree(seed), {"epoch": seed})
    damage(tmp_path / "c" / "2")
    before = contents(tmp_path)
    assert checkpoints.read(tmp_path / "c", tree(0)).place == {"epoch": 1}
    assert contents(tmp_path) == before  # Who only reads moves nothing.
    found = manager.restore(tree(0))
    assert found.place["epoch"] == found.step == int(found.folder.name) == 1
    assert_same(found.arrays, tree(1))
    assert len(found.problems) == 1 and found.problems[0].startswith("Checkpoint 2 is damaged")
    assert manager.steps() == [1] and (tmp_path / "damaged" / "2").is_dir()
    manager.save(2, tree(2), {"epoch": 2})
    assert manager.restore(tree(0)).place["epoch"] == 2


def test_when_all_are_damaged_it_says_so(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {})
    damage(tmp_path / "c" / "1")
    with pytest.raises(RunError, match="No checkpoint .* can be read"):
        manager.restore(tree(0))


def test_a_step_can_be_saved_again(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})
    manager.save(1, tree(5), {"epoch": 5})
    assert manager.restore(tree(0)).place == {"epoch": 5}
    manager.save(2, tree(2), {"epoch": 6})
    assert manager.restore(tree(0)).place == {"epoch": 6} and manager.steps() == [2, 3]


def test_a_full_disk_is_called_by_its_name(tmp_path, monkeypatch):
    manager = checkpoints.Checkpoints(tmp_path / "c")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manager._manager, "save", full)
    with pytest.raises(RunError, match="disk is full. Free some space"):
        manager.save(1, tree(1), {})


def test_the_only_one_stays_until_its_successor_is_written(tmp_path, monkeypatch):
    manager = checkpoints.Checkpoints(tmp_path / "c", keep=1)
    manager.save(1, tree(1), {"epoch": 1})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manager._manager, "save", full)
        with pytest.raises(RunError, match="disk is full"):
            manager.save(1, tree(5), {"epoch": 5})
    found = checkpoints.Checkpoints(tmp_path / "c").restore(tree(0))
    assert found.place == {"epoch": 1}
    assert_same(found.arrays, tree(1))
    manager.save(1, tree(5), {"epoch": 5})
    assert len(manager.steps()) == 1 and manager.restore(tree(0)).place == {"epoch": 5}


def flip(file, old, new):
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    "damage_it",
    [
        lambda c: flip(c / "place" / "metadata", b'"epoch": 2', b'"epoch": 1'),
        lambda c: flip(c / "place" / "metadata", b"epoch", b"epoci"),
        lambda c: (c / "place" / "metadata").unlink(),
        lambda c: flip(c / "arrays" / "_METADATA", b"w", b"v"),
        lambda c: (c / "arrays" / "manifest.ocdbt").write_bytes(b""),
        lambda c: flip(c / "digest.json", b"version", b"versiom\xff"),
        lambda c: (c / "digest.json").write_text("{}"),
    ],
)
def test_one_byte_anywhere_is_damage(tmp_path, damage_it):
    """A digit of the progress as well as the arrays."""
    manager = checkpoints.Checkpoints(tmp_path / "c")
    for seed in (1, 2):
        manager.save(seed, tree(seed), {"epoch": seed})
    damage_it(tmp_path / "c" / "2")
    found = manager.restore(tree(0))
    assert found.place == {"epoch": 1} and "Checkpoint 2 is damaged" in found.problems[0]


def test_one_that_was_killed_before_its_digest_is_not_called_damaged(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})
    (tmp_path / "c" / "1" / "digest.json").unlink()
    (tmp_path / "c" / "2.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.read(tmp_path / "c", tree(0)) is None
    again = checkpoints.Checkpoints(tmp_path / "c")
    assert again.restore(tree(0)) is None
    again.save(1, tree(2), {"epoch": 1})
    assert_same(again.restore(tree(0)).arrays, tree(2))
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["1"]


def test_what_the_system_refuses_is_not_damage(tmp_path, monkeypatch):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})

    def refuse(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_hash", refuse)
        with pytest.raises(RunError, match="cannot be read: Too many open files"):
            manager.restore(tree(0))
    assert manager.restore(tree(0)).place == {"epoch": 1}


@pytest.mark.skipif(not checkpoints._has_descriptors(), reason="refused where there is no /proc")
@pytest.mark.parametrize("name", ["lr[0.1]", "back\\slash", "a:b", "st*r?", "{x}", "100%", "#1"])
def test_odd_names_of_folders(tmp_path, name):
    manager = checkpoints.Checkpoints(tmp_path / name / "c")
    for seed in (1, 2):
        manager.save(seed, tree(seed), {"epoch": seed})
    manager.close()
    for found in (
        checkpoints.read(tmp_path / name / "c", tree(0)),
        checkpoints.Checkpoints(tmp_path / name / "c").restore(tree(0)),
    ):
        assert found.place == {"epoch": 2} and found.problems == []
        assert_same(found.arrays, tree(2))


def test_odd_names_are_refused_where_there_is_no_way_round(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_has_descriptors", lambda: False)
    with pytest.raises(UserError, match=r"holds \[ \], which checkpoints cannot have"):
        checkpoints.Checkpoints(tmp_path / "lr[0.1]" / "c")


def test_a_disk_too_small_is_known_before_anything_is_written(tmp_path, monkeypatch):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    monkeypatch.setattr(
        checkpoints.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})
    )
    with pytest.raises(RunError, match="the disk is full. Free some space"):
        manager.save(1, tree(1), {})
    assert list((tmp_path / "c").iterdir()) == []


def test_copies_of_files_go_with_it_and_its_digest_covers_them(tmp_path):
    (tmp_path / "rows").write_text("one")
    beside = (tmp_path / "rows", tmp_path / "not there")
    manager = checkpoints.Checkpoints(tmp_path / "c", beside=beside)
    manager.save(1, tree(1), {"epoch": 1})
    (tmp_path / "rows").write_text("two")
    manager.save(2, tree(2), {"epoch": 2})
    found = manager.restore(tree(0))
    assert (found.folder / "rows").read_text() == "two"
    flip(tmp_path / "c" / "2" / "rows", b"two", b"twO")
    found = manager.restore(tree(0))
    assert found.step == 1 and (found.folder / "rows").read_text() == "one"
    assert "rows does not match its digest" in found.problems[0]


def test_folders_of_other_names_are_no_checkpoints(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})
    for name in ("²", "٣", "007", "2.x", ".DS_Store", "-3"):
        (tmp_path / "c" / name).mkdir()
    (tmp_path / "c" / "9").write_text("a file")
    assert checkpoints.saved_steps(tmp_path / "c") == manager.steps() == [1]
    assert checkpoints.Checkpoints(tmp_path / "c").restore(tree(0)).step == 1


def test_what_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    """Not even where the arrays were written and only the digest was not; others stay."""
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})
    before = contents(tmp_path)

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(RunError, match="the disk is full"):
        patch.setattr(checkpoints, "_write_digest", full)
        manager.save(2, tree(2), {"epoch": 2})
    assert contents(tmp_path) == before and manager.steps() == [1]


def test_leftovers_of_a_killed_writer_go_when_the_next_run_begins(tmp_path):
    checkpoints.Checkpoints(tmp_path / "c").save(1, tree(1), {"epoch": 1})
    (tmp_path / "c" / "2.orbax-checkpoint-tmp-5").mkdir()
    (tmp_path / "c" / "2.orbax-checkpoint-tmp-5" / "x").write_text("x")
    checkpoints.read(tmp_path / "c", tree(0))
    assert len(list((tmp_path / "c").iterdir())) == 2  # Who only reads removes nothing.
    checkpoints.Checkpoints(tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["1"]


def test_an_error_without_words_is_called_by_its_type():
    assert checkpoints._reason(KeyError()) == "KeyError"
    assert checkpoints._reason(ValueError("one\ntwo")) == "one"


def test_the_digest_says_which_version_wrote_it(tmp_path):
    checkpoints.Checkpoints(tmp_path / "c").save(1, tree(1), {"epoch": 1})
    digest = json.loads((tmp_path / "c" / "1" / "digest.json").read_text())
    assert digest["version"] == 1 and "place/metadata" in digest["files"]


@pytest.mark.parametrize("name", ["../../../../../../dev/zero", "/dev/zero", "place"])
def test_a_digest_names_files_of_its_own_checkpoint_alone(tmp_path, name):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    for seed in (1, 2):
        manager.save(seed, tree(seed), {"epoch": seed})
    path = tmp_path / "c" / "2" / "digest.json"
    digest = json.loads(path.read_text())
    digest["files"][name] = ""
    path.write_text(json.dumps(digest))
    found = checkpoints.read(tmp_path / "c", tree(0))
    assert found.step == 1 and f"({name} is missing)" in found.problems[0]


def test_a_pipe_in_a_checkpoint_does_not_hang(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    for seed in (1, 2):
        manager.save(seed, tree(seed), {"epoch": seed})
    path = tmp_path / "c" / "2" / "place" / "metadata"
    path.unlink()
    os.mkfifo(path)
    assert checkpoints.read(tmp_path / "c", tree(0)).step == 1
