"""npz arrays and csv tables."""

import numpy as np
import pytest

from jaxrobust.data import sources, tabular
from jaxrobust.data.prepare import prepare
from jaxrobust.data.readers import arrays as tables
from jaxrobust.data.table import Table
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
        (
            {"x": nan_at((6, 5), (3, 2)) + [0, 0, np.inf, 0, 0], "y": Y},
            r"example \[0\] of 'x' holds",
        ),
        ({"x": nan_at((6, 4, 4, 1), (2, 0, 0, 0)), "y": Y}, r"example \[2\]"),
        ({"x": np.zeros(6), "y": Y}, "got float64"),
        ({"x": X, "y": np.array([0, 1, None, 2, 0, 1])}, "cannot be read"),
        ({"x": X, "y": np.array([0, 1, np.inf, 2, 0, 1])}, "row 2 is inf, no finite number"),
        ({"x": X, "y": np.eye(3)[[0, 1, 2, 0, 1, 2]]}, "argmax"),
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


def test_features_that_float32_would_flatten_stay_a_table(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 3))
    for far in (x + 1e9, x * 1e200, nan_at((6, 3), (1, 2)) + x):
        got = npz(tmp_path, x=far, y=Y).splits["train"].x
        assert isinstance(got, Table)
        np.testing.assert_array_equal(np.asarray(got), far)
        assert np.isfinite(tabular.fit(got).transform(got)).all()


@pytest.mark.parametrize("high", [1.004, 1.09])
def test_floats_a_little_above_one_are_clipped_not_taken_for_bytes(tmp_path, high):
    x = np.linspace(0, 1, 6 * 16).reshape(6, 4, 4, 1).astype(np.float32)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = high, -0.01
    got = npz(tmp_path, x=x, y=Y).splits["train"].x
    np.testing.assert_array_equal(got, np.round(np.clip(x, 0, 1) * 255))
    dark = np.round(x)
    dark[0, 0, 0, 0], dark[1, 0, 0, 0] = 2, 0  # bytes 0, 1 and 2 as floats
    np.testing.assert_array_equal(npz(tmp_path, x=dark, y=Y).splits["train"].x, dark)


def test_groups_of_an_npz_are_numbered_alike_in_all_splits(tmp_path):
    np.savez(
        tmp_path / "data.npz", x=X, y=Y, who=np.array(list("aabbcc")),
        x_test=X[:2], y_test=Y[:2], who_test=np.array(list("cz")),
    )  # fmt: skip
    loaded = tables.load_npz(
        str(tmp_path / "data.npz"), label_key=None, max_bytes=GIB, group_column="who"
    )
    assert loaded.splits["train"].groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.splits["test"].groups.tolist() == [2, 3]
    path = str(tmp_path / "data.npz")
    with pytest.raises(UserError, match="no array 'whom'.*'who'"):
        tables.load_npz(path, label_key=None, max_bytes=9, group_column="whom")


PRICES = "a,price\n" + "".join(f"1,{i}.5\n" for i in range(30))


def numbers(loaded):
    x = loaded.splits["train"].x
    return tabular.fit(x).transform(x, "trees")


def test_a_table(tmp_path):
    loaded = table(tmp_path, "a,label,b,id\n1,yes,2.5,p\n3,no,-4e1,q\n0,yes,0,r\n")
    train = loaded.splits["train"]
    np.testing.assert_allclose(numbers(loaded), [[1, 2.5], [3, -40], [0, 0]])
    assert loaded.class_names == ("no", "yes") and train.ids == ["p", "q", "r"]
    np.testing.assert_array_equal(train.labels, [1, 0, 1])


def test_the_last_column_is_the_label_if_none_has_its_name(tmp_path):
    loaded = table(tmp_path, "\ufeffa,b,kind\n1,2,7\n3,4,9\n")
    np.testing.assert_allclose(numbers(loaded), [[1, 2], [3, 4]])
    assert "last column, 'kind'" in loaded.notes[0]
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
        ("a,b,label\n1,2,x\n1,y\n", "row 1 .* has 2 values, the header has 3"),
        ("a,a,label\n1,2,x\n1,2,y\n", "more than once: 'a'"),
        ("a,label,split\n1,x,train\n2,y,tset\n", "unknown split 'tset'"),
        ("a,label,split\n1,x,test\n2,y,test\n", "split 'train'"),
        ("a,label\n", "no rows"),
        ("label\nx\ny\n", "no feature columns"),
        (PRICES, "'price' has 30 distinct.*label_column"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        table(tmp_path, text)


def test_missing_and_unknown_label_columns_are_named(tmp_path):
    with pytest.raises(UserError, match="no column 'nosiy'.*'noisy'"):
        table(tmp_path, "a,label,noisy\n1,x,y\n", label_key="nosiy")
    text = "age,kind,place\n" + "".join(f"{i}.5,{i % 2},{i % 3}\n" for i in range(30))
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(UserError, match="could hold labels: 'kind', 'place'. Did you mean 'kind'"):
        tables.load_csv(str(tmp_path / "data.csv"), label_key=None, label_column="kinds")
    found = tables.load_csv(str(tmp_path / "data.csv"), label_key=None, label_column="kind")
    assert found.class_names == ("0", "1") and found.feature_names == ("age", "place")


@pytest.mark.parametrize("missing", ["", "NA", "nan", "NaN", "None", "NULL", "-1", "todo"])
def test_rows_without_a_label_are_left_out_with_a_count(tmp_path, missing):
    rows = "".join(f"{i}.5,{missing if i % 5 == 3 else i % 2}\n" for i in range(20))
    (tmp_path / "data.csv").write_text("a,label\n" + rows)
    source = sources.load("csv", path=tmp_path / "data.csv", unlabeled="todo", test_fraction=0)
    assert source.class_names == ("0", "1") and len(source.train.labels) == 16
    assert source.train.rows.tolist() == [i for i in range(20) if i % 5 != 3]
    assert "4 of 20 examples of train have no label and are left out (rows 3, 8, 13, 18)" in (
        " ".join(source.notes)
    )


def test_groups_of_a_table_are_no_feature(tmp_path):
    (tmp_path / "data.csv").write_text("a,who,label\n1,p,x\n2,q,y\n3,p,x\n4,,y\n5,,x\n")
    loaded = tables.load_csv(str(tmp_path / "data.csv"), label_key=None, group_column="who")
    assert loaded.splits["train"].groups.tolist() == [0, 1, 0, 2, 3]
    assert loaded.feature_names == ("a",)


def test_a_mixed_table_is_prepared_with_an_encoder_of_the_training_rows(tmp_path):
    rows = "".join(f"{i * 7 % 40},{'red' if i % 3 else ''},c{i % 2}\n" for i in range(60))
    (tmp_path / "data.csv").write_text("size;color;label\n".replace(";", ",") + rows)
    source = sources.load("csv", path=tmp_path / "data.csv")
    data = prepare(source, seed=0, noise_kind="instance", noise_rate=0.2)
    assert data.encoder.feature_names == ("size", "color=(missing)")
    for part in (data.train, data.validation, data.test):
        assert part.x.dtype == np.float32 and part.x.shape == (len(part.labels), 2)
        np.testing.assert_array_equal(part.x, data.encoder.transform(part.table))
    median = np.median(data.encoder.transform(data.train.table, "trees")[:, 0])
    assert data.encoder.center[0] == median
    other = prepare(source._replace(train=source.train._replace(x=source.train.x[::-1])), seed=0)
    assert other.manifest.fingerprint != data.manifest.fingerprint


@pytest.mark.parametrize("top", [1.3, 2.0, 7.5])
def test_float_images_between_the_two_ranges_are_refused(top):
    x = np.linspace(0, top, 2 * 5 * 5).reshape(2, 5, 5)
    with pytest.raises(UserError, match=r"use \[0, 255\] or \[0, 1\]"):
        tables.as_examples(x, "x", "a.npz")
    whole = np.round(x * 2)
    assert tables.as_examples(whole, "x", "a.npz").max() == round(top * 2)
