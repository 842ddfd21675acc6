"""The mixture of right and wrong labels: its formulas by hand, its choice and its interval."""

import numpy as np
import pytest

from jaxrobust.audit import mixture
from jaxrobust.audit.evidence import Evidence


def evidence(n=2000, rate=0.3, apart=4.0, k=4, seed=0, named=True):
    """Evidence that is normal around -apart/2 of right labels and apart/2 of wrong ones, labels,
    and which are wrong; a wrong label stands in place of the class before it."""
    rng = np.random.default_rng(seed)
    labels, wrong = np.arange(n) % k, rng.random(n) < rate
    value = np.where(wrong, apart / 2, -apart / 2) + rng.normal(size=n)
    classes = ((labels[:, None] - 1 - np.arange(k - 1)) % k).astype(np.int32)
    belief = np.full((n, k - 1), 1 / (k - 1), np.float32)
    belief[wrong] = np.eye(k - 1)[0]
    moments = (-apart / 2, 1.0), (apart / 2, 1.0)
    tables = (classes, belief) if named else (None, None)
    return Evidence(value, *moments, *tables), labels, wrong


def test_the_log_odds_are_those_of_the_module_s_formula():
    """Rate of the class, distance of two normals of one spread, and the named classes."""
    m = mixture.Mixture(
        rate=np.array([0.2, 0.4]),
        wrong=3.0,
        right=-1.0,
        variance=2.0,
        named=None,
        ratio=np.array([[0.0, 0.7], [-0.3, 0.0]]),
        gain=0.0,
    )
    found = Evidence(
        np.array([0.5, np.nan]),
        (-1.0, 2.0),
        (3.0, 2.0),
        np.array([[1], [0]], np.int32),
        np.array([[1.0], [0.5]], np.float32),
    )
    odds = mixture.log_odds(m, found, np.array([0, 1]))
    first = np.log(0.2 / 0.8) + (3 + 1) / 2 * (0.5 - 1) - 0.3
    second = np.log(0.4 / 0.6) + 0.5 * 0.7  # its evidence is unknown: says nothing
    np.testing.assert_allclose(odds, [first, second], rtol=1e-9)
    assert m.distance == pytest.approx(4 / np.sqrt(2))


def test_the_rates_of_the_classes_are_found():
    found, labels, wrong = evidence(n=8000)
    fitted = mixture.fit(found, labels, 4)
    for c in range(4):
        assert fitted.rate[c] == pytest.approx(wrong[labels == c].mean(), abs=0.02)
    assert (fitted.wrong, fitted.right) == pytest.approx((2, -2), abs=0.1)
    assert fitted.variance == pytest.approx(1, abs=0.1)
    common = mixture.fit(found, labels, 4, common=True)
    assert np.ptp(common.rate) == 0 and common.rate[0] == pytest.approx(wrong.mean(), abs=0.02)


def test_a_small_class_is_drawn_to_what_is_common():
    """Of three examples, two wrong: nearer to the rate of all than to two thirds."""
    found, labels, wrong = evidence(n=4000, named=False)
    few = np.flatnonzero(labels == 3)[:3]
    keep = np.concatenate([np.flatnonzero(labels != 3), few])
    value = found.value.copy()
    value[few] = [2.0, 2.0, -2.0]
    fitted = mixture.fit(
        Evidence(value[keep], found.right, found.wrong), labels[keep], 4, common=False
    )
    assert abs(fitted.rate[3] - wrong.mean()) < 0.1 < abs(2 / 3 - fitted.rate[3])


def test_the_tables_hold_shares_of_the_named_classes():
    """Columns sum to one; what is named of wrong labels, and of right ones; never oneself."""
    found, labels, wrong = evidence(n=8000)
    w, r = mixture._tables(wrong.astype(float), found, labels, 4)
    np.testing.assert_allclose(w.sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(r.sum(0), 1, rtol=1e-6)
    assert np.abs(w.diagonal()).max() < 1e-6 and np.abs(r.diagonal()).max() < 1e-6
    before = (np.arange(4) - 1) % 4
    assert (w[before, np.arange(4)] > 0.9).all()
    off = r + np.eye(4)
    np.testing.assert_allclose(off[off < 1], 1 / 3, atol=0.05)


def test_drawn_counts_are_a_mean_of_shares_weighted_by_their_examples():
    counts, towards = np.array([[10.0, 0.0], [10.0, 0.0]]), np.array([[0.9, 0.6], [0.1, 0.4]])
    drawn = mixture._drawn(counts, towards)
    prior = mixture.PRIOR
    np.testing.assert_allclose(drawn[:, 0], (10 + prior * towards[:, 0]) / (20 + prior), rtol=1e-6)
    np.testing.assert_allclose(drawn[:, 1], towards[:, 1], rtol=1e-6)


def test_the_gain_is_that_of_two_normals_over_one():
    """In nats per example, with the maximum-likelihood parameters of each; none where one is
    right."""
    found, labels, wrong = evidence(n=20_000, named=False)
    fitted = mixture.fit(found, labels, 4, common=True)
    x, rate = found.value, wrong.mean()

    def normal(x, mean, variance):
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    two = np.log(rate * normal(x, 2, 1) + (1 - rate) * normal(x, -2, 1)).mean()
    one = np.log(normal(x, x.mean(), x.var())).mean()
    assert fitted.gain == pytest.approx(two - one, abs=0.01)
    plain, labels, _ = evidence(rate=0.0, named=False)
    assert mixture.fit(plain, labels, 4).gain < mixture.NO_GAIN
    flat = Evidence(np.zeros(100), (-1.0, 1.0), (1.0, 1.0))
    assert mixture.fit(flat, np.arange(100) % 4, 4).gain == 0


def test_the_better_separated_candidate_is_chosen_and_the_earlier_where_none_gains():
    far, labels, _ = evidence(apart=5.0, named=False)
    near, _, _ = evidence(apart=1.5, named=False)
    assert mixture.choose([near, far], labels, 4, 0) == 1
    one, labels, _ = evidence(rate=0.0, apart=9.0, named=False)  # all labels are learned
    assert mixture.choose([one, one, one], labels, 4, 0) == 0


def test_a_candidate_that_gains_little_is_begun_only_if_few_labels_look_wrong_in_it(monkeypatch):
    """One in which most look wrong and few in the end was too early, unless its gain is great."""
    gains = iter([mixture.GREAT_GAIN, 0.02])
    rates = iter([0.9, 0.1])

    def fit(found, labels, k, **options):
        if options:  # for the odds in the end
            return made(0.02, 0.1)
        return made(next(gains), next(rates))

    def made(gain, rate):
        return mixture.Mixture(np.full(2, rate), 1.0, -1.0, 1.0, None, None, gain)

    monkeypatch.setattr(mixture, "fit", fit)
    known = Evidence(np.tile([-1.0, 1.0], 25), (-1.0, 1.0), (1.0, 1.0))
    labels = np.arange(50) % 2
    assert mixture.choose([known, known], labels, 2, 0) == 1  # exactly great is not greater
    gains, rates = iter([1.01 * mixture.GREAT_GAIN, 0.02]), iter([0.9, 0.1])
    monkeypatch.setattr(mixture, "odds_of", lambda *args: np.full(50, 5.0))
    assert mixture.choose([known, known], labels, 2, 0) == 0


def test_the_interval_is_two_standard_errors_around_the_rate():
    """Labels that are told apart without doubt leave the binomial error of the sample alone."""
    found, labels, wrong = evidence(n=3000, apart=8.0, named=False)
    odds = mixture.odds_of(found, labels, 4, 0)
    low, high = mixture.interval(found, odds, labels, 4, 0)
    rate = mixture.probability(odds).mean()
    error = np.sqrt(rate * (1 - rate) / 3000)
    assert low < rate < high and wrong.mean() == pytest.approx(rate, abs=0.01)
    assert (low + high) / 2 == pytest.approx(rate, abs=1e-9)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.35)


def test_doubtful_labels_widen_the_interval():
    widths = []
    for apart in (8.0, 2.0):
        found, labels, _ = evidence(n=3000, apart=apart, named=False)
        low, high = mixture.interval(found, mixture.odds_of(found, labels, 4, 0), labels, 4, 0)
        widths.append(high - low)
    assert widths[1] > 1.2 * widths[0]


def test_fitting_to_a_sample_takes_at_least_a_hundred_rows_per_class():
    assert len(mixture.sample(100, 3, 0)) == 100
    assert len(mixture.sample(30_000, 3, 0)) == mixture.SAMPLE
    assert len(mixture.sample(10**6, 1000, 0)) == 100 * 1000
    rows = mixture.sample(30_000, 3, 0)
    assert (np.diff(rows) > 0).all() and (rows != mixture.sample(30_000, 3, 1)).any()


def test_where_fits_agree_the_interval_is_the_uncertainty_of_the_labels(monkeypatch):
    """At even odds each label adds a quarter to the variance of their number."""
    found, labels, _ = evidence(n=900, named=False)
    monkeypatch.setattr(mixture, "log_odds", lambda *args: np.zeros(900))
    low, high = mixture.interval(found, np.zeros(900), labels, 4, 0)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.25 / 900), rel=1e-6)
