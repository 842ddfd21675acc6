"""Evaluation numbers, against worked examples and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from jaxrobust.training import metrics


def sample(n=200, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(n, k)), rng.integers(0, k, n)


def test_agrees_with_scikit_learn():
    logits, labels = sample()
    found = metrics.classification(logits, labels, np.full(4, 50))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, logits.argmax(1)), abs=1e-12
    )
    np.testing.assert_allclose(found["negative_log_likelihood"], log_loss(labels, p), rtol=1e-9)


def test_groups_follow_the_training_counts_and_their_thresholds():
    logits = np.eye(4)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 3])
    found = metrics.classification(
        logits, labels, np.array([101, 100, 20, 19]), many_above=100, few_below=20
    )
    assert (found["many"], found["medium"], found["few"]) == (1.0, 1.0, 0.0)
    assert found["per_class"] == [1.0, 1.0, 1.0, 0.0]


def test_classes_absent_from_the_test_are_left_out_of_means():
    found = metrics.classification(np.eye(3)[[0, 1]], np.array([0, 0]), np.array([5, 5, 5]))
    assert found["balanced_accuracy"] == 0.5
    assert found["per_class"] == [0.5, None, None]
    assert found["many"] is None and found["few"] == 0.5


def test_calibration_error_by_hand():
    # Two predictions at confidence 0.8 of which one is right, two at 0.6 of which both are.
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    error = metrics.expected_calibration_error(np.log(p), np.array([0, 1, 0, 0]), bins=10)
    np.testing.assert_allclose(error, 0.5 * 0.3 + 0.5 * 0.4, rtol=1e-9)


def test_calibration_of_certain_predictions():
    assert metrics.expected_calibration_error(50 * np.eye(3), np.arange(3)) < 1e-9


def test_memorisation_counts_wrong_labels_apart():
    logits = np.eye(3)[[0, 1, 2, 2]]
    given, true = np.array([0, 1, 1, 2]), np.array([0, 0, 2, 2])
    found = metrics.memorization(logits, given, true)
    assert found == {"wrong_labels": 2, "memorised": 0.5, "recovered": 0.5, "clean_fitted": 1.0}


def test_memorisation_without_wrong_labels():
    found = metrics.memorization(np.eye(2), np.arange(2), np.arange(2))
    assert found["memorised"] is None and found["wrong_labels"] == 0
