"""Runs side by side."""

import json

import pytest

from jaxrobust import compare


def finished(workdir, accuracy, content=None):
    """A workdir that holds the least that is compared."""
    workdir.mkdir(parents=True)
    results = {"selection_split": None, "last": {"epoch": 3, "accuracy": accuracy}, "selected": {}}
    text = json.dumps(results) if content is None else content
    (workdir / "results.json").write_text(text)
    (workdir / "metrics.jsonl").write_text('{"epoch": 1, "test_balanced_accuracy": 0.5}\n')
    return workdir


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path, capsys):
    runs = [finished(tmp_path / name, i / 10) for i, name in enumerate(("a/seed0", "b/seed0", "c"))]
    assert compare.names(runs) == [str(runs[0]), str(runs[1]), "c"]
    assert compare.main([*map(str, runs)]) == 0
    table = (tmp_path / "a" / "comparison.txt").read_text()
    for label, accuracy in [
        (f"{runs[0]} (last)", "0.0 %"),
        (f"{runs[1]} (last)", "10.0 %"),
        ("c (last)", "20.0 %"),
    ]:
        line = next(line for line in table.splitlines() if line.startswith(label))
        assert accuracy in line
    assert capsys.readouterr().out.startswith(table)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "results.json is damaged: it is not valid JSON"),
        ("[1]", "results.json is damaged: it does not hold a JSON object"),
        ("{}", "results.json does not hold the results"),
    ],
)
def test_broken_results_are_one_line(tmp_path, capsys, content, message):
    assert compare.main([str(finished(tmp_path / "a", 0.5, content))]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    workdir = finished(tmp_path / "a", 0.5)
    (tmp_path / "comparison.txt").mkdir()
    assert compare.main([str(workdir)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("failed: Cannot write") and said.count("\n") == 1
