"""Class sizes of a long tail."""

import re

import jax
import numpy as np
import pytest

from jaxrobust.data import long_tail
from jaxrobust.errors import UserError


@pytest.mark.golden
def test_exponential_counts_are_the_reference_s(golden):
    reference = np.load(golden("noise_and_imbalance.npz"))
    cases = [k for k in reference if k.startswith("counts_")]
    assert cases
    for case in cases:
        k, largest, factor = re.fullmatch(r"counts_c(\d+)_max(\d+)_imb([\d.e-]+)", case).groups()
        counts = long_tail.class_counts("exponential", float(factor), int(k), int(largest))
        np.testing.assert_array_equal(counts, reference[case], err_msg=case)


@pytest.mark.parametrize(
    "kind, factor, counts",
    [
        ("none", 1.0, [100, 100, 100]),
        ("exponential", 1.0, [100, 100, 100]),
        ("exponential", 0.01, [100, 10, 1]),
        ("exponential", 0.001, [100, 3, 0]),
        ("step", 0.1, [100, 10, 10]),
    ],
)
def test_counts_by_hand(kind, factor, counts):
    np.testing.assert_array_equal(long_tail.class_counts(kind, factor, 3, 100), counts)


def test_an_even_step_cuts_half_of_the_classes():
    counts = long_tail.class_counts("step", 0.05, 10, 200)
    np.testing.assert_array_equal(counts, [200] * 5 + [10] * 5)


@pytest.mark.parametrize(
    "kind, factor, message",
    [
        ("exponential", 0.0, r"0 is outside \(0, 1\]"),
        ("exponential", 10, r"10 is outside"),
        ("exponental", 0.5, "'exponential'"),
    ],
)
def test_wrong_profiles_are_refused(kind, factor, message):
    with pytest.raises(UserError, match=message):
        long_tail.class_counts(kind, factor, 10, 100)


def test_subsample_draws_the_counts_sorted_and_nested():
    labels = np.random.default_rng(0).integers(0, 3, 600)
    key = jax.random.key(5)
    few = long_tail.subsample(labels, np.array([50, 7, 0]), key)
    many = long_tail.subsample(labels, np.array([90, 90, 1000]), key)
    np.testing.assert_array_equal(np.bincount(labels[few], minlength=3), [50, 7, 0])
    assert (np.diff(few) > 0).all() and set(few) <= set(many)
    assert (labels[many] == 2).sum() == (labels == 2).sum()  # no more than there are
    other = long_tail.subsample(labels, np.array([50, 7, 0]), jax.random.key(6))
    assert set(other) != set(few)
