"""Neighbors by hand, duplicates that are planted, and labels from neighbors."""

import numpy as np
import pytest

from jaxrobust.audit import find_label_issues, neighbors
from jaxrobust.errors import UserError


def blobs(n=300, k=3, d=8, seed=0):
    rng = np.random.default_rng(seed)
    true = np.arange(n) % k
    return (rng.normal(size=(n, d)) * 0.3 + 3 * np.eye(k, d)[true]).astype(np.float32), true


def test_neighbors_are_those_of_a_full_distance_matrix_without_oneself():
    x, _ = blobs(60)
    found = neighbors.nearest(x, neighbors=5)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = np.linalg.norm(u[:, None] - u[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(found.index, np.argsort(distance, 1)[:, :5])
    np.testing.assert_allclose(found.distance, np.sort(distance, 1)[:, :5], atol=1e-3)


def test_many_exact_duplicates_do_not_stand_for_oneself():
    x = np.ones((12, 3), np.float32)
    found = neighbors.nearest(x, neighbors=4)
    assert (found.index != np.arange(12)[:, None]).all()


def test_wrong_labels_disagree_with_their_neighbors():
    x, true = blobs()
    wrong = np.arange(300) % 10 == 0
    labels = np.where(wrong, (true + 1) % 3, true)
    p = neighbors.label_probabilities(neighbors.nearest(x), labels, 3)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(p.argmax(1), true)


def test_an_examples_own_label_does_not_count():
    x, true = blobs(30)
    other = true.copy()
    other[4] = (other[4] + 1) % 3
    found = neighbors.nearest(x)
    a, b = (neighbors.label_probabilities(found, labels, 3) for labels in (true, other))
    np.testing.assert_array_equal(a[4], b[4])


def test_planted_duplicates_are_found_and_their_conflicts_named():
    x, true = blobs(200)
    x[50], x[60] = x[10], x[20] * (1 + 1e-6)
    true[50] = (true[10] + 1) % 3
    true[60] = true[20]
    found = neighbors.duplicates(x, true)
    as_pairs = {tuple(pair): (e, c) for pair, e, c in zip(*found, strict=True)}
    assert as_pairs[10, 50] == (True, True)
    assert as_pairs[20, 60] == (False, False)
    assert len(as_pairs) == 2


def test_test_rows_that_are_in_the_training_data_are_found():
    x, _ = blobs(200)
    test = np.concatenate([blobs(20, seed=1)[0], x[[3, 7]]])
    assert neighbors.across(x, test).tolist() == [[20, 3], [21, 7]]


def test_above_the_limit_a_stated_sample_is_searched():
    x, true = blobs(400)
    found = neighbors.nearest(x, references=100)
    assert found.references == 100 and len(np.unique(found.index)) <= 100
    assert (found.index != np.arange(400)[:, None]).all()
    p = neighbors.label_probabilities(found, true, 3)
    assert (p.argmax(1) == true).mean() > 0.99


@pytest.mark.parametrize(
    "x, says",
    [
        (np.zeros(4), "expected"),
        (np.array([[0.0, np.nan], [1, 1]]), "row 0"),
        (np.ones((1, 3)), "at least two"),
    ],
)
def test_wrong_features_are_one_line(x, says):
    with pytest.raises(UserError, match=says):
        neighbors.nearest(x)


def test_features_are_evidence_and_duplicates_in_conflict_are_named():
    x, true = blobs(600)
    wrong = np.arange(600) % 10 == 0
    labels = np.where(wrong, (true + 1) % 3, true)
    x[0] = x[2]  # 0 is labeled wrongly, 2 rightly.
    found = find_label_issues(labels, features=x)
    suspect = set(found.indices)
    planted = set(np.flatnonzero(wrong))
    assert len(planted - suspect) <= 2 and len(suspect - planted) <= 6
    assert "duplicates_in_conflict" in found.codes
    assert [0, 2] in found.duplicates.pairs[found.duplicates.conflict].tolist()
    assert "neighbors" in found.scores
    with pytest.raises(UserError, match="5 rows of features for 600 labels"):
        find_label_issues(labels, features=x[:5])


def test_features_of_any_magnitude_and_no_texts():
    x = np.random.default_rng(0).normal(size=(30, 4))
    np.testing.assert_allclose(neighbors.unit(1e200 * x), neighbors.unit(x), rtol=1e-5)
    np.testing.assert_allclose(neighbors.unit(1e-200 * x), neighbors.unit(x), rtol=1e-5)
    with pytest.raises(UserError, match="features must be numbers"):
        neighbors.unit(np.full((3, 2), "a"))
