"""Own-data recipes from the command line: train, predict, evaluate, audit, damaged models."""

import csv
import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_wine

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.audit import find_label_issues
from jaxrobust.errors import UserError
from jaxrobust.runs import blended, corrections
from jaxrobust.runs.experiment import load_data


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """A table of numbers, a category and missing cells; every fifth label is wrong."""
    folder = tmp_path_factory.mktemp("own")
    x, true = load_wine(return_X_y=True)
    x, true = x[:, :4], true
    given = np.where(np.arange(len(true)) % 5 == 0, (true + 1) % 3, true)
    with (folder / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "d", "color", "split", "label"])
        for i, row in enumerate(x):
            cells = [f"{v:.3f}" for v in row]
            cells[1] = "" if i % 17 == 0 else cells[1]
            color = "rgb"[true[i]] if i % 3 else "x"
            split = "test" if i % 6 == 1 else "train"
            writer.writerow([*cells, color, split, "kind" + "ABC"[given[i]]])
    return folder / "patients.csv", given != true


@pytest.fixture(scope="module")
def run(patients):
    path, _ = patients
    workdir = path.parent / "run"
    command = ["jaxrobust", "--config=table", f"--config.data.path={path}", f"--workdir={workdir}"]
    assert main.run(command) == 0
    return workdir


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_example_is_judged_and_wrong_labels_come_first(run, patients):
    table, results = rows(run / "label_issues.csv"), json.loads((run / "results.json").read_text())
    assert len(table) == len(patients[1]) == 178
    assert {row["split"] for row in table} == {"train", "test"}
    wrong = patients[1]
    first = [wrong[int(row["index"])] for row in table[:15]]
    assert np.mean(first) > 0.8
    assert 0.5 < results["last"]["agreement"] < 0.9
    assert "accuracy" not in results["last"] and "test_agreement" in results["last"]
    assert results["audit"]["sources"] == ["prediction"]
    assert "Agreement of out-of-sample predictions" in (run / "report.html").read_text()


def test_predictions_by_column_name_by_command_and_by_load(run, patients):
    output = run / "out.csv"
    command = [
        "jaxrobust",
        "--mode=predict",
        f"--workdir={run}",
        f"--input={patients[0]}",
        f"--output={output}",
    ]
    assert main.run(command) == 0
    found = rows(output)
    assert [*found[0]][3:] == ["kindA", "kindB", "kindC"]
    columns = rows(patients[0])
    frame = {name: [row[name] for row in columns] for name in ("color", "d", "c", "b", "a")}
    named = jaxrobust.load(run).predict(frame)
    assert named.tolist() == [row["predicted_label"] for row in found]


def test_evaluate_audit_and_corrected_labels(run, capsys):
    assert main.run(["jaxrobust", "--mode=evaluate", f"--workdir={run}"]) == 0
    assert "agreement with the given labels" in capsys.readouterr().out
    before = (run / "label_issues.csv").read_text()
    fixed = run / "fixed.csv"
    command = ["jaxrobust", "--mode=audit", f"--workdir={run}", f"--write_corrected={fixed}"]
    assert main.run(command) == 0
    assert (run / "label_issues.csv").read_text() == before
    flagged = {
        r["index"]: r["predicted_label"]
        for r in rows(run / "label_issues.csv")
        if r["is_label_issue"] == "True"
    }
    said = capsys.readouterr().out
    assert f"{len(flagged)} labels replaced" in said and "noise.kind" not in said
    written = rows(fixed)
    assert len(written) == 178  # those of the test rows, too
    assert {r["index"]: r["label"] for r in written if r["label"] != r["replaces"]} == flagged


def test_a_second_run_on_corrected_labels_does_not_take_the_old_ones_for_the_truth(
    run, patients, capsys
):
    fixed = run / "fixed2.csv"
    main.run(["jaxrobust", "--mode=audit", f"--workdir={run}", f"--write_corrected={fixed}"])
    config = configuration.load("table")
    config.data.path, config.data.labels_file = str(patients[0]), str(fixed)
    data = load_data(config)
    assert not data.truth_known
    replaced = [r for r in rows(fixed) if r["label"] != r["replaces"]]
    assert any(f"{len(replaced)} of 178 are not the data set's own" in w for w in data.warnings)
    given = {
        str(i): data.class_names[c]
        for p in (data.train, data.test)
        for i, c in zip(p.index, p.labels, strict=True)
    }
    assert given == {r["index"]: r["label"] for r in rows(fixed)}


def issues(flagged, codes=(), interval=(0.18, 0.25)):
    labels = np.repeat([0, 1], 50).astype(np.int32)
    found = find_label_issues(labels, np.eye(2)[labels])
    return dataclasses.replace(
        found,
        is_label_issue=np.isin(np.arange(100), flagged),
        codes=codes,
        noise_rate_interval=interval,
    )


@pytest.mark.parametrize(
    "found, message",
    [
        (issues(range(40)), r"overwrite most labels of 0 \(40 of 50\)"),
        (issues([3, 4], ("not_learned",)), r"of whose evidence the audit says \[not_learned\]"),
        (issues(range(5, 25), interval=(0.02, 0.1)), r"20 labels, more than .*: 2 to 10 are"),
        (
            issues(range(5, 25), interval=(0.02, 0.4)),
            r"20 labels, more than the evidence supports: 2 to 40 are wrong",
        ),
    ],
)
def test_what_the_evidence_does_not_support_is_refused(found, message):
    with pytest.raises(UserError, match=message) as error:
        corrections.check_supported(found)
    assert "--force" in str(error.value) and "--decisions" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_the_evidence_supports_is_written():
    corrections.check_supported(issues(range(0, 40, 2)))
    corrections.check_supported(issues([], ("collapsed",), (0.0, 1.0)))


def test_force_overrides_the_refusal(run, tmp_path, capsys, monkeypatch):
    def refuse(found):
        raise UserError("refused; --force.")

    monkeypatch.setattr(corrections, "check_supported", refuse)
    command = ["jaxrobust", "--mode=audit", f"--workdir={run}"]
    command += [f"--write_corrected={tmp_path / 'fixed.csv'}"]
    assert main.run(command) == 2 and not (tmp_path / "fixed.csv").exists()
    assert main.run([*command, "--force"]) == 0 and (tmp_path / "fixed.csv").exists()
    capsys.readouterr()
    assert main.run([*command[:3], "--force"]) == 2
    assert "--force is for --write_corrected" in capsys.readouterr().err


def test_the_dry_run_writes_nothing(patients, capsys):
    before = sorted(patients[0].parent.iterdir())
    command = ["jaxrobust", "--config=table", f"--config.data.path={patients[0]}", "--dry_run"]
    assert main.run(command) == 0
    text = capsys.readouterr().out
    assert "Classes: " in text and "kindA" in text and len(text.splitlines()) < 12
    assert sorted(patients[0].parent.iterdir()) == before


class Evil:
    def __reduce__(self):
        return print, ("called",)


@pytest.mark.parametrize("content", [b"cut", pickle.dumps(Evil()), pickle.dumps([1])])
def test_a_model_from_elsewhere_cannot_run_code(tmp_path, content, capsys):
    (tmp_path / blended.MODEL).write_bytes(content)
    with pytest.raises(ValueError, match=r"blend.pkl"):
        blended.load(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["label_issues.csv", "noise.npz", blended.MODEL])
def test_what_a_finished_run_has_lost_is_made_again(run, patients, tmp_path, capsys, name):
    copy = shutil.copytree(run, tmp_path / "w")
    before = (copy / "label_issues.csv").read_text()
    (copy / name).unlink()
    command = ["jaxrobust", "--config=table", f"--config.data.path={patients[0]}"]
    assert main.run([*command, f"--workdir={copy}"]) == 0
    assert f"has lost {name}; " in capsys.readouterr().err
    assert (copy / name).is_file() and (copy / "label_issues.csv").read_text() == before


def test_lost_models_are_not_made_of_other_data(run, patients, tmp_path, capsys):
    copy, table = shutil.copytree(run, tmp_path / "w"), patients[0].read_bytes()
    (copy / blended.MODEL).unlink()
    command = ["jaxrobust", "--config=table", f"--config.data.path={patients[0]}"]
    try:
        patients[0].write_bytes(b"\n".join(table.splitlines()[:-1]))
        assert main.run([*command, f"--workdir={copy}"]) == 2
    finally:
        patients[0].write_bytes(table)
    assert "and the data have changed since" in capsys.readouterr().err
    assert not (copy / blended.MODEL).exists()


def test_annotators_of_a_command_line(patients, tmp_path, capsys):
    """Three columns of labels: two right ones and the wrong one; their disagreement is evidence."""
    table, wrong = rows(patients[0]), patients[1]
    header = [n for n in table[0] if n not in ("label", "split")]
    lines = [",".join([*header, "anna", "ben", "carl"])]
    kinds = ["kindA", "kindB", "kindC"]
    for row, bad in zip(table, wrong, strict=True):
        right = kinds[(kinds.index(row["label"]) - bad) % 3]
        lines.append(",".join([*(row[n] for n in header), right, right, row["label"]]))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    command = ["jaxrobust", "--config=table", f"--config.data.path={tmp_path / 't.csv'}"]
    command += ["--config.data.annotators=anna,ben,carl", f"--workdir={tmp_path / 'run'}"]
    assert main.run(command) == 0
    assert f"they differ about {wrong.sum()}" in capsys.readouterr().err
    found = json.loads((tmp_path / "run/results.json").read_text())
    assert found["audit"]["sources"] == ["prediction", "annotators"]
    issues = rows(tmp_path / "run/label_issues.csv")
    given = {int(r["index"]): r["given_label"] for r in issues}
    right = [
        kinds[(kinds.index(r["label"]) - bad) % 3] for r, bad in zip(table, wrong, strict=True)
    ]
    assert [given[i] for i in range(178)] == right
    assert main.run(["jaxrobust", "--mode=audit", f"--workdir={tmp_path / 'run'}"]) == 0
