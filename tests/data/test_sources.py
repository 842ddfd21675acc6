"""Loading by name: digits, test shares held out, choosing classes, errors."""

import numpy as np
import pytest

from jaxrobust.data import sources
from jaxrobust.data.examples import View
from jaxrobust.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


def arrays(tmp_path, **more):
    """An npz of 40 tiny images of the classes 0, 1, 2, 3; pixel [0, 0] is the row."""
    x = np.zeros((40, 4, 4, 1), np.uint8)
    x[:, 0, 0, 0] = np.arange(40)
    path = tmp_path / "data.npz"
    np.savez(path, **({"x": x, "y": np.arange(40) % 4} | more))
    return str(path)


def test_digits(digits):
    assert digits.class_names == tuple("0123456789")
    assert digits.train.x.dtype == np.uint8 and digits.train.x.shape[1:] == (8, 8, 1)
    assert len(digits.train.labels) + len(digits.test.labels) == digits.num_rows == 1797
    from sklearn.datasets import load_digits

    theirs = load_digits()
    for split in (digits.train, digits.test):
        np.testing.assert_array_equal(split.labels, theirs.target[split.rows])
        np.testing.assert_array_equal(
            split.x[..., 0], np.round(theirs.images[split.rows] * 255 / 16)
        )


def test_the_test_share_is_stratified_disjoint_and_always_the_same(digits):
    assert not set(digits.train.rows) & set(digits.test.rows)
    counts = [np.bincount(s.labels, minlength=10) for s in (digits.test, digits.train)]
    np.testing.assert_allclose(counts[0] / (counts[0] + counts[1]), 0.3, atol=0.005)
    again = sources.load("digits")
    np.testing.assert_array_equal(again.test.rows, digits.test.rows)
    assert any("held out" in note for note in digits.notes)


def test_the_test_share_can_be_chosen(tmp_path):
    path = arrays(tmp_path)
    for fraction, count in ((None, 8), (0.5, 20)):
        source = sources.load("npz", path=path, test_fraction=fraction)
        assert len(source.test.labels) == count and len(source.train.labels) == 40 - count
        np.testing.assert_array_equal(source.test.x[:, 0, 0, 0], source.test.rows)
        np.testing.assert_array_equal(source.train.rows % 4, source.train.labels)
    assert sources.load("npz", path=path, test_fraction=0).test is None
    for fraction in (-0.1, 1, 0.001):
        with pytest.raises(UserError, match="test"):
            sources.load("npz", path=path, test_fraction=fraction)


def test_a_class_of_one_example_stays_in_training(tmp_path):
    path = arrays(tmp_path, y=np.array([0] * 39 + [1]))
    source = sources.load("npz", path=path, test_fraction=0.5)
    np.testing.assert_array_equal(np.bincount(source.train.labels), [19, 1])


def test_a_validation_split_is_the_test_if_there_is_none(tmp_path):
    more = {"x_valid": np.ones((3, 4, 4, 1), np.uint8), "y_valid": np.array([0, 1, 2])}
    source = sources.load("npz", path=arrays(tmp_path, **more))
    assert source.validation is None and len(source.test.labels) == 3
    assert len(source.train.labels) == 40 and any("validation" in n for n in source.notes)
    more |= {"x_test": np.ones((2, 4, 4, 1), np.uint8), "y_test": np.array([3, 3])}
    source = sources.load("npz", path=arrays(tmp_path, **more))
    assert len(source.validation.labels) == 3 and len(source.test.labels) == 2


def test_held_out_examples_have_true_labels(tmp_path):
    y = np.arange(40) % 4
    path = arrays(tmp_path, y_noisy=(y + 1) % 4)
    source = sources.load("npz", path=path, label_key="y_noisy")
    np.testing.assert_array_equal(source.true_labels, source.train.rows % 4)
    np.testing.assert_array_equal(source.train.labels, (source.train.rows + 1) % 4)
    np.testing.assert_array_equal(source.test.labels, source.test.rows % 4)


def test_only_the_first_classes(tmp_path):
    source = sources.load("npz", path=arrays(tmp_path), num_classes=3)
    assert source.class_names == ("0", "1", "2") and set(source.train.labels) == {0, 1, 2}
    assert (source.train.rows % 4 < 3).all() and source.num_rows == 40
    with pytest.raises(UserError, match="has 4"):
        sources.load("npz", path=arrays(tmp_path), num_classes=5)


def test_held_out_rows_of_data_on_disk_are_views(tmp_path):
    x = np.zeros((40, 4, 4, 3), np.uint8)
    x[:, 0, 0, 0] = np.arange(40)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(40) % 4)
    source = sources.load("npz", path=str(tmp_path), max_bytes=100)
    assert isinstance(source.train.x, View) and isinstance(source.train.x.x, np.memmap)
    assert source.train.x.shape == (32, 4, 4, 3)
    assert [source.train.x[i][0, 0, 0] for i in range(32)] == source.train.rows.tolist()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "digits", "path": "x"}, "neither a path"),
        ({"name": "digits", "data_dir": "x"}, "data_dir is for TFDS"),
        ({"name": "cifar10", "path": "x"}, "path is for folder"),
        ({"name": "npz"}, "needs a path"),
        ({"name": "csv"}, "needs a path"),
        ({"name": "folder"}, "needs a path"),
        ({"name": "npz", "path": "nowhere.npz"}, "No such file: 'nowhere.npz'"),
        ({"name": "folder", "path": "nowhere"}, "No such folder or file: 'nowhere'"),
    ],
)
def test_wrong_use_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        sources.load(**arguments)
    assert "\n" not in str(error.value)
