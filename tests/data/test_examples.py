"""Taking examples, statistics."""

import numpy as np
import pytest

from jaxrobust.data.examples import Examples, View, positions, rows_of, take, thumbnails
from jaxrobust.errors import UserError


class Lazy:
    """A data set that counts how many images were read."""

    shape, dtype, reads = (6, 40, 50, 3), np.dtype(np.uint8), 0

    def __len__(self):
        return 6

    def __getitem__(self, i):
        self.reads += 1
        return np.full((40, 50, 3), i, np.uint8)


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
    for wanted, message in [
        ([4, 5], r"1 of 2 rows are missing, e\.g\. row \[5\]"),
        ([10, 1, 7], "2 of 3 rows are missing"),
    ]:
        with pytest.raises(UserError, match=message):
            positions(rows, np.array(wanted))


def test_rows_are_in_order_unless_it_is_said_otherwise():
    examples = Examples(np.zeros((3, 2)), np.zeros(3, np.int32))
    np.testing.assert_array_equal(rows_of(examples), [0, 1, 2])
    np.testing.assert_array_equal(rows_of(examples._replace(rows=np.array([5, 1, 8]))), [5, 1, 8])


def test_thumbnails_are_small():
    assert thumbnails(Lazy(), np.array([1, 5])).shape == (2, 20, 25, 3)
