"""`find_label_issues` on planted errors, closed cases and wrong input."""

import numpy as np
import pytest

from jaxrobust.audit import find_label_issues
from jaxrobust.errors import UserError


def planted(n=3000, k=5, rate=0.2, seed=0, sharp=3.0):
    """Labels with planted errors, and predictions that are mostly right about the truth."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    wrong = rng.random(n) < rate
    given = np.where(wrong, (true + rng.integers(1, k, n)) % k, true)
    logits = rng.normal(size=(n, k)) + sharp * np.eye(k)[true] * rng.gamma(4, 0.5, (n, 1))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return given, true, p


def test_planted_errors_are_found_counted_and_corrected():
    given, true, p = planted()
    found = find_label_issues(given, probabilities=p)
    wrong = given != true
    assert (found.is_label_issue == wrong).mean() > 0.97
    assert abs(found.noise_rate - wrong.mean()) < 0.02
    assert (found.predicted_label[wrong] == true[wrong]).mean() > 0.95
    np.testing.assert_array_equal(np.sort(found.rank), np.arange(1, len(given) + 1))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "no evidence"),
        ({"probabilities": np.full((4, 3), 0.5)}, "example 0 sum to 1.5"),
        ({"probabilities": np.full((3, 3), 1 / 3)}, "3 rows for 4 labels"),
        ({"probabilities": np.full((4, 2), 0.5)}, "outside the classes 0..1"),
        ({"curves": np.ones(4)}, "expected 2 dimensions"),
        ({"weights": np.array([1, -1, 1, 1])}, "negative"),
        ({"weights": np.ones(4), "paths": ["a"]}, "1 paths for 4 labels"),
    ],
)
def test_wrong_input_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        classes = {"class_names": "ab"} if "outside" in message else {}
        find_label_issues([0, 1, 2, 1], **arguments, **classes)
    assert "\n" not in str(error.value)
