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


def test_groups_are_chosen_all_or_none_and_in_about_the_share_asked_for():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 120, 600)
    labels = (groups % 3).astype(np.int32)
    labels[rng.random(600) < 0.1] = 0
    key = splits.key_for(0, splits.TEST)
    out = splits.stratified(labels, 150, 3, key, leave=1, groups=groups)
    assert not np.isin(groups[out], groups[~out]).any()
    assert 130 <= out.sum() <= 160 and np.bincount(labels[out], minlength=3).min() > 20
    fold = splits.fold_of(labels, 5, key, groups)
    assert max(len(set(fold[groups == g])) for g in range(120)) == 1
    assert np.bincount(fold, minlength=5).min() > 90


def test_groups_of_one_are_examples():
    labels = np.random.default_rng(1).integers(0, 4, 200)
    key = splits.key_for(0, splits.TEST)
    out = splits.stratified(labels, 60, 4, key, groups=np.arange(200))
    wanted = splits.quotas(np.bincount(labels), 60)
    assert np.abs(np.bincount(labels[out], minlength=4) - wanted).max() <= 1


def test_a_class_of_one_group_is_never_held_out_whole():
    labels, groups = np.repeat([0, 1], 50), np.r_[np.zeros(50, int), np.arange(1, 51)]
    out = splits.stratified(labels, 30, 2, splits.key_for(0, 5), leave=1, groups=groups)
    assert not out[:50].any() and out[50:].any()
