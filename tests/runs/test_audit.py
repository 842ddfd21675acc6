"""The audit of runs: what is left in the workdir, made again, and fed to the next run."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.data import manifest
from jaxrobust.errors import UserError
from jaxrobust.runs import audit as auditing
from jaxrobust.runs import corrections, cross_validation, experiment, fit, predict
from jaxrobust.runs.experiment import assemble, load_data


def settings(**overrides):
    made = configuration.load("digits_losses:ce")
    small = {
        "network.name": "mlp",
        "network.width": 48,
        "train.epochs": 16,
        "train.batch_size": 64,
        "data.noise.kind": "symmetric",
        "data.noise.rate": 0.3,
        "log.figures": False,
        "log.tensorboard": False,
    }
    chosen = {key.replace("__", "."): value for key, value in overrides.items()}
    made.update_from_flattened_dict(small | chosen)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "run"
    return folder, jaxrobust.train(settings(), folder)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_ends_with_an_audit(run):
    workdir, results = run
    rows = table(workdir / "label_issues.csv")
    record = manifest.load(workdir / "noise.npz")
    audit, n = results["audit"], len(record.train.index)
    assert len(rows) == n and audit["sources"] == ["dynamics"]
    by_row = {int(r["index"]): r for r in rows}
    for i, given, true in zip(*record.train, strict=True):
        assert by_row[i]["given_label"] == str(given) and by_row[i]["true_label"] == str(true)
    flagged = {int(r["index"]) for r in rows if r["is_label_issue"] == "True"}
    wrong = set(record.train.index[record.train.given_labels != record.train.true_labels].tolist())
    assert len(flagged) == audit["flagged"]
    assert audit["truth"]["recall"] == len(flagged & wrong) / len(wrong) > 0.85
    assert audit["truth"]["precision"] == len(flagged & wrong) / len(flagged) > 0.8
    assert audit["truth"]["auprc"] > 0.93
    low, high = audit["noise_rate_interval"]
    assert low - 0.02 < audit["truth"]["noise_rate"] < high + 0.02
    assert set(audit["truth"]["groups"]) == {"many", "medium", "few"}
    assert audit["held_out"]["examples"] == len(record.validation.index)
    with np.load(workdir / "sample_weights.npz") as saved:
        np.testing.assert_array_equal(saved["index"], record.train.index)
        assert saved["is_label_issue"].sum() == len(flagged)
    page = (workdir / "report.html").read_text()
    assert len(page) < 5e6 and page.count("data:image/png") > 20
    assert json.loads((workdir / "results.json").read_text())["audit"] == audit


def test_it_can_be_made_again_without_checkpoints(run, program, tmp_path):
    workdir, results = run
    names = ("label_issues.csv", "sample_weights.npz", "report.html")
    before = [(workdir / name).read_bytes() for name in names]
    for name in names:
        (workdir / name).unlink()
    (workdir / "checkpoints").rename(tmp_path / "checkpoints")
    done = program("--mode=audit", f"--workdir={workdir}")
    (tmp_path / "checkpoints").rename(workdir / "checkpoints")
    assert done.returncode == 0, done.stderr
    assert f"{results['audit']['flagged']} flagged as wrong" in done.stdout
    assert (workdir / names[0]).read_bytes() == before[0]
    assert (workdir / names[2]).read_bytes() == before[2]
    assert json.loads((workdir / "results.json").read_text()) == results


@pytest.mark.parametrize("name", ["labels.csv", "labels.npy"])
def test_corrected_labels_are_labels_of_the_next_run(run, tmp_path, name, capsys):
    workdir, results = run
    assert (
        main.run(
            ["", "--mode=audit", f"--workdir={workdir}", f"--write_corrected={tmp_path / name}"]
        )
        == 0
    )
    assert f"{results['audit']['flagged']} labels replaced" in capsys.readouterr().out
    data = load_data(
        settings(
            data__noise__kind="none", data__noise__rate=0.0, data__labels_file=str(tmp_path / name)
        )
    )
    first = manifest.load(workdir / "noise.npz")
    rows = {int(r["index"]): r for r in table(workdir / "label_issues.csv")}
    for part in (data.train, data.validation):
        for i, given in zip(part.index, part.labels, strict=True):
            row = rows.get(int(i))
            if row is None:  # one of the first run's validation examples: as it was
                held = first.validation
                assert given == held.given_labels[held.index == i][0]
            else:
                flagged = row["is_label_issue"] == "True"
                assert str(given) == row["predicted_label" if flagged else "given_label"]
    wrong = (data.train.labels != data.train.true_labels).mean()
    assert wrong < 0.4 * results["audit"]["truth"]["noise_rate"]


def test_exactly_what_was_decided_is_written_and_shown_as_decided(run, tmp_path, capsys):
    workdir, _ = run
    rows = list(table(workdir / "label_issues.csv"))
    accepted, kept, quiet = rows[0], rows[1], rows[-1]
    other = str((int(quiet["given_label"]) + 1) % 10)
    lines = [
        (accepted, "accept", accepted["predicted_label"]),
        (kept, "keep", kept["given_label"]),
        (quiet, "other", other),
    ]
    (tmp_path / "decisions.csv").write_text(
        "index,path,given_label,decision,label\n"
        + "".join(
            f"{row['index']},,{row['given_label']},{kind},{label}\n" for row, kind, label in lines
        )
    )
    command = [
        "",
        "--mode=audit",
        f"--workdir={workdir}",
        "--write_corrected=" + str(tmp_path / "labels.csv"),
        f"--decisions={tmp_path / 'decisions.csv'}",
        f"--export=label_studio:{tmp_path / 'tasks.json'}",
    ]
    assert main.run(command) == 0
    assert "2 labels replaced" in capsys.readouterr().out
    written = {r["index"]: r["label"] for r in table(tmp_path / "labels.csv")}
    given = {str(r["index"]): r["given_label"] for r in rows}
    changed = {i for i, label in written.items() if i in given and given[i] != label}
    assert changed == {str(accepted["index"]), str(quiet["index"])}
    assert '["accept", ' in (workdir / "report.html").read_text()
    assert len(json.loads((tmp_path / "tasks.json").read_text())) > 0
    assert main.run(command[:3]) == 0  # as it was, for the tests that follow


def test_a_code_that_is_named_fails_the_command(run, capsys, monkeypatch):
    workdir, _ = run
    remake = auditing.remake

    def doubtful(*args, **options):
        found = remake(*args, **options)
        return found._replace(summary=found.summary | {"codes": ["weak_model"]})

    monkeypatch.setattr(auditing, "remake", doubtful)
    command = ["", "--mode=audit", f"--workdir={workdir}"]
    assert main.run([*command, "--fail_on=collapsed"]) == 0
    assert main.run([*command, "--fail_on=collapsed,weak_model"]) == 1
    assert "failed: weak_model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--export=labelstudio:x.json"], "Did you mean 'label_studio'"),
        (["--fail_on=weak_modl"], "Did you mean 'weak_model'"),
        (["--decisions=none.csv"], "no such file of decisions"),
        (["--workdir=nowhere"], "holds no finished run"),
        (["--write_corrected=labels.txt"], "to a .csv or a .npy"),
        (["--write_corrected=no/labels.csv"], "there is no folder"),
        (["--config.audit.folds=1"], "audit.folds=1"),
    ],
)
def test_wrong_use_is_one_line(run, arguments, message, capsys):
    assert main.run(["", f"--workdir={run[0]}", "--mode=audit", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_folds_hold_every_class_evenly():
    labels = np.repeat(np.arange(5), [40, 21, 7, 3, 1])
    fold = cross_validation.assign(labels, 4, seed=0)
    assert (np.bincount(fold) == 18).all()
    for c in range(5):
        count = np.bincount(fold[labels == c], minlength=4)
        assert count.max() - count.min() <= 1
    assert (fold != cross_validation.assign(labels, 4, seed=1)).any()


def test_out_of_sample_predictions_are_of_networks_that_have_not_seen_the_example():
    """Most labels are drawn by lot: they can be learned by heart, but not foretold."""
    made = settings(train__epochs=25, audit__folds=3, data__subset=300, data__noise__rate=0.6)
    experiment = assemble(configuration.validate(made))
    p = cross_validation.out_of_sample(experiment, 3)
    labels = experiment.data.train.labels
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    state, _ = fit.fit(experiment)
    inside = experiment.forward(state.params, state.batch_stats, experiment.data.train.x)
    drawn = labels != experiment.data.train.true_labels
    assert (p.argmax(1) == labels)[drawn].mean() < 0.15
    assert (np.asarray(inside).argmax(1) == labels)[drawn].mean() > 0.3


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"audit__folds": 5000}, "audit.folds=5000: use 2 to 1132"),
        (
            {"audit__folds": 2, "train__batch_size": 700},
            "audit.folds=2, without fold 1: train.batch_size=700 exceeds the 566 training examples",
        ),
        (
            {
                "audit__folds": 2,
                "method__name": "dynamic_loss",
                "method__warmup_epochs": 2,
                "data__imbalance__kind": "exponential",
                "data__imbalance__factor": 0.05,
                "data__noise__kind": "none",
                "data__noise__rate": 0.0,
            },
            "audit.folds=2, without fold 1: The smallest given class has 2 examples: too few",
        ),
    ],
)
def test_folds_that_cannot_be_trained_are_refused_before_anything_is_written(
    tmp_path, overrides, message
):
    for go in (lambda made: jaxrobust.train(made, tmp_path / "w"), predict.describe):
        with pytest.raises(UserError, match=message):
            go(settings(**overrides))
    assert not (tmp_path / "w").exists()


def test_folds_take_their_rows_of_given_curves_and_nothing_to_measure_on(tmp_path, monkeypatch):
    index = load_data(settings()).train.index
    curves = np.random.default_rng(0).random((len(index), 6)).astype(np.float32)
    np.savez(tmp_path / "curves.npz", curves=curves, index=index)
    made = configuration.validate(
        settings(
            method__name="curvenet",
            method__curves_file=str(tmp_path / "curves.npz"),
            data__metadata__kind="none",
            method__low_loss_metadata=True,
            optimizer__milestones=(1,),
            train__epochs=2,
        )
    )
    parts = []

    def spy(*args):
        parts.append(assemble(*args))
        return parts[-1]

    experiment = assemble(made)
    monkeypatch.setattr(cross_validation, "assemble", spy)
    p = cross_validation.out_of_sample(experiment, 2)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    trained = [part.data for part in parts[-2:]]
    rows = np.concatenate([data.train.index for data in trained])
    np.testing.assert_array_equal(np.sort(rows), np.sort(experiment.data.train.index))
    for data in trained:
        assert data.validation is None and data.test is None
        np.testing.assert_array_equal(data.manifest.train.index, data.train.index)
        np.testing.assert_array_equal(data.manifest.train.given_labels, data.train.labels)


def test_folds_add_a_source_at_the_end_of_training_or_later(run, tmp_path):
    whole = jaxrobust.train(settings(audit__folds=2, train__epochs=3), tmp_path / "a")
    assert whole["audit"]["sources"] == ["dynamics", "prediction"]
    jaxrobust.train(settings(train__epochs=3), tmp_path / "b")
    again = auditing.remake(tmp_path / "b", folds=2)
    assert again.summary["flagged"] == whole["audit"]["flagged"]
    assert auditing.remake(tmp_path / "b").summary == again.summary  # kept in evidence.npz


def test_data_that_have_gone_leave_a_report_without_pictures(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (rng.random((300, 8, 8)) * 80 + 60 * y[:, None, None]).astype(np.uint8)
    names = np.array(["=cat", "<b>dog</b>", "emu"])
    np.savez(tmp_path / "d.npz", x=x, y=names[y])
    made = settings(data__name="npz", data__path=str(tmp_path / "d.npz"), train__epochs=4)
    workdir = tmp_path / "w"
    before = jaxrobust.train(made, workdir)
    page = (workdir / "report.html").read_text()
    assert "data:image/png" in page and "&lt;b&gt;dog" in page and "<b>dog" not in page
    assert "'=cat" in (workdir / "label_issues.csv").read_text()
    (tmp_path / "d.npz").unlink()
    assert auditing.remake(workdir).summary == before["audit"]
    page = (workdir / "report.html").read_text()
    assert "could not be opened" in page and "data:image/png" not in page
    with pytest.raises(UserError, match="need the data"):
        auditing.remake(workdir, folds=2)


def test_labels_learned_by_heart_are_no_proof_that_they_are_right(run):
    """All given labels are named from the beginning: only the validation examples tell."""
    workdir, results = run
    record, found = manifest.load(workdir / "noise.npz"), auditing.load(workdir / "evidence.npz")
    assert results["audit"]["doubt"] is None
    labels = record.train.given_labels
    by_heart = np.tile((0.9 * np.eye(10) + 0.01)[labels][:, None], (1, 4, 1))
    found = {"training_probabilities": by_heart, "held_out": found["held_out"]}
    summary = auditing.find(settings(), record, found).summary
    assert summary["flagged"] == 0 and "learned wrong labels by heart" in summary["doubt"]
    assert auditing.sentence(summary).endswith("--config.audit.folds=5.")
    assert "memorized" in summary["codes"] and "underfitted" not in summary["codes"]
    slow = {"training_probabilities": by_heart, "held_out": found["held_out"]}
    slow["curves"] = np.full((len(labels), 4), 2.0)  # in the end most labels are not learned
    summary = auditing.find(settings(), record, slow).summary
    assert "underfitted" in summary["codes"] and "[underfitted]" in summary["doubt"]
    assert "by heart" not in summary["doubt"] and "Agreement: 0 %" in summary["doubt"]
    found["out_of_sample"] = by_heart[:, 0]
    assert auditing.find(settings(), record, found).summary["doubt"] is None


def test_the_report_of_a_table_names_its_columns(run, tmp_path):
    workdir, results = run
    record, found = manifest.load(workdir / "noise.npz"), auditing.load(workdir / "evidence.npz")
    record = record._replace(feature_names=("height", "=cmd"))
    train = SimpleNamespace(x=np.zeros((len(record.train.index), 2), np.float32))
    audited = auditing.find(settings(), record, found)
    auditing.write(tmp_path, settings(), record, found, audited, results, train)
    assert "<th>height</th><th>=cmd</th>" in (tmp_path / "report.html").read_text()


def test_a_run_without_evidence_says_what_to_do(run, tmp_path):
    workdir, _ = run
    for name in ("config.json", "noise.npz", "results.json"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    with pytest.raises(UserError, match="holds no evidence.*folds=5"):
        auditing.remake(tmp_path)


def test_what_a_method_has_learned_is_a_source(run):
    workdir, _ = run
    made = settings(method__name="dynamic_loss")
    experiment = assemble(configuration.validate(settings()))
    n = len(experiment.data.train.labels)
    learned = experiment.method._replace(report=lambda state: {"weights": np.linspace(0, 1, n)})
    experiment = dataclasses.replace(experiment, config=made, method=learned)
    state = fit.init_state(experiment)
    found = auditing.gather(experiment, state)
    np.testing.assert_allclose(found["weights_corrector"], np.linspace(0, 1, n))
    assert np.isnan(found["curves"]).all() and found["held_out"].shape == (126, 10)
    seen = auditing.load(workdir / "evidence.npz") | {"weights_corrector": np.linspace(0, 1, n)}
    audited = auditing.find(made, experiment.data.manifest, seen)
    assert audited.summary["sources"] == ["dynamics", "corrector"]
    np.testing.assert_allclose(audited.issues.weight, np.linspace(0, 1, n))


def test_the_labels_to_correct_are_those_of_the_configured_data(run, tmp_path, monkeypatch):
    """Every setting of the data set reaches the one place that loads it."""
    seen = []
    made = settings(
        data__name="npz",
        data__path="p",
        data__label_key="k",
        data__num_classes=3,
        data__image_size=8,
        data__on_unreadable="skip",
        data__test_fraction=0.5,
    )

    def load(name, **options):
        seen.append((name, options))
        raise UserError("enough")

    monkeypatch.setattr(experiment.sources, "load", load)
    (tmp_path / "config.json").write_text(configuration.to_json(made))
    (tmp_path / "noise.npz").write_bytes((run[0] / "noise.npz").read_bytes())
    for ask in (lambda: load_data(made), lambda: corrections.write_corrected(tmp_path, None, "x")):
        with pytest.raises(UserError, match="enough"):
            ask()
    assert (
        seen[0]
        == seen[1]
        == (
            "npz",
            {
                "path": "p",
                "data_dir": None,
                "label_key": "k",
                "label_column": None,
                "group_column": None,
                "unlabeled": None,
                "annotators": None,
                "consensus": "dawid_skene",
                "image_size": 8,
                "on_unreadable": "skip",
                "test_fraction": 0.5,
                "num_classes": 3,
            },
        )
    )
