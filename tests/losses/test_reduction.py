"""The one place where losses become a mean."""

import jax
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError

VALUES = np.array([1.0, 2.0, 6.0], np.float32)


def test_mean_divides_by_the_number_of_examples_not_by_the_weights():
    np.testing.assert_allclose(losses.mean(VALUES), 3)
    np.testing.assert_allclose(losses.mean(VALUES, weights=np.array([1, 0.5, 0])), 2 / 3)
    np.testing.assert_allclose(losses.mean(VALUES, weights=np.zeros(3)), 0)


def test_mean_with_an_explicit_divisor():
    weights = np.array([1, 0.5, 0])
    np.testing.assert_allclose(losses.mean(VALUES, weights=weights, divisor=1.5), 4 / 3)
    np.testing.assert_allclose(losses.mean(VALUES, divisor=18), 0.5)
    by_weight = jax.grad(lambda w: losses.mean(VALUES, weights=w, divisor=2.0))(weights)
    np.testing.assert_allclose(by_weight, VALUES / 2)


def test_mean_leaves_masked_examples_out_even_if_they_are_nan():
    where = np.array([True, True, False])
    spoilt = np.array([1.0, 2.0, np.nan])

    def mean(values, weights):
        return losses.mean(values, weights=weights, where=where)

    value, gradients = jax.value_and_grad(mean, argnums=(0, 1))(spoilt, spoilt)
    np.testing.assert_allclose(value, 2.5)
    np.testing.assert_allclose(gradients[0], [0.5, 1, 0])
    np.testing.assert_allclose(gradients[1], [0.5, 1, 0])
    np.testing.assert_allclose(losses.mean(spoilt, where=where, divisor=6), 0.5)
    np.testing.assert_allclose(losses.mean(spoilt, where=np.zeros(3, bool)), 0)


def test_mean_does_not_broadcast():
    with pytest.raises(UserError, match=r"weights.*\[3\].*\[3, 1\]"):
        losses.mean(VALUES, weights=np.ones((3, 1)))
    with pytest.raises(UserError, match=r"where.*\[3\].*\[3, 1\]"):
        losses.mean(VALUES, where=np.ones((3, 1), bool))
