"""The noise model of predictions: steps and tables against what they are the derivative of."""

import numpy as np
import pytest

from jaxrobust.audit import noise_model as model


def softmax(a):
    e = np.exp(a - a.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def problem(n=4000, k=4, scale=1.5, seed=0):
    """z, responsibilities and the scale and bias that they come from."""
    rng = np.random.default_rng(seed)
    bias = np.linspace(-0.5, 0.5, k)
    z = np.log(rng.dirichlet(np.ones(k), n))
    return z, softmax(scale * z + bias), scale, bias - bias.mean()


@pytest.mark.parametrize("k", [4, model.DIRECT_CLASSES + 5])
def test_newtons_steps_find_the_recalibration_that_explains_the_responsibilities(k):
    z, r, scale, bias = problem(k=k)
    fit = model.Fit(np.eye(k), 1.0, np.zeros(k))
    for _ in range(40):
        fit = model.recalibrated(fit, z, softmax(fit.scale * z + fit.bias), r)
    assert fit.scale == pytest.approx(scale, rel=0.03)
    np.testing.assert_allclose(fit.bias, bias, atol=0.05)


def test_the_prior_shrinks_the_bias_by_as_many_examples_as_it_says():
    """At the end the pull of the data and that of BIAS_PRIOR examples are the same."""
    z, r, *_ = problem(n=200)
    fit = model.Fit(np.eye(4), 1.0, np.zeros(4))
    for _ in range(60):
        fit = model.recalibrated(fit, z, softmax(fit.scale * z + fit.bias), r)
    excess = (softmax(fit.scale * z + fit.bias) - r).sum(0)
    balance = excess + model.BIAS_PRIOR * fit.bias
    np.testing.assert_allclose(balance, balance.mean(), atol=1e-4)
    assert np.abs(excess).max() > 0.1


def test_no_step_is_longer_than_one():
    z, r, *_ = problem(n=500)
    far = model.Fit(np.eye(4), 1.0, np.array([6.0, -2.0, -2.0, -2.0]))
    new = model.recalibrated(far, z, softmax(far.scale * z + far.bias), r)
    assert 0.05 < abs(new.scale - far.scale) + np.abs(new.bias - far.bias).max() <= 2.0
    assert abs(new.scale - far.scale) <= 1.0 + 1e-9


def test_the_scale_stays_in_its_bounds():
    z, _, *_ = problem(n=500)
    sure = np.eye(4)[z.argmax(1)]
    fit = model.Fit(np.eye(4), 7.9, np.zeros(4))
    for _ in range(10):
        fit = model.recalibrated(fit, z, softmax(fit.scale * z + fit.bias), sure)
    assert fit.scale == model.SCALES[1]


def test_shrunk_counts_have_the_pooled_rate_where_nothing_was_seen():
    counts = np.array([[80.0, 20.0, 0.0], [0.0, 50.0, 50.0], [0.0, 0.0, 0.0]])
    matrix = model._shrunk(counts, np.array([80, 70, 50]))
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert 1 - matrix[2, 2] == pytest.approx(70 / 200)
    assert 1 - matrix[0, 0] == pytest.approx((20 + 0.35) / 101)
    assert matrix[0, 1] > 0.9 * (1 - matrix[0, 0]) and matrix[2, 0] > matrix[2, 1]


def test_the_joint_of_confident_learning_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Means of the given class: (.9 + .8 + .3) / 3 = .667 and (.8 + .9 + .6) / 3 = .767; the third
    # and the last reach neither.
    np.testing.assert_allclose(model.confident_joint(p, labels), [[3, 0], [0, 3]])
    labels = np.array([0, 1, 0, 1, 1, 1])
    # .6 and (.2 + .8 + .9 + .6) / 4 = .625: the second counts for 0, the third for 1.
    np.testing.assert_allclose(
        model.confident_joint(p, labels), np.array([[1, 1], [1, 2]]) * [2 / 2, 4 / 3]
    )


def test_a_class_whose_predictions_reach_nothing_counts_for_one():
    p = np.tile([0.6, 0.4], (4, 1))
    joint = model.confident_joint(p, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(joint, [[3, 0.5], [0, 0.5]])


def test_predictions_are_undone_by_the_inverse_of_the_noise():
    q = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    noise = np.array([[0.8, 0.2, 0.0], [0.0, 0.9, 0.1], [0.3, 0.0, 0.7]])
    z = model.log_predictions(q @ noise, np.linalg.inv(noise))
    np.testing.assert_allclose(np.exp(z), q, atol=1e-3)
