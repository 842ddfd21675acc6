"""Files: what is written can be read back, and can do no harm."""

import csv

import numpy as np
import pytest

from jaxrobust.audit import export, find_label_issues
from jaxrobust.errors import UserError

NAMES = ("=cmd|' /C calc'!A0", "cat", "<b>dog</b>")


@pytest.fixture
def issues():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    given = np.where(rng.random(300) < 0.2, (true + 1) % 3, true)
    p = 0.9 * np.eye(3)[true] + 0.1 / 3
    paths = [f"=HYPERLINK({i})" if i % 2 else f"@{i}.png" for i in range(300)]
    return find_label_issues(
        given, probabilities=p, class_names=NAMES, paths=paths, index=np.arange(300) * 2
    )


def test_the_table_lists_every_example_most_suspect_first(issues, tmp_path):
    with export.write_csv(issues, tmp_path / "t.csv", issues.given_label).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["rank"]) for r in rows] == list(range(1, 301))
    assert list(rows[0]) == [
        "index",
        "path",
        "given_label",
        "predicted_label",
        "label_score",
        "is_label_issue",
        "weight",
        "rank",
        "score_prediction",
        "true_label",
    ]
    flagged = [int(r["index"]) for r in rows if r["is_label_issue"] == "True"]
    np.testing.assert_array_equal(flagged, issues.indices)
    by_index = {int(r["index"]): float(r["label_score"]) for r in rows}
    np.testing.assert_allclose([by_index[i] for i in issues.index], issues.label_score, rtol=1e-5)


def test_no_cell_of_the_table_is_a_formula(issues, tmp_path):
    with export.write_csv(issues, tmp_path / "t.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any(cell.startswith("'=cmd") for cell in cells)
    assert any(cell.startswith("'@") for cell in cells)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)


def test_weights_are_arrays_in_the_order_of_the_data(issues, tmp_path):
    with np.load(export.write_weights(issues, tmp_path / "w.npz")) as saved:
        for name in ("index", "label_score", "is_label_issue", "predicted_label", "noise_matrix"):
            np.testing.assert_array_equal(saved[name], getattr(issues, name))
        np.testing.assert_array_equal(saved["score_prediction"], issues.scores["prediction"])
        assert tuple(saved["class_names"]) == NAMES


def test_corrected_labels_change_those_flagged_and_no_other(issues):
    rows = np.random.default_rng(1).permutation(700)  # the data set has more rows, in any order
    given = np.zeros(700, int)
    place = {row: i for i, row in enumerate(rows)}
    for i, row in enumerate(issues.index):
        given[place[row]] = issues.given_label[i]
    at = np.array([place[row] for row in issues.index])
    labels = export.corrected(issues, given, at)
    expected = np.where(issues.is_label_issue, issues.predicted_label, issues.given_label)
    np.testing.assert_array_equal(labels[at], expected)
    assert (labels != given).sum() == issues.num_issues > 30
    assert given.sum() != labels.sum()  # the labels handed in are left as they were
    away = np.where(np.arange(300) < 150, -1, at)
    half = export.corrected(issues, given, away)
    assert (half != given).sum() == issues.is_label_issue[150:].sum()


def test_a_labels_file_as_csv_and_as_array(tmp_path):
    labels, rows = np.array([2, 0, 1]), np.array([5, 1, 3])
    path = export.write_labels(labels, rows, 6, ("a", "b", "c"), tmp_path / "l.csv")
    assert path.read_text().split() == ["index,label", "1,a", "3,b", "5,c"]
    path = export.write_labels(labels, rows, 6, NAMES, tmp_path / "n.csv")
    assert path.read_text().split() == ["index,label", "1,0", "3,1", "5,2"]
    path = export.write_labels(labels, rows, 6, "abc", tmp_path / "i.csv", ids=["z", "x,1", "y"])
    assert path.read_text().splitlines() == ["path,label", '"x,1",a', "y,b", "z,c"]
    for odd in (["=z", "x", "y"], ["y", "x", "y"], ["y ", "x", "z"]):
        path = export.write_labels(labels, rows, 6, "abc", tmp_path / "i.csv", ids=odd)
        assert path.read_text().split() == ["index,label", "1,a", "3,b", "5,c"]
    path = export.write_labels(labels, rows, 6, NAMES, tmp_path / "l.npy")
    np.testing.assert_array_equal(np.load(path)[rows], labels)
    assert np.load(path).shape == (6,)


@pytest.mark.parametrize(
    "name, message", [("l.txt", "to a .csv or a .npy"), ("no/l.csv", "there is no folder")]
)
def test_a_labels_file_that_cannot_be_is_one_line(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        export.check_target(tmp_path / name)


def test_labels_that_cannot_be_written_leave_those_before(tmp_path, monkeypatch):
    def full(file, values):
        file.write(b"half")
        raise OSError("No space left on device")

    path = export.write_labels(np.array([1, 0]), np.arange(2), 2, NAMES, tmp_path / "l.npy")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(np, "save", full)
        export.write_labels(np.array([2, 2]), np.arange(2), 2, NAMES, path)
    np.testing.assert_array_equal(np.load(path), [1, 0])
