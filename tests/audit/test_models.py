"""Blended models: cross-validated predictions, blending, soft labels, groups."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.metrics import average_precision_score

from jaxrobust.audit import find_label_issues, models
from jaxrobust.errors import UserError


@pytest.fixture(scope="module")
def wine():
    """Scaled features, true labels, and given ones of which a fifth are wrong."""
    x, true = load_wine(return_X_y=True)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(len(true)) < 0.2, (true + rng.integers(1, 3, len(true))) % 3, true)
    return (x - x.mean(0)) / x.std(0), true, given


@pytest.fixture(scope="module")
def study(wine):
    x, _, given = wine
    return models.study(x, given, 3)


def test_wrong_labels_come_first_and_the_posterior_names_the_true_ones(wine, study):
    _, true, given = wine
    wrong = given != true
    issues = find_label_issues(
        given, study.probabilities, true_probabilities=study.true_probabilities
    )
    assert average_precision_score(wrong, -issues.label_score) > 0.97
    assert abs(issues.noise_rate - wrong.mean()) < 0.05
    low, high = issues.noise_rate_interval
    assert low <= wrong.mean() <= high
    assert (study.posterior.argmax(1) == true).mean() > 0.95
    np.testing.assert_allclose(study.posterior.sum(1), 1)


def test_the_second_round_is_closer_to_the_truth_than_the_first(wine, study):
    _, true, _ = wine
    own = np.arange(len(true)), true
    first, second = (np.log(p[own]).mean() for p in study[:2])
    assert second > first + 0.1


def test_the_classifier_learns_the_true_classes(wine, study):
    x, true, given = wine
    blend = models.fit(x, study.posterior, study.weights)
    assert (blend.predict_proba(x).argmax(1) == true).mean() > 0.97
    raw = models.fit(x, np.eye(3)[given], study.weights)
    own = np.arange(len(true)), true
    assert blend.predict_proba(x)[own].mean() > raw.predict_proba(x)[own].mean() + 0.05
    np.testing.assert_allclose(blend.prior, study.posterior.mean(0))


def test_blending_is_the_normalized_product_of_powers():
    p, q = np.array([[0.8, 0.2]]), np.array([[0.5, 0.5]])
    want = np.array([[16.0, 1.0]]) / 17
    np.testing.assert_allclose(models.blended([p, q], np.array([2.0, 1.0])), want)


def test_weights_prefer_the_member_that_predicts_the_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    good = 0.7 * np.eye(3)[labels] + 0.1
    noise = rng.dirichlet(np.ones(3), 400)
    weights = models.blend_weights([good, noise], np.eye(3)[labels])
    assert weights[0] > 5 * weights[1]
    mass = np.where(np.arange(400) < 200, 1.0, 0.0)
    half = labels.copy()
    half[200:] = rng.permutation(half[200:])  # without weight: of no influence
    target = np.eye(3)[labels], np.eye(3)[half]
    np.testing.assert_allclose(*(models.blend_weights([good, noise], t, mass) for t in target))


def test_no_fold_parts_a_group():
    labels, groups = np.arange(60) % 3, np.arange(60) // 4
    folds = list(models.splits(labels, groups, 5, 0))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(60))
    for train, held in folds:
        assert not set(groups[train]) & set(groups[held])
    with pytest.raises(UserError, match="one group"):
        list(models.splits(labels, np.zeros(60), 5, 0))


def test_an_example_of_no_weight_changes_nothing(wine):
    x, _, given = wine
    weight = np.where(np.arange(len(x)) < 150, 1.0, 0.0)
    other = np.where(weight > 0, given, (given + 1) % 3)
    powers = np.ones(3)
    fitted = [models.fit(x, np.eye(3)[y], powers, sample_weight=weight) for y in (given, other)]
    np.testing.assert_allclose(*(blend.predict_proba(x) for blend in fitted))


def test_slow_models_are_bounded(monkeypatch):
    def names(*sizes):
        return list(models.members(models.kind_of(*sizes)))

    assert names(1000, 20, 5, 20) == ["linear", "boosting", "extra_trees"]
    assert names(1000, 20, models.MAX_TREE_CLASSES + 1, 20) == ["linear"]
    of_a_network = names(1000, models.WIDE, 5)
    assert len(of_a_network) == 2 and all(name.startswith("linear_") for name in of_a_network)
    levels = names(1000, 400, 5, 3)  # three numbers, and categories of many levels
    assert levels == ["linear", "boosting", "extra_trees"]
    assert names(400, 400, 3, 400) == [*of_a_network, "boosting", "extra_trees"]
    assert names(8500, 512, 10, 512) == of_a_network
    seen = []

    class Recorder:
        classes_ = np.arange(2)

        def fit(self, x, y, sample_weight):
            seen.append(len(x))
            return self

    monkeypatch.setattr(models, "MAX_ROWS", 30)
    monkeypatch.setattr(models, "members", lambda *_: {"one": lambda seed: Recorder()})
    models.fit(np.zeros((100, 2)), np.eye(2)[np.arange(100) % 2], np.ones(1))
    assert seen == [30]
