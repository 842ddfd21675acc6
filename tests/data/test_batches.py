"""Batches: every example once, the same again for the same key, the last one masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.data import batches
from jaxrobust.data.examples import View


@pytest.mark.parametrize("n, size", [(10, 4), (12, 4), (3, 3), (7, 1), (5, 5)])
def test_an_epoch_meets_every_row_once(n, size):
    rows = jnp.arange(100, 100 + n)
    order = batches.shuffled(jax.random.key(0), rows, size)
    assert order.index.shape == (batches.num_steps(n, size), size)
    met = np.asarray(order.index)[np.asarray(order.where)]
    assert sorted(met) == list(range(100, 100 + n))
    filled = np.asarray(order.index)[~np.asarray(order.where)]
    assert set(filled) <= set(met)


def test_the_short_last_batch_can_be_left_out():
    order = batches.shuffled(jax.random.key(0), jnp.arange(10), 4, drop_last=True)
    assert order.index.shape == (2, 4) and order.where.all()
    assert len(set(np.ravel(order.index))) == 8


def test_order_depends_on_the_key_alone():
    rows = jnp.arange(50)
    a, b = (batches.shuffled(jax.random.key(3), rows, 8) for _ in range(2))
    c = batches.shuffled(jax.random.key(4), rows, 8)
    np.testing.assert_array_equal(a.index, b.index)
    assert (a.index != c.index).any()


@pytest.mark.parametrize("power, places", [(0.0, [15, 15, 0, 15]), (0.5, [26, 13, 0, 6])])
def test_classes_are_met_as_often_as_asked(power, places):
    labels = jnp.array(np.repeat([0, 1, 3], [32, 8, 2]))  # 42 rows, and none of class 2
    labels = jnp.concatenate([labels, jnp.array([0, 0, 0])])
    order = batches.shuffled(jax.random.key(0), jnp.arange(45), 8)
    found = batches.balanced(jax.random.key(1), order, labels, 4, power)
    np.testing.assert_array_equal(found.where, order.where)
    index = np.asarray(found.index)
    met = index[np.asarray(found.where)]
    counts = np.bincount(np.asarray(labels)[met], minlength=4)
    assert counts.sum() == 45 and np.abs(counts - places).max() <= 1
    for c in (0, 1, 3):
        times = np.bincount(met, minlength=45)[np.asarray(labels) == c]
        assert times.max() - times.min() <= 1
    assert set(index[~np.asarray(found.where)]) <= set(met)


def test_rows_that_are_not_trained_on_are_never_drawn():
    labels = jnp.array(np.arange(60) % 3)
    rows = jnp.arange(0, 60, 7)
    order = batches.shuffled(jax.random.key(0), rows, 4)
    for epoch in range(5):
        found = batches.balanced(jax.random.key(epoch), order, labels, 3, 0.0)
        assert set(np.ravel(found.index)) <= set(np.asarray(rows))


def test_a_balanced_order_is_random_in_its_places_and_in_a_large_classs_choice():
    labels = jnp.array(np.repeat([0, 1], [90, 10]))
    orders = [batches.shuffled(jax.random.key(e), jnp.arange(100), 10) for e in range(20)]
    drawn = [
        np.asarray(batches.balanced(jax.random.key(100 + e), o, labels, 2, 0.0).index)
        for e, o in enumerate(orders)
    ]
    rare = np.mean([d >= 90 for d in drawn], axis=(0, 2))  # per batch, over epochs
    np.testing.assert_allclose(rare, 0.5, atol=0.12)
    times = np.bincount(np.ravel(drawn), minlength=100)[:90]
    assert times.min() > 4 and times.max() < 19  # 20 epochs of 50 places for 90 examples


def test_cycled_rows_come_again_only_after_all_have_come():
    index = batches.cycled(jax.random.key(1), jnp.arange(6), steps=5, batch_size=3)
    flat = np.ravel(index)
    assert index.shape == (5, 3)
    assert sorted(flat[:6]) == sorted(flat[6:12]) == list(range(6))


def test_take_carries_the_index():
    data = {"x": jnp.arange(20.0).reshape(10, 2), "labels": jnp.arange(10)}
    batch = batches.take(data, jnp.array([3, 7]), jnp.array([True, False]))
    np.testing.assert_array_equal(batch["x"], [[6, 7], [14, 15]])
    np.testing.assert_array_equal(batch["labels"], [3, 7])
    np.testing.assert_array_equal(batch["index"], [3, 7])
    np.testing.assert_array_equal(batch["where"], [True, False])


class Decoded:
    """A source that has to be asked, as a folder of images."""

    def __len__(self):
        return 9

    def __getitem__(self, i):
        return np.full((2, 2, 3), i, np.uint8)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_streaming_keeps_the_order_whatever_the_threads(threads):
    index = np.array([[4, 1, 8], [0, 0, 7], [2, 3, 5]])
    found = list(batches.stream(Decoded(), index, threads))
    assert [f.shape for f in found] == [(3, 2, 2, 3)] * 3
    np.testing.assert_array_equal([f[:, 0, 0, 0] for f in found], index)


def test_a_view_streams_what_has_no_shape():
    """Rows of rows, of a source that says nothing of itself but its length."""
    found = next(batches.stream(View(Decoded(), np.array([8, 6, 2])), np.array([[2, 0]]), 0))
    np.testing.assert_array_equal(found[:, 0, 0, 0], [2, 8])
