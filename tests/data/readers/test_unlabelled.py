"""Examples to predict."""

import numpy as np
import pytest

from jaxrobust.data.readers.unlabelled import load_inputs
from jaxrobust.errors import UserError

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_arrays_are_read(tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "a.npz", x=X)
    for name in ("a.npy", "a.npz"):
        x, names = load_inputs(tmp_path / name, like=(3,))
        np.testing.assert_array_equal(x, X)
        assert names == ["0", "1", "2", "3", "4"]


def test_files_that_cannot_be_read_are_named(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([None]))
    np.savez(tmp_path / "pickled.npz", x=np.array([None]))
    np.savez(tmp_path / "other.npz", y=X)
    (tmp_path / "broken.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:50])
    (tmp_path / "broken.npy").write_text("hello")
    for name, message in [
        ("pickled.npy", "pickled.npy cannot be read as .npy"),
        ("pickled.npz", "pickled.npz is not an .npz file: it cannot be read"),
        ("broken.npy", "broken.npy cannot be read as .npy"),
        ("broken.npz", "broken.npz is not an .npz file"),
        ("other.npz", "other.npz has no array 'x'"),
        ("none.npz", "no such file or folder"),
    ]:
        with pytest.raises(UserError, match=message):
            load_inputs(tmp_path / name, like=(3,))


def test_columns_of_a_table_are_found_by_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("kind,b,id,a\nx,2,p,1\ny,4,q,3\n")
    x, names = load_inputs(path, like=(2,), feature_names=("a", "b"))
    np.testing.assert_array_equal(x, [[1, 2], [3, 4]])
    assert names == ["p", "q"]
    with pytest.raises(UserError, match="has no column 'c'; it has 'kind', 'b', 'id', 'a'"):
        load_inputs(path, like=(3,), feature_names=("a", "c", "b"))
    with pytest.raises(UserError, match="column 'kind' is not numeric"):
        load_inputs(path, like=(1,), feature_names=("kind",))


def test_a_table_for_a_run_without_names_is_taken_as_it_is(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("b,label,a\n2,x,1\n4,y,3\n")
    np.testing.assert_array_equal(load_inputs(path, like=(2,))[0], [[2, 1], [4, 3]])
    path.write_text("id,label\n2,x\n4,y\n")
    with pytest.raises(UserError, match="a.csv has no feature columns beside 'id', 'label'"):
        load_inputs(path, like=(2,))
