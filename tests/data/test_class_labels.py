"""Class labels as people store them."""

import numpy as np
import pytest

from jaxrobust.data.class_labels import encode, similar, tidy
from jaxrobust.errors import UserError

NAT = np.datetime64("NaT")


@pytest.mark.parametrize(
    "labels, names, codes",
    [
        ([3, 7, 3, 10], ("3", "7", "10"), [0, 1, 0, 2]),
        (["b", "a", "b", "c"], ("a", "b", "c"), [1, 0, 1, 2]),
        (["10", "9", "10", "8"], ("8", "9", "10"), [2, 1, 2, 0]),
        (["001", "002", "001", "010"], ("001", "002", "010"), [0, 1, 0, 2]),
        (["1", "01", "1", "2"], ("01", "1", "2"), [1, 0, 1, 2]),
        ([2.0, -1.0, 2.0, 5.0], ("-1", "2", "5"), [1, 0, 1, 2]),
        ([True, False, True, True], ("0", "1"), [1, 0, 1, 1]),
        ([" a", "b ", "a", "b"], ("a", "b"), [0, 1, 0, 1]),
    ],
)
def test_class_names_are_the_distinct_labels_in_order(labels, names, codes):
    found, class_names = encode({"train": np.array(labels)})
    assert class_names == names
    assert found["train"].dtype == np.int32
    np.testing.assert_array_equal(found["train"], codes)


def test_a_class_absent_from_training_is_kept():
    codes, names = encode({"train": np.array([0, 2]), "test": np.array([1, 2, 5])})
    assert names == ("0", "1", "2", "5")
    np.testing.assert_array_equal(codes["train"], [0, 2])
    np.testing.assert_array_equal(codes["test"], [1, 2, 3])


def test_a_class_without_examples_can_be_named():
    codes, names = encode({"train": np.array(["b", "d"])}, names=("a", "b", "c", "d"))
    assert names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(codes["train"], [1, 3])


def test_numbers_in_one_split_and_text_in_another_are_the_same_classes():
    codes, names = encode({"train": np.array([1, 2]), "test": np.array(["2", "1"])})
    assert names == ("1", "2")
    np.testing.assert_array_equal(codes["test"], [1, 0])


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0.0, 1.5, 2.0], "row 1 is 1.5, a fraction; expected one label per example"),
        ([0.0, np.inf, 2.0], "row 1 is inf, no finite number"),
        ([4, 4, 4], "All labels are '4'"),
        ([None, np.nan], "No example has a label"),
        ([[0, 1], [1, 0]], r"row 0 holds \[0, 1\]; expected one label.*multi-label"),
        (["a", ["b"], "c"], "row 1 holds"),
        ([1, {2}, 3], "row 1 holds"),
        ([1, object(), 3], "row 1 is of type object"),
        (np.eye(3), r"shape \[3, 3\].*argmax"),
        (np.ones((3, 2), int), "multi-label"),
        (np.zeros(()), "shape"),
    ],
)
def test_labels_that_are_no_classes_are_refused_by_row(labels, message):
    with pytest.raises(UserError, match=message):
        encode({"train": labels})


NOTHING = [None, np.nan, NAT, "", " ", "NA", "nan", "None", "NULL", "<NA>"]


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("others", [["ant", "bee", "ant"], [2, 10, 2]])
def test_missing_labels_are_never_a_class(nothing, others):
    codes, names = encode({"train": [others[0], nothing, *others[1:]]})
    assert names == tuple(map(str, others[:2]))
    assert codes["train"].tolist() == [0, -1, 1, 0]


def test_pandas_columns_and_their_missing_values():
    pd = pytest.importorskip("pandas")
    for column in (
        pd.Series(["a", None, "b"]), pd.Series(["a", pd.NA, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
        pd.array([4, None, 7], dtype="Int64"), pd.Series([4.0, np.nan, 7.0]),
    ):  # fmt: skip
        codes, names = encode({"train": column})
        assert codes["train"].tolist() == [0, -1, 1]
        assert names in (("a", "b"), ("4", "7"))


def test_minus_one_is_missing_where_the_others_count_from_zero():
    assert encode({"train": np.array([-1, 0, 2])})[0]["train"].tolist() == [-1, 0, 1]
    assert encode({"train": ["-1", "0", "2"]})[0]["train"].tolist() == [-1, 0, 1]
    assert encode({"train": np.array([-1, 1, 1])})[1] == ("-1", "1")
    assert encode({"train": np.array([-2, -1, 0])})[1] == ("-2", "-1", "0")


def test_integers_beyond_64_bits_and_floats_in_texts():
    far = ["12345678901234567890123", "7"]
    assert encode({"train": far})[1] == ("7", far[0])
    assert encode({"train": [int(far[0]), 7]})[1] == ("7", far[0])
    assert encode({"train": np.array([2**64 - 1, 7], np.uint64)})[1] == ("7", str(2**64 - 1))
    assert encode({"train": ["1.0", "2.0", ""]})[1] == ("1", "2")


def test_an_own_word_for_unlabeled():
    codes, names = encode({"train": ["a", "todo", "b"], "test": ["todo", "b"]}, unlabeled="todo")
    assert names == ("a", "b") and codes["test"].tolist() == [-1, 1]
    assert encode({"train": ["a", "b"]}, names=("a", "b", "todo"), unlabeled="todo")[1] == names


def test_tidy_keeps_names_and_whole_numbers():
    assert tidy(np.array([[1], [2]])).tolist() == [1, 2]
    assert tidy([True, False]).tolist() == [1, 0]
    assert tidy([b"x", " y "]).tolist() == ["x", "y"]
    assert tidy(np.array([3.0, 4.0])).dtype == np.int64


def test_names_that_differ_in_case_or_spaces_only():
    assert similar(["cat", "Cat", "dog", " cat", "a  b", "a b"]) == [
        ("cat", "Cat"), ("cat", " cat"), ("a  b", "a b")
    ]  # fmt: skip
    assert similar(["cat", "dog", "cats"]) == []


def test_a_class_that_is_named_may_be_called_as_missing_values_are():
    codes, names = encode({"train": ["None", "a", "None"]}, names=("None", "a"))
    assert names == ("None", "a") and codes["train"].tolist() == [0, 1, 0]
    assert encode({"train": ["None", "a", "b"]})[0]["train"].tolist() == [-1, 0, 1]
