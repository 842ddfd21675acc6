"""`find_label_issues` on planted errors, closed cases, invariances and wrong input."""

import numpy as np
import pytest

from jaxrobust.audit import find_label_issues, issues, mixture, sources, validation
from jaxrobust.audit.evidence import Evidence
from jaxrobust.audit.scoring import auprc
from jaxrobust.errors import UserError


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def planted(n=3000, k=5, rate=0.2, seed=0, flip=None, classes=None):
    """Given and true labels, and predictions that are mostly right about the truth."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n) if classes is None else rng.choice(k, n, p=classes)
    other = (true + rng.integers(1, k, n)) % k if flip is None else np.asarray(flip)[true]
    given = np.where(rng.random(n) < rate, other, true)
    logits = rng.normal(size=(n, k)) + 3 * np.eye(k)[true] * rng.gamma(4, 0.5, (n, 1))
    return given, true, softmax(logits)


@pytest.mark.parametrize(
    "rate, flip", [(0.05, None), (0.2, None), (0.4, None), (0.6, None), (0.3, (1, 2, 3, 4, 0))]
)
def test_planted_errors_are_found_counted_and_corrected(rate, flip):
    given, true, p = planted(rate=rate, flip=flip)
    found = find_label_issues(given, probabilities=p)
    wrong = given != true
    assert (found.is_label_issue == wrong).mean() > 0.95
    assert abs(found.noise_rate - wrong.mean()) < 0.04
    low, high = found.noise_rate_interval
    assert 0 <= low < found.noise_rate < high <= 1 and high - low < 0.1
    assert (found.predicted_label[wrong] == true[wrong]).mean() > 0.9
    joint = np.zeros((5, 5))
    np.add.at(joint, (true, given), 1)
    np.testing.assert_allclose(found.noise_matrix.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(found.noise_matrix, joint / joint.sum(1, keepdims=True), atol=0.06)


def test_every_source_has_a_score_and_the_mean_of_their_log_odds_is_the_combination():
    given, true, p = planted()
    weights = np.where(given == true, 0.9, 0.2)
    found = find_label_issues(
        given, probabilities=p, training_probabilities=p[:, None], weights={"corrector": weights}
    )
    wrong = given != true
    assert list(found.scores) == ["dynamics", "prediction", "corrector"]
    for score in found.scores.values():
        assert abs((1 - score).mean() - wrong.mean()) < 0.03
    parts = sources.read(
        validation.read(given, p, p[:, None], None, {"corrector": weights}, None, None, None),
        seed=0,
    )
    odds = [issues.limited(part.odds) for part in parts.values()]
    order = np.argsort(-(3 * odds[0] + odds[1] + odds[2]), kind="stable")
    assert (np.diff(found.label_score[order]) >= 0).all()
    np.testing.assert_allclose((1 - found.label_score).mean(), found.noise_rate, atol=1e-6)
    np.testing.assert_array_equal(found.weight, weights)
    alone = find_label_issues(given, probabilities=p)
    np.testing.assert_array_equal(alone.scores["prediction"], alone.label_score)
    assert len(np.unique(alone.label_score)) > 2980  # however sure, the order is kept


def test_no_wrong_label_is_none_flagged():
    given, true, p = planted(rate=0)
    right = p.argmax(1) == true
    found = find_label_issues(given[right], probabilities=p[right])
    assert found.num_issues == 0 and found.noise_rate < 0.002
    np.testing.assert_allclose(found.noise_matrix, np.eye(5), atol=0.01)
    assert "No label" in found.notes[0]


def learned(n, epoch, seed=0):
    """Loss curves of examples that are learned about this epoch of forty."""
    rng = np.random.default_rng(seed)
    late = epoch + 2 * rng.normal(size=(n, 1))
    return 4 / (1 + np.exp((np.arange(40) - late) / 2)) + 0.2 * rng.random((n, 40))


NEAR_ONE = 1 + 0.01 * np.random.default_rng(0).random(600)


@pytest.mark.parametrize(
    "evidence",
    [
        {"weights": np.ones(600)},
        {"weights": np.full(600, 0.3)},
        {"weights": NEAR_ONE},
        {"curves": learned(600, 3)},
        {"curves": learned(600, 8, seed=1)},
        {"curves": learned(600, 3), "weights": np.ones(600)},
    ],
)
def test_evidence_against_no_label_flags_none(evidence):
    labels = np.random.default_rng(2).integers(0, 6, 600)
    found = find_label_issues(labels, **evidence)
    assert found.num_issues == 0 and found.noise_rate_interval[1] < 0.002
    assert "no_issues" in found.codes and "No label" in found.notes[0]


@pytest.mark.parametrize(
    "evidence",
    [
        {"curves": learned(600, 25)},
        {"curves": np.full((600, 40), 4.0)},
        {"weights": np.zeros(600)},
    ],
)
def test_evidence_against_every_label_flags_all(evidence):
    labels = np.random.default_rng(2).integers(0, 6, 600)
    found = find_label_issues(labels, **evidence)
    assert found.is_label_issue.all() and found.noise_rate_interval[0] > 0.99
    assert (found.predicted_label == -1).all() and "no_predictions" in found.codes


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_the_noise_matrix_of_a_class_without_examples_is_one_on_the_diagonal(rate):
    given, _, p = planted(rate=rate)
    p = np.concatenate([0.999 * p, np.full((len(p), 1), 0.001)], 1)
    matrix = find_label_issues(given, probabilities=p).noise_matrix
    np.testing.assert_array_equal(matrix[5], np.eye(6)[5])
    assert (matrix[:5, 5] == 0).all()


def test_every_label_wrong_is_all_flagged():
    given, true, p = planted(rate=1.0)
    sure = p.max(1) > 0.9
    found = find_label_issues(given[sure], probabilities=p[sure])
    assert found.is_label_issue.mean() > 0.98


def test_classes_of_few_examples_are_not_flagged_wholesale():
    shares = np.array([0.6, 0.3, 0.06, 0.03, 0.01])
    given, true, p = planted(n=4000, rate=0.1, classes=shares)
    found = find_label_issues(given, probabilities=p)
    for c in range(5):
        members = (given == c) & (true == c)
        assert found.is_label_issue[members].mean() < 0.12
        assert found.is_label_issue[(given == c) & (true != c)].mean() > 0.7


def test_noise_that_goes_certain_ways_is_told_from_classes_that_are_alike():
    """Classes 0 and 1 look alike, but wrong labels go from 2 to 3 only."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 8000)
    given = np.where((true == 2) & (rng.random(8000) < 0.3), 3, true)
    logits = 4 * np.eye(4)[true] + rng.normal(size=(8000, 4))
    alike = rng.normal(size=8000) * 3
    logits[:, 0] += np.where(true < 2, alike, 0)
    logits[:, 1] += np.where(true < 2, 3.0, 0)
    found = find_label_issues(given, probabilities=softmax(logits))
    matrix = found.noise_matrix
    assert abs(matrix[2, 3] - 0.3) < 0.05 and matrix[3, 2] < 0.03
    unlike = np.log(found.scores["prediction"])
    margin_alone = logits.max(1) - np.take_along_axis(logits, given[:, None], 1)[:, 0]
    near = (margin_alone > 2) & (margin_alone < 4)
    assert unlike[near & (given == 3)].mean() < unlike[near & (given < 2)].mean() - 1


def test_the_class_named_in_a_labels_place_counts():
    """Labels go wrong from k to k + 1 only: where k is named for k + 1, that is more suspect."""
    given, _, p = planted(n=6000, rate=0.25, flip=(1, 2, 3, 4, 0))
    score = find_label_issues(given, probabilities=p).label_score
    own = np.take_along_axis(p, given[:, None], 1)[:, 0]
    others = p.copy()
    others[np.arange(len(given)), given] = 0
    margin, named = np.log(others.max(1) / own), others.argmax(1)
    near = (margin > -0.5) & (margin < 0.5)
    usual, unusual = ((named == (given + step) % 5) & near for step in (-1, 1))
    assert abs(margin[usual].mean() - margin[unusual].mean()) < 0.2
    assert score[usual].mean() < score[unusual].mean() - 0.1


def test_a_handful_of_hard_examples_of_one_class_does_not_condemn_them():
    given, _, p = planted(n=2000, k=4, rate=0.1)
    hard = np.tile([0.89, 0.01, 0.01, 0.01, 0.08], (6, 1))
    p = np.concatenate([np.pad(0.999 * p, ((0, 0), (0, 1)), constant_values=0.001), hard])
    found = find_label_issues(np.append(given, np.full(6, 4)), probabilities=p)
    assert (found.label_score[-6:] > 0.5).all()


def test_the_interval_holds_the_true_rate():
    """Of 40 data sets; the mistakes of the network are few here, and allowed for."""
    held, widths = 0, {400: [], 1600: []}
    for seed in range(40):
        n = 400 if seed < 36 else 1600
        given, true, p = planted(n=n, rate=(0.1, 0.2, 0.4)[seed % 3], seed=seed)
        found = find_label_issues(given, probabilities=p)
        low, high = found.noise_rate_interval
        held += low <= (given != true).mean() <= high
        widths[n].append(high - low)
        assert found.num_issues_interval == (round(low * n), round(high * n))
    assert held >= 34
    assert 0.05 < np.mean(widths[400]) < 0.16 and np.mean(widths[1600]) < np.mean(widths[400])


def test_labels_learned_by_heart_are_not_counted_and_not_in_the_interval():
    """What the report says: the network's own errors are not in it."""
    given, true, p = planted(rate=0.4)
    by_heart = (given != true) & (np.random.default_rng(1).random(3000) < 0.5)
    p[by_heart] = 0.9 * np.eye(5)[given[by_heart]] + 0.02
    found = find_label_issues(given, probabilities=p)
    assert abs(found.noise_rate - 0.2) < 0.04
    assert found.noise_rate_interval[1] < 0.7 * (given != true).mean()


def test_order_of_examples_and_names_of_classes_do_not_matter():
    given, _, p = planted()
    found = find_label_issues(given, probabilities=p)
    order = np.random.default_rng(1).permutation(len(given))
    again = find_label_issues(given[order], probabilities=p[order])
    np.testing.assert_allclose(again.label_score, found.label_score[order], rtol=1e-5, atol=1e-9)
    swap = np.array([3, 0, 4, 1, 2])
    renamed = find_label_issues(swap[given], probabilities=p[:, np.argsort(swap)])
    np.testing.assert_allclose(renamed.label_score, found.label_score, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(renamed.predicted_label, swap[found.predicted_label])
    np.testing.assert_allclose(
        renamed.noise_matrix[np.ix_(swap, swap)], found.noise_matrix, atol=1e-6
    )


def test_loss_curves_alone_find_wrong_labels_and_suggest_none():
    rng = np.random.default_rng(0)
    wrong = rng.random(2000) < 0.2
    given = rng.integers(0, 10, 2000)
    epochs = np.arange(40)
    learned = np.where(wrong, 25, 3) + rng.normal(size=2000) * 2  # the epoch of learning it
    curves = 4 / (1 + np.exp((epochs - learned[:, None]) / 2)) + rng.random((2000, 40)) * 0.2
    curves[:5] = np.nan
    found = find_label_issues(given, curves=curves)
    assert (found.is_label_issue == wrong)[5:].mean() > 0.98
    assert (found.predicted_label == -1).all() and found.noise_matrix is None
    np.testing.assert_allclose(found.label_score[:5], 1 - found.noise_rate, atol=0.15)


def test_of_the_parts_of_a_training_that_one_is_taken_that_tells_most():
    """Memorized at the end: the last part names the given label everywhere."""
    given, true, early = planted()
    end = softmax(6 * np.eye(5)[given])

    def beginnings(*parts):
        return np.cumsum(np.stack(parts, 1), 1) / np.arange(1, 5)[:, None]

    seen = beginnings(early, end, end, end)
    found = find_label_issues(given, training_probabilities=seen)
    alone = find_label_issues(given, training_probabilities=early)
    np.testing.assert_allclose(found.label_score, alone.label_score, atol=1e-9)
    start = 0.2 + np.random.default_rng(0).random(early.shape) * 0.1  # nothing learned at first
    start /= start.sum(1, keepdims=True)
    late = beginnings(start, early, early, early)
    found = find_label_issues(given, training_probabilities=late)
    assert (found.is_label_issue == (given != true)).mean() > 0.95


@pytest.mark.parametrize("named, taken", [(0.2, 1), (-1.0, 0)])
def test_while_few_given_labels_are_named_the_whole_training_counts(named, taken):
    """An early part that tells more is better only once wrong labels are being learned."""
    rng = np.random.default_rng(0)
    wrong, labels = rng.random(4000) < 0.2, rng.integers(0, 5, 4000)
    early = np.where(wrong, 1.0, -1.0) + 0.2 * rng.normal(size=4000)
    whole = np.where(wrong, 0.4, named) + 0.4 * rng.normal(size=4000)
    answers = [Evidence(e, (-1.0, 0.1), (1.0, 0.1)) for e in (early, whole)]
    assert mixture.choose(answers, labels, 5, seed=0) == taken


def test_names_and_columns():
    given, _, p = planted(n=200, k=3)
    names = np.array(["cat", "dog", "emu"])
    found = find_label_issues(
        names[given],
        probabilities=p,
        paths=[f"{i}.png" for i in range(200)],
        index=np.arange(200) + 1000,
    )
    assert found.class_names == ("cat", "dog", "emu")
    table = found.columns()
    assert list(table) == [
        "index",
        "path",
        "given_label",
        "predicted_label",
        "label_score",
        "is_label_issue",
        "weight",
        "rank",
    ]
    assert list(table["rank"]) == list(range(1, 201))
    assert (np.diff(table["label_score"]) >= 0).all()
    first = table["index"][0] - 1000
    assert table["path"][0] == f"{first}.png" and table["given_label"][0] == names[given[first]]
    np.testing.assert_array_equal(found.indices, table["index"][table["is_label_issue"]])


def test_all_examples_of_one_given_class():
    _, true, p = planted(rate=0.0)
    found = find_label_issues(np.zeros(len(true), int), probabilities=p)
    assert ((found.label_score < 0.5) == (true != 0)).mean() > 0.95


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_examples(n):
    found = find_label_issues(
        [0, 1, 0][:n], probabilities=np.array([[0.9, 0.1]] * n), weights=np.ones(n)
    )
    assert np.isfinite(found.label_score).all() and len(found) == n


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "no evidence"),
        ({"probabilities": np.full((4, 3), 0.5)}, "example 0 sum to 1.5"),
        ({"probabilities": np.array([[1, 0, 0], [1, 0, 0], [2, -1, 0], [1, 0, 0]])}, "example 2"),
        ({"probabilities": np.array([[1, 0, 0], [1, 0, 0], [np.nan] * 3, [1, 0, 0]])}, "example 2"),
        ({"probabilities": np.full((3, 3), 1 / 3)}, "3 rows for 4 labels"),
        ({"probabilities": np.full((4, 2), 0.5), "class_names": "ab"}, "outside the classes 0..1"),
        ({"probabilities": np.full((4, 4), 0.25), "class_names": "abc"}, "for 4 classes; there"),
        ({"curves": np.ones(4)}, "expected 2 dimensions"),
        ({"weights": np.array([1, -1, 1, 1])}, "negative"),
        ({"weights": np.ones(4), "paths": ["a"]}, "1 paths for 4 labels"),
        ({"weights": np.ones(4), "class_names": "aab"}, "not distinct"),
        ({"weights": np.array(list("abcd"))}, "must be numbers"),
        ({"weights": np.ones(4), "index": np.arange(3)}, r"index has shape \[3\] for 4 labels"),
        ({"weights": np.ones(4), "index": np.arange(4) / 2}, "index must be whole numbers"),
        ({"curves": np.full((4, 9), np.nan)}, "curves contains only NaN"),
        ({"training_probabilities": np.full((4, 2, 3), np.nan)}, "contains only NaN"),
    ],
)
def test_wrong_input_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        find_label_issues([0, 1, 2, 1], **arguments)
    assert "\n" not in str(error.value)


def test_wrong_labels_are_one_line():
    for labels, message in [
        ([], "empty"),
        ([0, 0], "one class only"),
        ([[0, 1]], "multi-label"),
        (np.zeros((2, 2, 2), int), "must be"),
        ([0, -1, 1], "Label 1 is -1, outside the classes 0..1"),
        (["a", "a"], "one class only"),
        ([0.5, 1], "not whole"),
    ]:
        with pytest.raises(UserError, match=message):
            find_label_issues(labels, weights=np.ones(len(labels)))
    with pytest.raises(UserError, match="Label 1 is 'emu'"):
        find_label_issues(["cat", "emu"], weights=np.ones(2), class_names=["cat", "dog"])


def test_a_class_that_is_learned_badly_is_not_taken_for_a_mislabeled_one():
    """A poor network: it knows the even classes well, the odd ones hardly."""
    rng = np.random.default_rng(0)
    n, k = 6000, 10
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < 0.15, (true + rng.integers(1, k, n)) % k, true)
    z = rng.normal(size=(n, k)) * 1.5
    z[np.arange(n), true] += np.where(true % 2 == 0, 3.0, 0.8)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    found = find_label_issues(given, probabilities=p)
    wrong = given != true
    assert auprc(wrong, -found.rank) > 2.3 * wrong.mean()
    assert "two_fits_differ" in found.codes
    flagged = np.bincount(given, found.is_label_issue, k) / np.bincount(given, minlength=k)
    assert flagged[1::2].max() < 0.8


TRUE = np.arange(240) % 4
SURE = 0.88 * np.eye(4)[TRUE] + 0.03
ANIMALS = np.array(["ant", "bee", "cat", "dog"])


@pytest.mark.parametrize("nothing", ["", "nan", "NA", "NULL", "None", " "])
@pytest.mark.parametrize("kind", [object, "U4"])
def test_texts_that_stand_for_a_missing_label_are_named_by_row(nothing, kind):
    labels = ANIMALS[TRUE].astype(kind)
    labels[7] = nothing
    with pytest.raises(UserError, match="Label 7 is missing"):
        find_label_issues(labels, SURE)


def test_a_class_that_is_named_may_be_called_as_missing_values_are():
    names = np.array(["None", "bee", "cat", "dog"])
    found = find_label_issues(names[TRUE], SURE, class_names=names.tolist())
    assert found.class_names == tuple(names) and found.num_issues == 0


def test_a_masked_label_is_missing():
    with pytest.raises(UserError, match="Label 4 is missing"):
        find_label_issues(np.ma.array(TRUE, mask=np.arange(240) == 4), SURE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (TRUE.astype(complex), "complex numbers"),
        (TRUE.astype(np.uint64) + np.uint64(2**63), "Label 0 is 9223372036854775808, no number"),
        (np.eye(4, dtype=int)[TRUE], r"one-hot rows pass labels.argmax\(1\)"),
    ],
)
def test_labels_of_other_kinds_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        find_label_issues(labels, SURE)


def test_labels_that_are_codes_are_names_of_classes():
    codes = np.array([10042, 7, 2**60, 10**6])[TRUE]
    found = find_label_issues(codes, weights=np.linspace(0.1, 1, 240))
    assert found.class_names == ("7", "10042", "1000000", str(2**60))
    assert found.given_label[:4].tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 2, 3, 1], [3, 2, 1, 0]])
def test_columns_that_are_exchanged_are_noted_even_if_most_are_in_place(order):
    assert "column_order" in find_label_issues(TRUE, SURE[:, order]).codes
    assert "column_order" not in find_label_issues(TRUE, SURE).codes


def test_heavy_noise_between_two_classes_is_no_exchange_of_columns():
    rng = np.random.default_rng(0)
    labels = np.where((TRUE < 2) & (rng.random(240) < 0.45), 1 - TRUE, TRUE)
    assert "column_order" not in find_label_issues(labels, SURE).codes


def test_features_that_are_the_same_for_all_say_nothing():
    found = find_label_issues(TRUE, features=np.ones((240, 5)))
    assert found.num_issues == 0 and "collapsed" in found.codes
    assert "duplicates_in_conflict" not in found.codes


def test_names_of_classes_that_look_alike_are_noted():
    names = ["cat", "Cat", "dog", "eel"]
    assert (
        "similar_names"
        in find_label_issues(
            np.array(names)[TRUE], class_names=names, weights=np.linspace(0.1, 1, 240)
        ).codes
    )
    found = find_label_issues(TRUE, weights=np.linspace(0.1, 1, 240))
    assert "similar_names" not in found.codes


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (100 * SURE, "percentages: divide them by 100"),
        (SURE.argmax(1), r"Pass predict_proba's result; of one column p, np.column_stack"),
        (SURE[:, :1], r"of one column p pass np.column_stack\(\[1 - p, p\]\)"),
    ],
)
def test_other_forms_of_predictions_are_told_how_to_pass(p, message):
    with pytest.raises(UserError, match=message):
        find_label_issues(TRUE, p)


def test_a_class_without_a_column_is_named():
    pd = pytest.importorskip("pandas")
    p = pd.DataFrame(SURE[:, :3] / SURE[:, :3].sum(1, keepdims=True), columns=ANIMALS[:3])
    with pytest.raises(UserError, match="have none for the classes dog"):
        find_label_issues(ANIMALS[TRUE], p)
