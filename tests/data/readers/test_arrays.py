"""npz arrays and csv tables."""

import numpy as np
import pytest

from jaxrobust.data.readers import arrays as tables
from jaxrobust.errors import UserError

GIB = 1 << 30


def npz(path, label_key=None, **arrays):
    np.savez(path / "data.npz", **arrays)
    return tables.load_npz(str(path / "data.npz"), label_key=label_key, max_bytes=GIB)


def table(path, text, label_key=None):
    (path / "data.csv").write_text(text)
    return tables.load_csv(str(path / "data.csv"), label_key=label_key)


X = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
Y = np.array(["cat", "dog", "cat", "emu", "dog", "cat"])


def test_images_and_string_labels(tmp_path):
    loaded = npz(tmp_path, x=X, y=Y, x_test=X[:2], y_test=np.array(["fox", "cat"]))
    assert loaded.class_names == ("cat", "dog", "emu", "fox")
    np.testing.assert_array_equal(loaded.splits["train"].x, X)
    np.testing.assert_array_equal(loaded.splits["train"].labels, [0, 1, 0, 2, 1, 0])
    np.testing.assert_array_equal(loaded.splits["test"].labels, [3, 0])
    np.testing.assert_array_equal(loaded.splits["train"].rows, np.arange(6))


@pytest.mark.parametrize(
    "x, want",
    [
        (X[..., 0], X[..., :1]),
        (X.astype(np.int64), X),
        (X.astype(np.float32), X),
        (X / 255, X),
        (X > 127, np.where(X > 127, 255, 0)),
    ],
)
def test_images_become_uint8(tmp_path, x, want):
    got = npz(tmp_path, x=x, y=Y).splits["train"].x
    assert got.dtype == np.uint8 and got.ndim == 4
    np.testing.assert_array_equal(got, want)


def test_features_become_float32(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 7))
    got = npz(tmp_path, x=x, y=Y).splits["train"].x
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, x, rtol=1e-6)


def test_a_folder_of_npy_files_that_stays_on_disk_when_large(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    small = tables.load_npz(str(tmp_path), label_key=None, max_bytes=GIB)
    large = tables.load_npz(str(tmp_path), label_key=None, max_bytes=10)
    assert not isinstance(small.splits["train"].x, np.memmap)
    assert isinstance(large.splits["train"].x, np.memmap)
    np.testing.assert_array_equal(large.splits["train"].x, X)


def nan_at(shape, where):
    x = np.zeros(shape)
    x[where] = np.nan
    return x


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"y": Y}, "no array 'x'; it has y"),
        ({"x": X}, "no array 'y'; it has x"),
        ({"x": X, "y": Y[:5]}, "6 examples, 'y' 5 labels"),
        ({"x": X, "y": Y, "x_test": X}, "'x_test' but not 'y_test'"),
        ({"x": X, "y": Y, "x_test": X[:, :4], "y_test": Y}, "differ in shape"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, "transpose it"),
        ({"x": X.astype(int) + 1, "y": Y}, r"in \[1, 256\]"),
        ({"x": X / 255 - 0.5, "y": Y}, "use .0, 255. or .0, 1."),
        ({"x": nan_at((6, 5), (3, 2)), "y": Y}, r"example \[3\] of 'x' holds NaN"),
        ({"x": nan_at((6, 4, 4, 1), (2, 0, 0, 0)), "y": Y}, r"example \[2\]"),
        ({"x": np.zeros(6), "y": Y}, "got float64"),
        ({"x": X, "y": np.array([0, 1, None, 2, 0, 1])}, "cannot be read"),
        ({"x": X, "y": np.array([0, 1, np.nan, 2, 0, 1])}, "example 2 is nan"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        npz(tmp_path, **arrays)


def test_a_file_that_is_no_npz_is_named(tmp_path):
    (tmp_path / "a.npz").write_text("hello")
    np.save(tmp_path / "b.npy", X)
    for name in ("a.npz", "b.npy"):
        with pytest.raises(UserError, match=f"{name} is not an .npz file"):
            tables.load_npz(str(tmp_path / name), label_key=None, max_bytes=GIB)
    with pytest.raises(UserError, match="holds no .npy files"):
        (tmp_path / "empty").mkdir()
        tables.load_npz(str(tmp_path / "empty"), label_key=None, max_bytes=GIB)
    (tmp_path / "empty/x.npy").write_text("hello")
    with pytest.raises(UserError, match="x.npy cannot be read"):
        tables.load_npz(str(tmp_path / "empty"), label_key=None, max_bytes=GIB)


def test_a_table(tmp_path):
    loaded = table(tmp_path, "a,label,b,id\n1,yes,2.5,p\n3,no,-4e1,q\n0,yes,0,r\n")
    train = loaded.splits["train"]
    np.testing.assert_allclose(train.x, [[1, 2.5], [3, -40], [0, 0]])
    assert loaded.class_names == ("no", "yes") and train.ids == ["p", "q", "r"]
    np.testing.assert_array_equal(train.labels, [1, 0, 1])


def test_the_last_column_is_the_label_if_none_has_its_name(tmp_path):
    loaded = table(tmp_path, "\ufeffa,b,kind\n1,2,7\n3,4,9\n")
    np.testing.assert_allclose(loaded.splits["train"].x, [[1, 2], [3, 4]])
    assert loaded.feature_names == ("a", "b")
    assert loaded.class_names == ("7", "9")


def test_a_split_column_and_rows_of_the_file(tmp_path):
    text = "a,label,split\n1,x,train\n2,y,test\n3,y,train\n4,z,val\n5,x,TEST\n"
    loaded = table(tmp_path, text)
    assert {k: v.rows.tolist() for k, v in loaded.splits.items()} == {
        "train": [0, 2], "test": [1, 4], "validation": [3]
    }  # fmt: skip
    assert loaded.class_names == ("x", "y", "z") and loaded.num_rows == 5


def test_a_second_label_column_is_given_and_label_is_the_truth(tmp_path):
    text = "a,label,noisy,split\n1,x,y,train\n2,y,y,train\n3,x,y,test\n"
    loaded = table(tmp_path, text, label_key="noisy")
    np.testing.assert_array_equal(loaded.splits["train"].labels, [1, 1])
    np.testing.assert_array_equal(loaded.true_labels, [0, 1])
    np.testing.assert_array_equal(loaded.splits["test"].labels, [0])
    assert loaded.splits["train"].x.shape == (2, 1) and loaded.feature_names == ("a",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b,label\n1,2,x\n1,,y\n", r"row 1 \(from 0\), column 'b': missing"),
        ("a,b,label\n1,2,x\n1,nan,y\n", r"row 1 \(from 0\), column 'b': nan"),
        ("a,b,label\n1,inf,x\n1,2,y\n", r"row 0 \(from 0\), column 'b': inf"),
        ("a,b,label\n1,2,x\n1,red,y\n", "column 'b' is not numeric .row 1 reads 'red'"),
        ("a,b,label\n1,2,x\n1,y\n", "row 1 .* has 2 values, the header has 3"),
        ("a,b,label\n1,2,x\n1,2,\n", r"example \[1\] is missing"),
        ("a,a,label\n1,2,x\n1,2,y\n", "a name of its own"),
        ("a,label,split\n1,x,train\n2,y,tset\n", "unknown split 'tset'"),
        ("a,label,split\n1,x,test\n2,y,test\n", "split 'train'"),
        ("a,label\n", "no rows"),
        ("label\nx\ny\n", "no feature columns"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        table(tmp_path, text)


def test_a_missing_label_column_is_named(tmp_path):
    with pytest.raises(UserError, match="no column 'nosiy'.*'noisy'"):
        table(tmp_path, "a,label,noisy\n1,x,y\n", label_key="nosiy")
