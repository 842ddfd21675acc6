"""Codes of the checks: each is issued by what it names, and has its section in docs/codes.md."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxrobust.audit import checks, find_label_issues, neighbors

PAGE = Path(__file__).parents[2] / "docs" / "codes.md"
RNG = np.random.default_rng(0)
TRUE = np.arange(300) % 3
GIVEN = np.where(np.arange(300) < 30, (TRUE + 1) % 3, TRUE)
GOOD = 0.8 * np.eye(3)[TRUE] + 0.2 / 3
FEATURES = RNG.normal(size=(300, 6)) + 4 * np.eye(3, 6)[TRUE]


def overlapping(n=2000):
    """Labels and predictions that are soft where labels are wrong: overlap or noise?"""
    rng = np.random.default_rng(1)
    true = np.arange(n) % 2
    x = rng.normal(size=n) + 2 * true
    q = 1 / (1 + np.exp(-2 * (x - 1)))
    flip = rng.random(n) < 0.8 * np.minimum(q, 1 - q)
    given = np.where(flip, 1 - true, true)
    p = 1 / (1 + np.exp(-(x - 1)))
    return given, np.stack([1 - p, p], 1)


def repeated():
    features = FEATURES.copy()
    features[1] = features[0]
    return find_label_issues(TRUE, features=features)


def never_predicted():
    true = np.concatenate([np.zeros(200, int), np.ones(200, int), np.full(20, 2)])
    return find_label_issues(true, (0.9 * np.eye(3) + 0.033)[np.minimum(true, 1)] / 0.999)


def noisy_guesses(labels, k):
    return find_label_issues(labels, RNG.dirichlet(np.ones(k), len(labels)))


def below_majority():
    labels = np.repeat([0, 1, 2], [240, 80, 80])
    return noisy_guesses(labels, 3)


def tail():
    labels = np.repeat([0, 1], [400, 15])
    return find_label_issues(labels, 0.9 * np.eye(2)[labels] + 0.05)


def memorizing():
    """Of 120 wrong labels the network contradicts all at first, softly, 30 at the end, firmly."""
    rng, true = np.random.default_rng(0), np.arange(600) % 3
    given = np.where(np.arange(600) < 120, (true + 1) % 3, true)
    parts = []
    for contradicted, confidence in ((120, 0.5), (80, 0.7), (50, 0.85), (30, 0.97)):
        named = np.where(np.arange(600) < contradicted, true, given)
        logits = np.log(confidence * np.eye(3)[named] + (1 - confidence) / 3)
        p = np.exp(logits + 0.4 * rng.normal(size=(600, 3)))
        parts.append(p / p.sum(1, keepdims=True))
    return find_label_issues(given, training_probabilities=np.stack(parts, 1))


MAKERS = {
    "no_issues": lambda: find_label_issues(TRUE, GOOD),
    "no_predictions": lambda: find_label_issues(TRUE, weights=RNG.random(300)),
    "weak_model": lambda: noisy_guesses(np.arange(600) % 10, 10),
    "column_order": lambda: find_label_issues(TRUE, GOOD[:, [1, 2, 0]]),
    "overconfident": lambda: find_label_issues(
        TRUE, (0.998 * np.eye(3) + 0.002 / 3)[np.where(RNG.random(300) < 0.4, 0, TRUE)]
    ),
    "collapsed": lambda: find_label_issues(TRUE, np.tile([0.5, 0.3, 0.2], (300, 1))),
    "not_learned": lambda: noisy_guesses(TRUE, 3),
    "below_majority": below_majority,
    "never_predicted": never_predicted,
    "withheld": never_predicted,
    "two_fits_differ": lambda: find_label_issues(*overlapping()),
    "few_examples": lambda: find_label_issues(TRUE[:12], GOOD[:12]),
    "similar_names": lambda: find_label_issues(GIVEN, GOOD, class_names=["cat", "Cat", "dog"]),
    "long_tail": tail,
    "duplicates_in_conflict": repeated,
    "test_in_train": lambda: find_label_issues(
        TRUE, features=FEATURES, test_features=FEATURES[:5] * (1 + 1e-7)
    ),
    "memorizing": memorizing,
    "memorized": lambda: find_label_issues(
        GIVEN, training_probabilities=np.repeat((0.94 * np.eye(3) + 0.02)[GIVEN][:, None], 4, 1)
    ),
}


# Issued by runs: tests/runs/test_audit.py; by a sample of neighbors: below.
ELSEWHERE = ("underfitted", "sampled_neighbors")


@pytest.mark.parametrize("code", [code for code in checks.CHECKS if code not in ELSEWHERE])
def test_each_code_is_issued_by_what_it_names(code):
    found = MAKERS[code]()
    assert code in found.codes
    notes = [note for note in found.notes if note.endswith(f"[{code}]")]
    assert len(notes) == 1 and checks.CHECKS[code].cause in notes[0]


def test_wrong_labels_that_are_learned_are_counted_as_before():
    found = memorizing()
    low, high = found.noise_rate_interval
    assert 0.12 < found.noise_rate < 0.25 and low < 0.2 < high
    assert found.is_label_issue[:120].mean() > 0.8 and found.is_label_issue[120:].mean() < 0.05


def test_a_sample_of_neighbors_is_stated(monkeypatch):
    defaults = dict(neighbors.nearest.__kwdefaults__, references=100)
    monkeypatch.setattr(neighbors.nearest, "__kwdefaults__", defaults)
    assert "sampled_neighbors" in find_label_issues(TRUE, features=FEATURES).codes


def test_good_predictions_of_right_labels_issue_nothing_else():
    assert find_label_issues(TRUE, GOOD).codes == ("no_issues",)
    assert find_label_issues(GIVEN, GOOD).codes == ()


def test_each_code_has_its_section_with_the_same_cause_and_remedy():
    text = PAGE.read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert list(sections) == list(checks.CHECKS)
    for code, section in sections.items():
        words = " ".join(section.split())
        cause, remedy = checks.CHECKS[code]
        assert cause in words and remedy in words and "Measured:" in words, code


def test_test_examples_in_the_training_data_are_listed():
    test = np.concatenate([FEATURES[[7, 3]], -FEATURES[:2]])
    found = find_label_issues(TRUE, features=FEATURES, test_features=test)
    np.testing.assert_array_equal(found.test_in_train, [[0, 7], [1, 3]])
    apart = find_label_issues(TRUE, features=FEATURES, test_features=-FEATURES[:2])
    assert len(apart.test_in_train) == 0 and "test_in_train" not in apart.codes
