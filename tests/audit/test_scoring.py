"""Measures against the truth: closed cases, and scikit-learn as the other way."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxrobust.audit import find_label_issues, scoring


@pytest.mark.parametrize("levels", [5, 1000])
def test_areas_are_those_of_scikit_learn_with_ties_and_without(levels):
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = rng.integers(0, levels, 400) + positive * levels / 4
    np.testing.assert_allclose(scoring.auroc(positive, score), roc_auc_score(positive, score))
    np.testing.assert_allclose(
        scoring.auprc(positive, score), average_precision_score(positive, score)
    )


def test_areas_without_both_kinds_are_none():
    none, score = np.zeros(3, bool), np.arange(3.0)
    assert scoring.auroc(none, score) is None and scoring.auprc(none, score) is None
    assert scoring.auroc(~none, score) is None and scoring.auprc(~none, score) == 1


def test_a_case_by_hand():
    """Six examples; labels 0 0 0 1 1 1, of which the first and the last are wrong."""
    given, true = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 0, 0, 1, 1, 0])
    found = find_label_issues(given, weights=np.ones(6))
    found = dataclasses.replace(
        found,
        rank=np.array([1, 2, 5, 6, 4, 3]),
        is_label_issue=np.array([True, True, False, False, False, False]),
        predicted_label=np.array([1, 1, 0, 1, 1, 1]),
    )
    groups = {"many": np.array([True, False]), "few": np.array([False, False])}
    got = scoring.against_truth(found, true, groups)
    assert got["wrong_labels"] == 2 and got["noise_rate"] == 2 / 6
    assert got["precision_at_errors"] == 0.5 and got["precision"] == 0.5
    assert got["recall"] == 0.5 and got["false_alarms"] == 0.25
    assert got["suggestions_right"] == 1.0
    np.testing.assert_allclose(got["auprc"], (1 + 2 / 3) / 2)
    np.testing.assert_allclose(got["auroc"], (4 + 3) / 8)
    assert got["groups"]["many"] == got["per_class"][0]
    assert got["per_class"][0]["false_alarms"] == 0.5 and got["per_class"][0]["recall"] == 1
    assert got["per_class"][1]["recall"] == 0 and got["per_class"][1]["precision"] is None
    assert got["groups"]["few"]["examples"] == 0 and got["groups"]["few"]["recall"] is None
    np.testing.assert_allclose(got["noise_matrix"], [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
