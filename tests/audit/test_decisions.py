"""Decisions of a reviewer: read by path or row, applied exactly, refused where they do not fit."""

import numpy as np
import pytest

from jaxrobust.audit import decisions, find_label_issues
from jaxrobust.errors import UserError

NAMES = ("ant", "=bee", "cat")


@pytest.fixture
def issues():
    true = np.arange(12) % 3
    given = np.where(np.arange(12) < 2, (true + 1) % 3, true)
    return find_label_issues(
        given,
        probabilities=0.8 * np.eye(3)[true] + 0.2 / 3,
        class_names=NAMES,
        paths=[f"{i}.png" for i in range(12)],
    )


def write(path, rows, header="index,path,given_label,decision,label"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_exactly_the_decisions_are_applied(tmp_path, issues):
    """0 is "=bee", saved behind a quote as spreadsheets need it."""
    path = write(
        tmp_path / "d.csv",
        [
            "0,0.png,'=bee,accept,ant",
            "1,1.png,cat,keep,cat",
            "2,2.png,cat,other,'=bee",
            "3,3.png,ant,unsure,",
        ],
    )
    made = decisions.read(path, issues)
    assert made.kind[:5] == ("accept", "keep", "other", "unsure", "")
    labels = issues.given_label.copy()
    after = decisions.corrected(made, labels, np.arange(12))
    assert after[[0, 1, 2, 3]].tolist() == [0, 2, 1, 0]
    np.testing.assert_array_equal(after[3:], labels[3:])
    np.testing.assert_array_equal(labels, issues.given_label)


def test_an_example_is_found_by_its_path_wherever_its_row_went(tmp_path, issues):
    path = write(tmp_path / "d.csv", ["99,1.png,cat,accept,'=bee"])
    assert np.flatnonzero(decisions.read(path, issues).decided).tolist() == [1]


@pytest.mark.parametrize(
    "row, says",
    [
        ("0,nowhere.png,ant,keep,ant", "line 2: the example is not among"),
        ("0,0.png,cat,keep,cat", "decided on the label 'cat', which is '=bee' by now"),
        ("0,0.png,'=bee,acept,ant", "Did you mean 'accept'"),
        ("0,0.png,'=bee,other,dog", "no class is called 'dog'"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, issues, row, says):
    with pytest.raises(UserError, match=says):
        decisions.read(write(tmp_path / "d.csv", [row]), issues)


def test_a_file_of_something_else_is_named(tmp_path, issues):
    with pytest.raises(UserError, match="no such file"):
        decisions.read(tmp_path / "none.csv", issues)
    with pytest.raises(UserError, match="no column given_label, decision, label"):
        decisions.read(write(tmp_path / "d.csv", ["1,2"], header="a,b"), issues)
