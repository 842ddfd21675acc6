"""Parts of the audit by hand: decision, neighbors, recorder, evidence, validation, cards."""

import types

import numpy as np
import pandas as pd
import pytest

from jaxrobust.audit import (
    decision,
    evidence,
    find_label_issues,
    neighbors,
    recorder,
    report,
    sources,
    validation,
)
from jaxrobust.audit import noise_model as model
from jaxrobust.audit.cross_validation import out_of_sample
from jaxrobust.errors import UserError


def predictions(n=600, k=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    p = rng.dirichlet(np.ones(k), n) * 0.5 + 0.5 * np.eye(k)[labels]
    return p.astype(np.float32), labels


def noisy(n=600, seed=0):
    """Predictions of which a fifth of the labels are wrong."""
    p, true = predictions(n, seed=seed)
    wrong = np.random.default_rng(seed + 1).random(n) < 0.2
    return p, np.where(wrong, (true + 1) % 3, true)


def test_of_a_row_without_a_prediction_the_prior_odds_are_said():
    p, labels = noisy()
    p[::7] = np.nan
    d = decision.decide(p, labels)
    unknown = np.isnan(p[:, 0])
    np.testing.assert_allclose(d.odds[unknown], np.log(d.rate / (1 - d.rate)), rtol=1e-6)
    assert not d.contradicted[unknown].any() and (d.margin[unknown] == 0).all()
    whole = decision.decide(p[~unknown], labels[~unknown])
    np.testing.assert_array_equal(d.odds[~unknown], whole.odds)
    np.testing.assert_array_equal(d.best[~unknown], whole.best)


def test_rows_that_do_not_sum_to_one_are_fitted_as_if_they_did():
    p, labels = predictions()
    a, b = decision.fit(p, labels), decision.fit(0.98 * p, labels)
    np.testing.assert_allclose(a.free.matrix, b.free.matrix, atol=1e-4)
    assert a.held.scale == pytest.approx(b.held.scale, rel=1e-3)


def test_margin_and_best_are_of_the_most_probable_other_class():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]], np.float32).repeat(40, 0)
    labels = np.array([0, 0, 2]).repeat(40)
    d = decision.decide(p, labels)
    assert d.best[[0, 40, 80]].tolist() == [1, 2, 1]
    np.testing.assert_allclose(
        d.margin[[0, 40, 80]], np.log([0.2 / 0.7, 0.4 / 0.3, 0.5 / 0.25]), rtol=1e-5
    )
    assert d.contradicted[[0, 40, 80]].tolist() == [False, True, True]


def test_an_equal_probability_contradicts_nothing():
    p = np.tile(np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], np.float32), (50, 1))
    d = decision.decide(p, np.tile([0, 1], 50))
    assert not d.contradicted.any()


def test_rate_and_joint_are_weighted_means_of_both_explanations():
    p, labels = predictions()
    d = decision.decide(p, labels)
    share = decision.HELD_SHARE
    assert d.rate == pytest.approx((1 - share) * d.free + share * d.held)
    assert d.joint.sum() == pytest.approx(len(labels), rel=1e-4)
    assert 1 - d.joint.trace() / len(labels) == pytest.approx(d.rate, abs=1e-6)
    np.testing.assert_allclose(d.joint.sum(0), np.bincount(labels), rtol=1e-4)


def test_suspicion_is_the_mean_of_both_log_odds_and_the_margin():
    p, labels = predictions()
    fitted = decision.fit(p, labels)
    d = decision._pass(fitted, p, labels)
    z = model.log_predictions(p, fitted.inverse)
    both = sum(model.apply(fit, z, labels)[0] for fit in (fitted.free, fitted.held))
    np.testing.assert_allclose(d.odds, (both + d.margin) / 3, atol=2e-3)


def test_blocks_of_rows_change_nothing(monkeypatch):
    p, labels = predictions()
    whole = decision.decide(p, labels)
    monkeypatch.setattr(decision, "_CHUNK", 100)
    for a, b in zip(whole, decision.decide(p, labels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_interval_holds_the_rates_and_what_is_contradicted():
    n = 10_000
    low, high = decision._interval((0.10, 0.20), 0.10, n)
    assert low == pytest.approx(0.10 - 2 * np.sqrt(0.1 * 0.9 / n), abs=1e-9)
    assert high == pytest.approx(0.20 + 2 * np.sqrt(0.2 * 0.8 / n), abs=1e-9)
    low, high = decision._interval((0.10, 0.20), 0.30, n)
    assert low == pytest.approx(0.0, abs=1e-9)  # .1 - half of (.3 - .1)
    upper = decision.BEYOND * 0.30
    assert high == pytest.approx(upper + 2 * np.sqrt(upper * (1 - upper) / n), abs=1e-9)
    low, high = decision._interval((0.0, 0.0), 0.0, 100)
    assert low == 0 and high == pytest.approx(2 * np.sqrt(0.01 / 100))  # one in n at least
    assert decision._interval((1.0,), 1.0, 100)[1] == 1


def test_an_inverse_is_taken_only_where_there_is_one_and_it_is_not_huge():
    assert decision._inverse(np.ones((2, 2)) / 2) is None
    near = np.array([[0.505, 0.495], [0.495, 0.505]])
    assert decision._inverse(near) is None  # entries of about 50
    fine = np.array([[0.8, 0.2], [0.1, 0.9]])
    np.testing.assert_allclose(decision._inverse(fine) @ fine, np.eye(2), atol=1e-12)


def test_the_profile_holds_both_fits_and_widens_with_doubt():
    """Few examples allow more noise matrices than many."""
    widths = []
    for n in (90, 9000):
        p, labels = noisy(n)
        fitted = decision.fit(p, labels)
        low, high = fitted.profile
        assert 0 <= low <= high <= 1
        widths.append(high - low)
    assert widths[0] > widths[1]


def test_a_neighbor_counts_by_its_distance_over_those_of_the_others():
    """exp(-d^2 / mean d^2), and one pseudo-neighbor spread over the classes."""
    found = neighbors.Neighbors(np.array([[1, 2]]), np.array([[1.0, 2.0]], np.float32), 3)
    p = neighbors.label_probabilities(found, np.array([0, 1, 0]), 2)
    near, far = np.exp(-1 / 2.5), np.exp(-4 / 2.5)
    np.testing.assert_allclose(p, [[0.5 + far, 0.5 + near] / (1 + near + far)], rtol=1e-6)
    twice = found._replace(distance=2 * found.distance)
    np.testing.assert_array_equal(p, neighbors.label_probabilities(twice, np.array([0, 1, 0]), 2))


def test_near_pairs_are_neighbors_below_the_limit_once_each():
    x = np.array([[1, 0], [1, 1e-4], [0, 1], [-1, 0.0]], np.float32)
    found = neighbors.duplicates(x, np.array([0, 1, 0, 1]), near=0.05)
    assert found.pairs.tolist() == [[0, 1]]
    assert not found.exact[0] and found.conflict[0]
    assert len(neighbors.duplicates(x, np.zeros(4, int), near=0).pairs) == 0


def test_across_names_the_test_row_and_its_training_row():
    train = np.eye(4, dtype=np.float32)
    test = np.array([[1.0, 1, 0, 0], [0, 0, 2, 0]], np.float32)
    assert neighbors.across(train, test).tolist() == [[1, 2]]


def test_a_recorder_merges_when_any_example_is_full():
    """Rows that are met at different times: the slots of all stay comparable."""
    rec = recorder.Recorder(2, 2)
    for _ in range(recorder.SLOTS):
        rec.update([0], [[0.9, 0.1]])
    rec.update([0, 1], [[0.1, 0.9], [0.2, 0.8]])  # the first is full, the second new
    assert rec._width == 2
    np.testing.assert_allclose(
        rec.probabilities[0, -1],
        [(0.9 * recorder.SLOTS + 0.1) / (recorder.SLOTS + 1)] * 1
        + [(0.1 * recorder.SLOTS + 0.9) / (recorder.SLOTS + 1)],
        rtol=1e-5,
    )
    np.testing.assert_allclose(rec.probabilities[1, -1], [0.2, 0.8], rtol=1e-6)
    assert rec._count[0].sum() == recorder.SLOTS + 1 and rec._count[1, 0] == 1


def test_beginnings_are_an_eighth_a_quarter_a_half_and_all():
    rec = recorder.Recorder(1, 2)
    for epoch in range(8):
        rec.update([0], [[epoch / 10, 1 - epoch / 10]])
    first = [np.mean([e / 10 for e in range(n)]) for n in (1, 2, 4, 8)]
    np.testing.assert_allclose(rec.probabilities[0, :, 0], first, atol=1e-6)


def test_logits_are_a_softmax_and_huge_ones_no_overflow():
    rec = recorder.Recorder(2, 3)
    rec.update([0, 1], [[1.0, 2.0, 3.0], [1000.0, 999.0, -np.inf]])
    e = np.exp([1.0, 2.0, 3.0])
    np.testing.assert_allclose(rec.probabilities[0, 0], e / e.sum(), rtol=1e-6)
    np.testing.assert_allclose(rec.probabilities[1, 0], [0.731059, 0.268941, 0], atol=1e-6)


def test_evidence_of_curves_is_the_mean_over_growing_beginnings_over_log_k():
    curves = np.arange(1.0, 33.0)[None].repeat(2, 0)
    curves[1, 3] = np.nan
    found = evidence.from_curves(curves, 4)
    ends = [2, 4, 8, 16, 32]
    for answer, end in zip(found, ends, strict=True):
        expected = np.nanmean(curves[:, :end], axis=1) / np.log(4) - 1
        np.testing.assert_allclose(answer.value, expected, rtol=1e-6)
        assert answer.right == (-1.0, 0.25) and answer.wrong == (1.0, 0.25)


def test_evidence_of_weights_is_the_log_odds_of_not_being_trusted():
    found = evidence.from_weights(np.array([0.0, 1.0, 2.0]))
    w = evidence.FLOOR
    np.testing.assert_allclose(found.value, [np.log((1 - w) / w), 0, np.log(w / (1 - w))])
    assert found.right[0] == pytest.approx(found.value[2]) and found.wrong[0] == -found.right[0]


def test_evidence_of_two_classes_by_hand():
    """With two equally predicted classes: the plain log-ratio of the other to the given one."""
    p = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.6, 0.4]], np.float32)
    found = evidence.from_probabilities(p, np.array([0, 0, 1, 1]))
    f = evidence.FLOOR
    ratio = [np.log((b + f) / (a + f)) for a, b in ((0.9, 0.1), (0.1, 0.9), (0.6, 0.4), (0.4, 0.6))]
    np.testing.assert_allclose(found.value, ratio, rtol=1e-3)
    assert found.classes[:, 0].tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(found.belief, 1, rtol=1e-5)
    assert found.right[0] == -found.wrong[0] < 0


def test_belief_is_shared_by_the_alternatives():
    p = np.array(
        [[0.2, 0.2, 0.6]] * 30 + [[0.6, 0.2, 0.2]] * 30 + [[0.2, 0.6, 0.2]] * 30, np.float32
    )
    found = evidence.from_probabilities(p, np.zeros(90, int))
    assert found.classes[0].tolist()[:1] == [2]
    np.testing.assert_allclose(found.belief.sum(1), 1, rtol=1e-5)
    assert found.belief[0, 0] == pytest.approx(0.75, abs=0.01)


def test_the_annotators_fractions_are_rate_margin_and_interval():
    agreement = np.array([[0.8, 0.2, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    found = sources.of_annotators(agreement, np.array([0, 1, 2]))
    rate = (0.2 + 0.5 + 0) / 3
    assert found.rate == pytest.approx(rate, abs=1e-5)
    spread = 2 * np.sqrt(rate * (1 - rate) / 3)
    assert found.interval == pytest.approx((max(rate - spread, 0), rate + spread), abs=1e-5)
    np.testing.assert_allclose(found.margin[:2], [np.log(0.25), 0], atol=1e-4)
    assert found.best[:2].tolist() == [1, 2] and found.margin[2] < -10
    np.testing.assert_allclose(found.joint.sum(0), [1, 1, 1], rtol=1e-5)


def test_scores_are_one_half_at_the_odds_that_the_rate_says_and_average_to_it():
    odds = np.linspace(-6, 6, 501)
    for rate in (0.1, 0.5, 0.9):
        score = sources.score_of(odds, rate)
        assert 1 - score.mean() == pytest.approx(rate, abs=1e-6)
        assert (np.diff(score) < 0).all()
    np.testing.assert_allclose(sources.limited(np.array([0.1, -0.1])), [0.1, -0.1], rtol=1e-3)
    assert abs(sources.limited(np.array([1e9]))[0]) == pytest.approx(sources.LIMIT)


@pytest.mark.parametrize(
    "values, absent",
    [
        (np.array([1.0, np.nan]), [False, True]),
        (np.array(["a", None], object), [False, True]),
        (np.array([1, 2]), [False, False]),
        (np.array(["a", "b"]), [False, False]),
    ],
)
def test_what_is_absent_among_labels(values, absent):
    assert validation._absent(values).tolist() == absent


def test_text_labels_are_numbered_in_the_order_of_the_names_given():
    codes, names = validation._texts(np.array(["b", "a", None], object), ("b", "a", "c"))
    assert codes.tolist() == [0, 1, -1] and names == ("b", "a", "c")
    codes, names = validation._texts(np.array(["10", "9", "9"]), None)
    assert codes.tolist() == [1, 0, 0] and names == ("9", "10")
    codes, names = validation._texts(np.array(["010", "9", "b"]), None)
    assert names == ("010", "9", "b")
    with pytest.raises(UserError, match="Label 1 is 'z', outside b, a"):
        validation._texts(np.array(["b", "z"]), ("b", "a"))


def test_evidence_of_one_kind_alone_is_enough_and_only_nan_is_none():
    labels = np.arange(40) % 2
    curves = np.full((40, 3), np.nan)
    with pytest.raises(UserError, match="curves contains only NaN"):
        find_label_issues(labels, curves=curves)
    curves[0, 2] = 0.5  # one number, in the last column of the first row
    assert len(find_label_issues(labels, curves=curves)) == 40
    during = np.full((40, 2, 2), np.nan)
    with pytest.raises(UserError, match="training_probabilities contains only NaN"):
        find_label_issues(labels, training_probabilities=during)
    during[:] = 0.5
    during[5] = np.nan
    assert len(find_label_issues(labels, training_probabilities=during)) == 40


def test_rounded_rows_pass_and_rows_beyond_rounding_do_not():
    """Half a hundredth per class, and a hundredth for one that was cut; never more than a fifth."""
    labels = np.arange(30) % 3
    good = np.full((30, 3), 1 / 3)
    for factor, fine in ((1.024, True), (0.976, True), (1.03, False), (0.97, False)):
        p = good * np.where(np.arange(30) == 4, factor, 1)[:, None]
        if fine:
            find_label_issues(labels, p)
        else:
            with pytest.raises(UserError, match="probabilities of example 4 sum to"):
                find_label_issues(labels, p)
    negative = good.copy()
    negative[2] = [-0.02, 0.5, 0.52]
    with pytest.raises(UserError, match="example 2 sum to 1, with smallest -0.02: not probabil"):
        find_label_issues(labels, negative)
    many = np.full((400, 200), 1 / 200)
    many[3] *= 1.19
    find_label_issues(np.arange(400) % 200, many)
    many[3] *= 1.21 / 1.19
    with pytest.raises(UserError, match="example 3"):
        find_label_issues(np.arange(400) % 200, many)


def test_paths_and_index_go_with_the_examples():
    p, labels = predictions(60)
    found = find_label_issues(
        labels, p, paths=[f"p{i}" for i in range(60)], index=np.arange(60) + 7
    )
    assert found.paths[3] == "p3" and found.index[3] == 10
    assert find_label_issues(labels, p).index.tolist() == list(range(60))
    for wrong, said in (({"paths": ["a"]}, "1 paths for 60"), ({"index": [1.5] * 60}, "whole")):
        with pytest.raises(UserError, match=said):
            find_label_issues(labels, p, **wrong)


def test_a_frame_is_put_in_the_order_of_the_labels_only_where_their_index_says_so():
    p, labels = predictions(30)
    frame = pd.DataFrame(p, index=np.arange(30)[::-1])
    series = pd.Series(labels, index=np.arange(30))
    np.testing.assert_allclose(validation._in_order_of(series, frame).to_numpy(), p[::-1])
    assert validation._in_order_of(labels, frame) is frame
    twice = pd.DataFrame(p, index=[0] * 30)
    assert validation._in_order_of(series, twice) is twice
    other = pd.DataFrame(p, index=np.arange(30) + 1)
    assert validation._in_order_of(series, other) is other


def test_one_source_has_the_score_of_the_combination_and_two_their_own():
    p, labels = predictions(200)
    one = find_label_issues(labels, p)
    np.testing.assert_array_equal(one.scores["prediction"], one.label_score)
    two = find_label_issues(labels, p, weights={"curvenet": np.linspace(1, 0, 200)})
    for name in two.scores:
        assert not np.array_equal(two.scores[name], two.label_score)
        assert two.scores[name].shape == (200,)


def test_folds_are_shuffled_and_differ_by_seed():
    """In sorted data the first fold must not be the first rows."""
    from sklearn.linear_model import LogisticRegression

    class Seen(LogisticRegression):
        rows: list = []

        def predict_proba(self, x):
            Seen.rows.append(np.asarray(x)[:, 0].astype(int).tolist())
            return super().predict_proba(x)

    x = np.arange(60.0)[:, None]
    labels = np.arange(60) // 30
    for seed in (0, 1):
        out_of_sample(Seen(), x, labels, 2, folds=3, seed=seed)
    first, other = Seen.rows[0], Seen.rows[3]
    assert np.ptp([r for r in first if r < 30]) > 15  # not ten rows in a row
    assert sorted(first) != sorted(other)
    assert sorted(sum(Seen.rows[:3], [])) == list(range(60))


@pytest.mark.parametrize("side, small", [((63, 63), True), ((64, 10), False), ((10, 64), False)])
def test_small_pictures_are_shown_in_their_own_pixels(side, small):
    labels = np.arange(30) % 3
    issues = find_label_issues(labels, 0.8 * np.eye(3)[labels] + 1 / 15)
    train = types.SimpleNamespace(x=np.zeros((30, *side, 3), np.uint8))
    assert report._card(issues, None, train, 0)["pixelated"] is small


def test_labels_that_are_corrected_are_a_copy():
    from jaxrobust.audit import decisions, export

    labels, given = np.arange(40) % 2, np.arange(40) % 2
    issues = find_label_issues(given, 0.8 * np.eye(2)[(np.arange(40) < 4) ^ given] + 0.1)
    label = np.where(np.arange(40) == 3, 0, -1).astype(np.int32)
    decided = decisions.none(issues)._replace(label=label)
    for change in (
        lambda: export.corrected(issues, labels, np.arange(40)),
        lambda: decisions.corrected(decided, labels, np.arange(40)),
    ):
        assert (change() != labels).any()
        np.testing.assert_array_equal(labels, given)


def test_groups_may_be_a_list():
    from sklearn.linear_model import LogisticRegression

    x, labels = np.arange(40.0)[:, None], np.arange(40) % 2
    p = out_of_sample(LogisticRegression(), x, labels, 2, groups=[f"g{i % 8}" for i in range(40)])
    assert p.shape == (40, 2)


def test_a_sample_of_neighbors_is_named_only_where_there_is_one(monkeypatch):
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    labels = np.arange(120) % 3
    assert "sampled_neighbors" not in sources.of_features(x, labels, 3, 0)[0].codes
    nearest = neighbors.nearest
    monkeypatch.setattr(
        sources.neighbors, "nearest", lambda f, **options: nearest(f, references=119, **options)
    )
    assert "sampled_neighbors" in sources.of_features(x, labels, 3, 0)[0].codes


def test_the_nearest_of_a_sample_are_kept_also_for_rows_outside_it():
    x = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    found = neighbors.nearest(x, neighbors=4, references=20)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    sample = np.unique(found.index)
    for row in range(60):
        others = sample[sample != row]
        distance = np.linalg.norm(u[others] - u[row], axis=1)
        np.testing.assert_allclose(found.distance[row], np.sort(distance)[:4], atol=1e-3)


def test_of_near_ones_alone_the_same_direction_is_no_exact_duplicate():
    x = np.array([[1, 0], [2, 0], [0, 1], [0, 1]], np.float32)
    found = neighbors.duplicates(x, np.array([0, 0, 0, 1]), near=0)
    assert found.pairs.tolist() == [[2, 3]] and found.exact.all() and found.conflict.all()
    assert len(neighbors.duplicates(x, np.zeros(4, int)).pairs) == 2


def test_annotators_that_are_seldom_right_count_little():
    """Dawid and Skene: of five, three are drawn by lot; the other two decide."""
    from jaxrobust.data import crowd

    rng, true = np.random.default_rng(0), np.arange(600) % 3
    votes = rng.integers(0, 3, (600, 5))
    votes[:, :2] = true[:, None]
    agreed, p = crowd.consensus(votes, 3, "dawid_skene")
    assert (agreed == true).mean() > 0.97 > (crowd.majority(votes, 3).argmax(1) == true).mean()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-9)
    one = crowd.dawid_skene(np.array([[0, -1], [1, 1], [-1, -1]]), 2)
    assert one[0, 0] > 0.5 < one[1, 1]
    np.testing.assert_allclose(one[2], one[2][::-1], atol=0.2)  # nobody has said anything


def test_a_posterior_of_few_votes_is_shrunk_to_what_is_common():
    """One vote of a new annotator counts about as an average one, not as a certainty."""
    from jaxrobust.data import crowd

    votes = np.full((101, 3), -1)
    votes[:100, 0] = votes[:100, 1] = np.arange(100) % 2
    votes[:20, 1] = 1 - votes[:20, 1]
    votes[100, 2] = 1
    p = crowd.dawid_skene(votes, 2)
    assert 0.6 < p[100, 1] < 0.999
