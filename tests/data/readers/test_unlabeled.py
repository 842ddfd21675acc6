"""Examples to predict."""

import numpy as np
import pytest

from jaxrobust.data import tabular
from jaxrobust.data.readers.unlabeled import load_inputs
from jaxrobust.data.table import from_frame
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
    trained = tabular.fit(from_frame({"a": [1.0, 3, 5], "b": [2.0, 4, 7], "gone": [1, 1, 1]}))
    path = tmp_path / "a.csv"
    path.write_text("kind,b,id,a\nx,2,p,1\ny,4,q,3\n")
    x, names = load_inputs(path, like=(2,), encoder=trained)
    wanted = trained.transform(from_frame({"a": [1.0, 3], "b": [2.0, 4]}))
    np.testing.assert_array_equal(x, wanted)
    assert names == ["p", "q"]
    path.write_text("kind,b\nx,2\ny,4\n")
    with pytest.raises(UserError, match="lacks the columns 'a'"):
        load_inputs(path, like=(2,), encoder=trained)


def test_columns_of_an_array_are_found_by_place(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 3)) + 1e9
    encoder = tabular.fit(from_frame(x))
    np.save(tmp_path / "a.npy", x[:4])
    np.testing.assert_array_equal(
        load_inputs(tmp_path / "a.npy", (3,), encoder)[0], encoder.transform(from_frame(x[:4]))
    )
    np.save(tmp_path / "b.npy", x[:4, :2])
    with pytest.raises(UserError, match="table of 3 columns"):
        load_inputs(tmp_path / "b.npy", (3,), encoder)


def test_a_table_for_a_run_without_names_is_taken_as_it_is(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("b,label,a\n2,x,1\n4,y,3\n")
    np.testing.assert_array_equal(load_inputs(path, like=(2,))[0], [[2, 1], [4, 3]])
    path.write_text("b,label,a\n2,x,red\n4,y,3\n")
    with pytest.raises(UserError, match="column 'a', row 0 .* no number|should hold numbers"):
        load_inputs(path, like=(2,))
    path.write_text("id,label\n2,x\n4,y\n")
    with pytest.raises(UserError, match="a.csv has no feature columns beside 'id', 'label'"):
        load_inputs(path, like=(2,))
