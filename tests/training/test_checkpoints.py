"""Checkpoints: what is read is what was written; damage is noticed; the one before is taken."""

import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.errors import RunError
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


def test_the_newest_comes_back_bit_for_bit(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c", keep=2)
    for seed in (1, 2, 3):
        manager.save(seed, tree(seed), {"epoch": seed, "sums": {"loss": 0.1}})
    assert manager.steps() == [2, 3]
    manager.close()
    arrays, place, problems = checkpoints.Checkpoints(tmp_path / "c").restore(tree(0))
    assert place == {"epoch": 3, "sums": {"loss": 0.1}} and problems == []
    assert checkpoints.digest(arrays) == checkpoints.digest(tree(3))


def test_one_of_another_structure_is_left_alone(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {"epoch": 1})
    manager.close()
    with pytest.raises(RunError, match="holds 4 arrays, this version of jaxrobust 5"):
        checkpoints.Checkpoints(tmp_path / "c").restore(tree(0) | {"more": jnp.zeros(2)})
    assert checkpoints.Checkpoints(tmp_path / "c").restore(tree(0))[1] == {"epoch": 1}


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.Checkpoints(tmp_path / "c").restore(tree(0)) is None


def test_a_damaged_one_is_set_aside_and_the_one_before_taken(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "c")
    for seed in (1, 2):
        manager.save(seed, tree(seed), {"epoch": seed})
    damage(tmp_path / "c" / "2")
    arrays, place, problems = manager.restore(tree(0))
    assert place["epoch"] == 1 and checkpoints.digest(arrays) == checkpoints.digest(tree(1))
    assert len(problems) == 1 and problems[0].startswith("Checkpoint 2 is damaged")
    assert manager.steps() == [1] and (tmp_path / "damaged" / "2").is_dir()
    manager.save(2, tree(2), {"epoch": 2})
    assert manager.restore(tree(0))[1]["epoch"] == 2


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
    assert manager.restore(tree(0))[1] == {"epoch": 5}
    manager.save(2, tree(2), {"epoch": 6})
    assert manager.restore(tree(0))[1] == {"epoch": 6} and manager.steps() == [2, 3]


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
    arrays, place, _ = checkpoints.Checkpoints(tmp_path / "c").restore(tree(0))
    assert place == {"epoch": 1} and checkpoints.digest(arrays) == checkpoints.digest(tree(1))
    manager.save(1, tree(5), {"epoch": 5})
    assert len(manager.steps()) == 1 and manager.restore(tree(0))[1] == {"epoch": 5}


def test_the_digest_sees_values_types_shapes_and_names():
    base = {"a": np.zeros(3, np.float32)}
    others = [{"a": np.ones(3, np.float32)}, {"a": np.zeros(3, np.float64)},
              {"a": np.zeros((3, 1), np.float32)}, {"b": np.zeros(3, np.float32)}]
    assert len({checkpoints.digest(t) for t in [base, *others]}) == 5
