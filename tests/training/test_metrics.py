"""Evaluation numbers, against worked examples and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from jaxrobust.training import metrics
from jaxrobust.training.loop import Place
from jaxrobust.training.metric_table import METRICS, SELECTABLE
from jaxrobust.training.saving import Selection


def sample(n=200, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(n, k)), rng.integers(0, k, n)


def evaluated(logits, labels, counts, **options):
    return metrics.classification(
        metrics.Predictions(logits=logits, labels=labels, train_counts=counts, **options)
    )


def test_agrees_with_scikit_learn():
    logits, labels = sample()
    found = evaluated(logits, labels, np.full(4, 50))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, logits.argmax(1)), abs=1e-12
    )
    np.testing.assert_allclose(found["negative_log_likelihood"], log_loss(labels, p), rtol=1e-9)


def test_groups_follow_the_training_counts_and_their_thresholds():
    logits = np.eye(4)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 3])
    found = evaluated(logits, labels, np.array([101, 100, 20, 19]), many_above=100, few_below=20)
    assert (found["many"], found["medium"], found["few"]) == (1.0, 1.0, 0.0)
    assert found["per_class"] == [1.0, 1.0, 1.0, 0.0]


def test_classes_absent_from_the_test_are_left_out_of_means():
    found = evaluated(np.eye(3)[[0, 1]], np.array([0, 0]), np.array([5, 5, 5]))
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


def test_top_5_accuracy_agrees_with_scikit_learn_and_needs_six_classes():
    logits, labels = sample(k=9)
    found = evaluated(logits, labels, np.full(9, 50))["top_5_accuracy"]
    assert found == top_k_accuracy_score(labels, logits, k=5) and 0.4 < found < 1
    assert evaluated(*sample(k=5), np.full(5, 50))["top_5_accuracy"] is None


@pytest.mark.parametrize("name", SELECTABLE)
def test_the_epoch_of_the_best_value_is_selected(name):
    """The predictions improve from epoch to epoch, then get worse: so does every metric."""
    labels = np.arange(600) % 6
    rng, place = np.random.default_rng(0), Place()
    selection = Selection(name, place)
    state = type("State", (), {"params": 0, "network_state": 0})
    for place.epoch, skill in enumerate((0.0, 3.0, 1.0), 1):
        logits = skill * np.eye(6)[labels] + rng.normal(size=(600, 6))
        logits = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
        if name == "expected_calibration_error":
            logits = logits * {1: 5.0, 2: 1.0, 3: 3.0}[place.epoch]
        numbers = evaluated(logits, labels, np.array([200, 200, 50, 50, 5, 5]))
        selection.offer(state, numbers)
    assert place.selected_epoch == 2


def test_every_metric_says_what_a_table_and_a_log_need():
    for name, metric in METRICS.items():
        assert metric.heading and metric.meaning and set(metric.sweep) <= {"last", "selected"}, name
    assert METRICS["few"].text(0.1234, 0.01) == "12.3 ± 1.0"
    assert METRICS["few"].text(0.1234, unit=" %") == "12.3 %"
    assert METRICS["negative_log_likelihood"].text(1.23456) == "1.235"
    assert METRICS["few"].text(None) == "–"
