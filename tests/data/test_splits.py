"""Random shares of classes."""

import jax
import numpy as np
import pytest

from jaxrobust.data import splits
from jaxrobust.errors import UserError

KEY = jax.random.key(0)


def test_ranks_are_an_order_of_each_class():
    labels = np.array([2, 0, 2, 2, 0, 5])
    rank = splits.random_rank(labels, KEY)
    for c in (0, 2, 5):
        assert sorted(rank[labels == c]) == list(range((labels == c).sum()))


def test_every_order_of_a_class_is_as_likely():
    labels = np.repeat(np.arange(6000), 3)
    rank = splits.random_rank(labels, KEY).reshape(-1, 3)
    _, counts = np.unique(rank, axis=0, return_counts=True)
    assert len(counts) == 6
    np.testing.assert_allclose(counts, 1000, atol=5 * np.sqrt(1000 * 5 / 6))


@pytest.mark.parametrize("total", [0, 1, 7, 50, 111])
def test_quotas_are_proportional_and_add_up(total):
    counts = np.array([100, 10, 1, 0])
    quota = splits.quotas(counts, total)
    assert quota.sum() == total
    assert (np.abs(quota - counts * total / 111) < 1).all() and (quota <= counts).all()


def test_quotas_can_leave_one_of_each_class():
    np.testing.assert_array_equal(splits.quotas(np.array([2, 1, 0]), 3, leave=1), [1, 0, 0])


def test_stratified_share_keeps_the_class_shares():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    chosen = splits.stratified(labels, 20, 3, KEY)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [12, 6, 2])


def test_balanced_share_takes_the_same_of_every_class():
    labels = np.repeat([0, 1], [60, 5])
    chosen = splits.balanced(labels, 4, ("cat", "dog"), KEY)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [4, 4])
    with pytest.raises(UserError, match="'dog' has only 5"):
        splits.balanced(labels, 5, ("cat", "dog"), KEY)


def test_each_purpose_has_its_own_key_whatever_the_default_generator():
    keys = [splits.key_for(0, p) for p in range(6)] + [splits.key_for(1, 0), jax.random.key(0)]
    bits = {int(jax.random.bits(k)) for k in keys}
    assert len(bits) == len(keys)
    before = jax.config.jax_default_prng_impl
    try:
        jax.config.update("jax_default_prng_impl", "rbg")
        assert int(jax.random.bits(splits.key_for(1, 0))) in bits
    finally:
        jax.config.update("jax_default_prng_impl", before)
