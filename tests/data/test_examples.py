"""Numbering classes, taking examples, statistics."""

import numpy as np
import pytest

from jaxrobust.data.examples import Examples, View, encode, positions, rows_of, take, thumbnails
from jaxrobust.errors import UserError


class Lazy:
    """A data set that counts how many images were read."""

    shape, dtype, reads = (6, 40, 50, 3), np.dtype(np.uint8), 0

    def __len__(self):
        return 6

    def __getitem__(self, i):
        self.reads += 1
        return np.full((40, 50, 3), i, np.uint8)


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
        ([0.0, 1.5, 2.0], "example 1 is 1.5"),
        ([0.0, np.nan, 2.0], "example 1 is nan"),
        (["a", "", "b"], r"example \[1\] is missing"),
        ([4, 4, 4], "All labels are '4'"),
        ([[0, 1], [1, 0]], r"must be \[N\]"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        encode({"train": np.array(labels)})


def test_taking_from_memory_copies_and_from_disk_reads_nothing():
    rows = np.array([4, 1])
    x = np.arange(12).reshape(6, 2)
    some = take(Examples(x, np.arange(6), list("abcdef")), rows)
    np.testing.assert_array_equal(some.x, [[8, 9], [2, 3]])
    assert some.ids == ["e", "b"]
    np.testing.assert_array_equal(some.rows, rows)
    lazy = Lazy()
    view = take(Examples(lazy, np.arange(6), None, np.arange(6) * 10), np.array([5, 3, 2]))
    assert lazy.reads == 0 and view.x.shape == (3, 40, 50, 3) and view.x.dtype == np.uint8
    np.testing.assert_array_equal(view.rows, [50, 30, 20])
    again = take(view, np.array([2, 0]))
    assert isinstance(again.x, View) and again.x.x is lazy
    assert again.x[0][0, 0, 0] == 2 and again.x[1][0, 0, 0] == 5 and lazy.reads == 2
    np.testing.assert_array_equal(again.rows, [20, 50])


def test_rows_are_found_in_any_order():
    rows = np.array([7, 2, 9, 4])
    np.testing.assert_array_equal(positions(rows, np.array([4, 7, 4, 9])), [3, 0, 3, 2])
    np.testing.assert_array_equal(positions(rows, np.array([], int)), [])
    np.testing.assert_array_equal(positions(np.array([3, 1, 3]), np.array([3])), [0])
    for wanted, message in [([4, 5], r"1 of 2 rows are missing, e\.g\. row \[5\]"),
                            ([10, 1, 7], "2 of 3 rows are missing")]:
        with pytest.raises(UserError, match=message):
            positions(rows, np.array(wanted))


def test_rows_are_in_order_unless_it_is_said_otherwise():
    examples = Examples(np.zeros((3, 2)), np.zeros(3, np.int32))
    np.testing.assert_array_equal(rows_of(examples), [0, 1, 2])
    np.testing.assert_array_equal(rows_of(examples._replace(rows=np.array([5, 1, 8]))), [5, 1, 8])


def test_thumbnails_are_small():
    assert thumbnails(Lazy(), np.array([1, 5])).shape == (2, 20, 25, 3)
