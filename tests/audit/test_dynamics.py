"""Wrong labels from a network's own training: classes that are confused, three seeds."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from jaxrobust import RobustClassifier
from jaxrobust.audit import Recorder, find_label_issues

CONFUSED = {2: 7, 3: 8, 4: 9, 5: 6, 7: 1}


def digits(rate, seed):
    """x, true and given labels: of five classes a fraction `rate` is called another class."""
    x, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    named = np.array([CONFUSED.get(c, c) for c in range(10)])
    given = np.where(rng.random(len(true)) < rate, named[true], true)
    return x.astype(np.float32) / 16, true, given


def recorded(x, given, seed, epochs=60):
    """What a perceptron that is trained batch by batch says of its own examples."""
    network = MLPClassifier((128,), random_state=seed, learning_rate_init=1e-3)
    recorder, rng = Recorder(len(x), 10), np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(x)), 28):
            network.partial_fit(x[rows], given[rows], classes=np.arange(10))
        recorder.update(np.arange(len(x)), network.predict_proba(x))
    return find_label_issues(given, recorder=recorder)


def trained(x, given, seed):
    """What the network of the estimator says of its own examples."""
    model = RobustClassifier(method="supervised", random_state=seed)
    return model.fit(16 * x, given).label_issues_


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("rate", [0.2, 0.4])
@pytest.mark.parametrize("evidence", [recorded, trained])
def test_confused_classes_are_found_or_the_interval_says_that_they_may_be(evidence, rate, seed):
    x, true, given = digits(rate, seed)
    found, wrong = evidence(x, given, seed), given != true
    low, high = found.noise_rate_interval
    assert low <= wrong.mean() <= high
    assert 0.45 * wrong.mean() < found.noise_rate < 1.6 * wrong.mean()
    if abs(found.noise_rate - wrong.mean()) > 0.05:
        assert high - low > 0.15 and {"memorizing", "two_fits_differ"} & {*found.codes}
    flagged = found.is_label_issue
    assert 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum()) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("evidence", [recorded, trained])
def test_right_labels_are_left_alone(evidence):
    x, true, _ = digits(0.0, 0)
    found = evidence(x, true, 0)
    assert found.is_label_issue.mean() < 0.01 and found.noise_rate_interval[0] == 0
