"""The decision on predictions: promises by meaning, any model, crowd labels, inputs."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from jaxrobust.audit import checks, decision, find_label_issues
from jaxrobust.audit import noise_model as model
from jaxrobust.audit.cross_validation import out_of_sample
from jaxrobust.data import crowd
from jaxrobust.errors import UserError


def gaussians(n=900, k=3, apart=4.0, rate=0.2, seed=0):
    """x, true and given labels of k Gaussians around a circle, pair noise."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % k
    angle = 2 * np.pi * true / k
    x = apart / (2 * np.sin(np.pi / k)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    given = np.where(rng.random(n) < rate, (true + 1) % k, true)
    return x + rng.normal(size=(n, 2)), true, given


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_one_noisy_class_with_exact_predictions(k, rate):
    rng, true = np.random.default_rng(0), np.arange(3000) % k
    matrix = np.eye(k)
    matrix[1, 1], matrix[1, 2] = 1 - rate, rate
    given = np.where((true == 1) & (rng.random(3000) < rate), 2, true)
    found = find_label_issues(given, matrix[true])
    wrong = given != true
    assert (found.is_label_issue & wrong).sum() > 0.95 * wrong.sum()
    assert (found.is_label_issue & ~wrong).sum() < 0.05 * wrong.sum()
    low, high = found.noise_rate_interval
    assert low <= wrong.mean() <= high
    np.testing.assert_allclose(found.noise_matrix, matrix, atol=0.06)
    np.testing.assert_allclose(found.noise_matrix.sum(1), 1)


@pytest.mark.parametrize("classifier", [LogisticRegression(), KNeighborsClassifier(25)])
def test_right_labels_are_seldom_flagged_and_wrong_ones_mostly(classifier):
    x, true, given = gaussians()
    clean = find_label_issues(true, model=classifier, x=x)
    assert clean.is_label_issue.mean() <= 0.02 and clean.noise_rate_interval[0] == 0
    found = find_label_issues(given, model=classifier, x=x)
    wrong, flagged = given != true, found.is_label_issue
    assert 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum()) > 0.85


@pytest.mark.parametrize("apart", [1.0, 2.5])
def test_a_label_that_the_prediction_names_is_never_flagged(apart):
    x, _, given = gaussians(apart=apart, rate=0.3)
    p = out_of_sample(KNeighborsClassifier(15), x, given, 3)
    found = find_label_issues(given, p)
    assert not (found.is_label_issue & (p.argmax(1) == given)).any()
    assert found.num_issues > 10
    suggested = found.predicted_label[found.is_label_issue]
    assert (suggested != given[found.is_label_issue]).all()


def test_scores_follow_the_rank_and_sum_to_the_rate():
    x, _, given = gaussians()
    found = find_label_issues(given, model=LogisticRegression(), x=x)
    assert (np.diff(found.label_score[np.argsort(found.rank)]) >= 0).all()
    np.testing.assert_allclose((1 - found.label_score).mean(), found.noise_rate, atol=1e-6)


def test_a_sample_of_rows_decides_as_all_do(monkeypatch):
    x, _, given = gaussians(n=6000)
    p = out_of_sample(LogisticRegression(), x, given, 3)
    some = decision.decide(p, given)
    monkeypatch.setattr(decision, "SAMPLE", 6000)
    whole = decision.decide(p, given)
    assert len(decision.sample(6000, 3, 0)) == 6000
    assert abs(some.rate - whole.rate) < 0.01
    assert np.corrcoef(some.odds, whole.odds)[0, 1] > 0.99


def test_the_applied_posterior_is_the_normalized_one():
    rng = np.random.default_rng(0)
    z, labels = model.log_predictions(rng.dirichlet(np.ones(4), 50)), rng.integers(0, 4, 50)
    fit = model.Fit(0.7 * np.eye(4) + 0.075, 1.7, np.array([0.3, -0.2, 0.1, -0.2]))
    r, _ = model.posterior(fit, z, labels)
    odds, counts = model.apply(fit, z, labels)
    own = r[np.arange(50), labels]
    np.testing.assert_allclose(odds, np.log(1 - own) - np.log(own), rtol=1e-9)
    expected = np.zeros((4, 4))
    np.add.at(expected.T, labels, r)
    np.testing.assert_allclose(counts, expected, rtol=1e-9)


def test_em_does_not_lower_the_likelihood_of_its_own_start():
    x, _, given = gaussians(rate=0.3)
    p = out_of_sample(LogisticRegression(), x, given, 3).astype(float)
    z, start = model.log_predictions(p), model.confident_matrix(p, given)
    held, free = (model.em(z, given, start, free=rounds) for rounds in (0, 20))
    assert model.likelihood(free, z, given) > model.likelihood(held, z, given) - 1e-3


def test_the_same_prediction_for_every_example_flags_none_and_says_so():
    found = find_label_issues(np.arange(60) % 3, np.tile([0.5, 0.3, 0.2], (60, 1)))
    assert found.num_issues == 0 and "collapsed" in found.codes
    assert found.noise_rate_interval == (0.0, 1.0)


def test_codes_are_in_the_table_and_the_notes_name_them():
    rng = np.random.default_rng(0)
    found = find_label_issues(rng.integers(0, 10, 400), np.eye(10)[rng.integers(0, 10, 400)])
    assert {"weak_model", "overconfident"} <= set(found.codes) <= set(checks.CHECKS)
    for code, note in zip(found.codes, found.notes, strict=True):
        assert note.endswith(f"[{code}]") and "\n" not in note


def test_columns_in_another_order_are_noticed():
    true = np.arange(300) % 5
    found = find_label_issues(true, (0.8 * np.eye(5) + 0.04)[(true + 1) % 5])
    assert "column_order" in found.codes


def test_groups_are_not_parted():
    class Seen(LogisticRegression):
        fits: list = []

        def fit(self, x, y):
            Seen.fits.append(set(x[:, 2].astype(int).tolist()))
            return super().fit(x, y)

    x, _, given = gaussians(n=300)
    groups = np.repeat(np.arange(30), 10)
    out_of_sample(Seen(), np.column_stack([x, groups]), given, 3, groups=groups)
    left_out = [set(range(30)) - fitted for fitted in Seen.fits]
    assert len(left_out) == 5 and sorted(g for part in left_out for g in part) == list(range(30))


def test_crowd_labels_agree_and_their_disagreement_is_evidence():
    rng, true = np.random.default_rng(0), np.arange(1000) % 4
    good = np.array([0.9, 0.9, 0.85, 0.3, 0.3])  # the last two hardly know
    votes = np.where(rng.random((1000, 5)) < good, true[:, None], rng.integers(0, 4, (1000, 5)))
    some = np.where(rng.random((1000, 5)) < 0.2, np.nan, votes)
    some[:, 0] = votes[:, 0]
    found = find_label_issues(some)
    by_majority = find_label_issues(some, crowd="majority")
    assert list(found.scores) == ["annotators"]
    right, simple = (f.given_label == true for f in (found, by_majority))
    assert right.mean() > simple.mean() and right.mean() > 0.93
    assert found.label_score[~right].mean() < found.label_score[right].mean() - 0.1
    p = 0.9 * np.eye(4)[true] + 0.025
    assert list(find_label_issues(some, p).scores) == ["prediction", "annotators"]
    np.testing.assert_allclose(
        crowd.majority(np.array([[0, 1, 1], [-1, -1, -1]]), 2), [[1 / 3, 2 / 3], [0.5, 0.5]]
    )


def test_a_data_frame_is_aligned_by_its_columns_and_text_digits_by_their_value():
    true = np.arange(360) % 12
    given = np.where(np.arange(360) < 36, (true + 1) % 12, true)
    p = 0.8 * np.eye(12)[true] + 0.2 / 12
    plain = find_label_issues(given, p)
    np.testing.assert_array_equal(find_label_issues(given.astype(str), p).indices, plain.indices)
    order = np.random.default_rng(0).permutation(12)
    frame = pd.DataFrame(p[:, order], columns=order)
    np.testing.assert_array_equal(find_label_issues(given, frame).indices, plain.indices)
    with pytest.raises(UserError, match="name the columns as the classes"):
        find_label_issues(given.astype(str), frame.rename(columns={0: "zero"}))


class Tensor:
    """A tensor that has to be detached and moved before NumPy can read it, as torch's."""

    def __init__(self, values, ready=False):
        self.values, self.ready = values, ready

    def detach(self):
        return Tensor(self.values, True)

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        if not self.ready:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return np.asarray(self.values, dtype)


def test_tensors_and_bfloat16_are_read():
    import jax.numpy as jnp

    _, true, given = gaussians(n=300)
    p = 0.8 * np.eye(3)[true] + 0.2 / 3
    plain = find_label_issues(given, p)
    for other in (Tensor(p), jnp.asarray(p, jnp.bfloat16)):
        np.testing.assert_array_equal(find_label_issues(given, other).indices, plain.indices)


@pytest.mark.parametrize(
    "labels, p, message",
    [
        ([1, 2, 3] * 3, np.full((9, 3), 1 / 3), "counted from 0"),
        (["a", None, "b"], np.full((3, 2), 0.5), "Label 1 is missing"),
        ([0.0, 1.0, np.nan], np.full((3, 2), 0.5), "Label 2 is missing"),
        ([0.0, 1.0, np.inf], np.full((3, 2), 0.5), "Label 2 is infinite"),
        ([[0], [0, 1]], np.full((2, 2), 0.5), "multi-label"),
        ([0, 1], [[0.5, 0.5], [1.0]], "different lengths"),
        ([0, 1], [[3.0, -2.0], [1.0, 0.0]], "softmax"),
        ([0, 1], [[np.nan, np.nan], [1.0, 0.0]], "are NaN"),
    ],
)
def test_wrong_input_is_one_line(labels, p, message):
    with pytest.raises(UserError, match=message) as error:
        find_label_issues(labels, p)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": LogisticRegression()}, "pass x=X"),
        ({"model": object(), "x": np.ones((4, 1))}, "no predict_proba"),
        ({"model": LogisticRegression(), "x": np.ones((3, 1))}, "3 rows for 4 labels"),
        ({"pred_probs": np.full((4, 2), 0.5), "probabilities": np.full((4, 2), 0.5)}, "two names"),
        ({"model": LogisticRegression(), "x": np.ones((4, 1)), "groups": [0, 0, 0, 0]}, "1 groups"),
    ],
)
def test_wrong_use_of_a_model_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        find_label_issues([0, 1, 0, 1], **arguments)


def test_rounded_probabilities_are_no_logits():
    rng, true = np.random.default_rng(0), np.arange(500) % 10
    p = rng.dirichlet(np.ones(10), 500) * 0.3 + 0.7 * np.eye(10)[true]
    assert find_label_issues(true, p.round(2)).num_issues == 0


def test_the_interval_covers_the_rate():
    covered = []
    for seed in range(16):
        x, true, given = gaussians(
            apart=(2.5, 4)[seed % 2], rate=(0, 0.1, 0.2, 0.4)[seed // 4], seed=seed
        )
        low, high = find_label_issues(given, model=LogisticRegression(), x=x).noise_rate_interval
        covered.append(low <= (given != true).mean() <= high)
    assert sum(covered) >= 14
