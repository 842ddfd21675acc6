"""Models that must not condemn a class: each failure is named, and no class flagged wholesale."""

import numpy as np
import pytest

from jaxrobust.audit import collapse, find_label_issues
from jaxrobust.audit.checks import CHECKS

TAIL = (0.83, 0.07, 0.05, 0.04, 0.01)


def tail(n=1000):
    return np.random.default_rng(0).choice(5, n, p=TAIL)


def always_the_first(n):
    p = np.full((n, 5), 0.01) + 0.001 * np.random.default_rng(1).random((n, 5))
    p[:, 0] += 0.95
    return p / p.sum(1, keepdims=True)


def test_a_model_that_names_the_largest_class_only_condemns_no_class():
    labels = tail()
    names = [*"abcde"]
    found = find_label_issues(labels, always_the_first(1000), class_names=names)
    assert {"not_learned", "never_predicted", "withheld"} <= {*found.codes}
    for c in range(5):
        of_class = found.is_label_issue[labels == c]
        assert of_class.mean() <= collapse.MOST
    note = next(line for line in found.notes if "[never_predicted]" in line)
    assert "Classes: b, c, d, e." in note and "balance=class" in note
    assert (found.predicted_label == labels).all()


def test_a_class_that_is_never_predicted_is_kept_and_the_others_judged():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 800)
    given = np.where(rng.random(800) < 0.1, (true + 1) % 4, true)
    p = 0.9 * np.eye(4)[np.where(true == 3, 0, true)] + 0.025
    p[:, 3] = 1e-4  # not even divided by its frequency is it the most probable one
    found = find_label_issues(given, p / p.sum(1, keepdims=True))
    assert "never_predicted" in found.codes and "not_learned" not in found.codes
    assert not found.is_label_issue[given == 3].any()
    wrong = (given != true) & (given != 3) & (true != 3)
    assert found.is_label_issue[wrong].mean() > 0.9


@pytest.mark.parametrize(
    "shares, code", [((0.25, 0.25, 0.25, 0.25), "not_learned"), ((0.8, 0.2), "below_majority")]
)
def test_guesses_are_named_and_flag_no_class(shares, code):
    rng, k = np.random.default_rng(0), len(shares)
    labels = rng.choice(k, 1000, p=shares)
    found = find_label_issues(labels, rng.dirichlet(np.ones(k), 1000))
    assert code in found.codes
    note = next(line for line in found.notes if f"[{code}]" in line)
    assert "%" in note and note.startswith(CHECKS[code].cause)
    for c in range(k):
        assert found.is_label_issue[labels == c].mean() <= collapse.MOST


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.7])
def test_a_model_that_knows_its_classes_is_not_blamed_for_noisy_labels(rate):
    rng = np.random.default_rng(0)
    true = tail(4000)
    given = np.where(rng.random(4000) < rate, rng.integers(0, 5, 4000), true)
    p = 0.8 * np.eye(5)[true] + 0.04
    found = find_label_issues(given, p)
    assert not {"not_learned", "below_majority", "never_predicted", "withheld"} & {*found.codes}


def test_a_model_that_ranks_well_is_not_blamed_for_naming_one_class():
    """Of two classes, 10 : 1, 40 % are wrong: nearly every label of the small class is."""
    rng = np.random.default_rng(0)
    true = (rng.random(3000) < 1 / 11).astype(int)
    given = np.where(rng.random(3000) < 0.4, 1 - true, true)
    q = np.clip(true + 0.3 * rng.normal(size=3000), 0, 1)
    p = 0.38 + 0.24 * q  # of class 1, as a calibrated model of the given labels says
    found = find_label_issues(given, np.stack([1 - p, p], 1))
    assert not {"not_learned", "below_majority", "withheld"} & {*found.codes}
    wrong, flagged = given != true, found.is_label_issue
    assert 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum()) > 0.8


def test_a_class_that_is_nowhere_the_most_probable_one_is_not_flagged_wholesale():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 1000, p=(0.6, 0.35, 0.05))
    p = 0.7 * np.eye(3)[np.minimum(labels, 1)] + 0.1
    p[:, 2] += 0.1 * (labels == 2)  # more than elsewhere, yet never the most
    found = find_label_issues(labels, p / p.sum(1, keepdims=True))
    assert "never_predicted" not in found.codes
    assert not found.is_label_issue[labels == 2].any()
    flagged = np.ones(20, bool)
    none, class_1 = np.zeros(2, bool), np.array([False, True])
    two, rank = np.repeat([0, 1], 10), np.arange(1, 21)
    kept = collapse.withheld(flagged, two, rank, collapse.Collapse({}, none, class_1))
    assert kept.sum() == 10 and kept[10:].all()


def test_of_a_model_that_knows_nothing_the_most_suspect_half_of_a_class_stays_flagged():
    labels, none = np.repeat([0, 1], 10), np.zeros(2, bool)
    flagged = np.arange(20) >= 2  # 8 of the first class, all of the second
    found = collapse.Collapse({}, none, none, True)
    kept = collapse.withheld(flagged, labels, np.arange(20, 0, -1), found)
    assert np.flatnonzero(kept).tolist() == [2, 3, 4, *range(10, 15)]


def test_ranking_is_standard_normal_for_guesses_and_large_for_knowledge():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 600)
    z = [collapse.ranking(rng.dirichlet(np.ones(5), 600), labels) for _ in range(60)]
    assert abs(np.mean(z)) < 0.5 and 0.6 < np.std(z) < 1.5
    assert collapse.ranking(0.1 * np.eye(5)[labels] + rng.random((600, 5)), labels) > 3
    assert collapse.ranking(np.ones((600, 5)) / 5, labels) == 0


def test_a_few_examples_prove_nothing_about_a_model():
    labels = np.array([0, 1, 0, 1, 1, 0])
    found = collapse.find([np.full((6, 2), [[0.6, 0.4]])], labels, ["a", "b"])
    assert "not_learned" not in found.codes


def test_rows_without_a_prediction_are_left_out():
    labels = np.arange(400) % 4
    p = 0.8 * np.eye(4)[labels] + 0.05
    p[::2] = np.nan
    found = collapse.find([p], labels, [*"abcd"])
    assert set(found.codes) == {"never_predicted"}  # odd rows: classes 1 and 3 alone
    assert found.silent.tolist() == [True, False, True, False]
