"""Examples to predict."""

import numpy as np
import pytest

from jaxrobust.data.inputs import load_inputs
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
