"""Workdirs in trouble: files lost, swapped or changed, outputs in the way, nothing writable."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import Killed, run_main, settings

import jaxrobust
from jaxrobust.errors import RunError, UserError
from jaxrobust.runs import audit, model, train
from jaxrobust.runs.lock import locked
from jaxrobust.training import checkpoints
from jaxrobust.training.metrics_log import read_rows


@pytest.fixture(scope="module")
def done(gallery):
    return gallery(settings())


@pytest.fixture
def copy(done, tmp_path):
    return shutil.copytree(done, tmp_path / "w")


@pytest.fixture(scope="module")
def other(gallery):
    return gallery(settings(seed=7))


@pytest.fixture
def paused(tmp_path, monkeypatch):
    """A run that was killed right after its second checkpoint."""
    save = train.Checkpoints.save

    def save_then_die(self, step, arrays, place):
        save(self, step, arrays, place)
        if place["epoch"] == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.Checkpoints, "save", save_then_die)
        jaxrobust.train(settings(), tmp_path / "p")
    return tmp_path / "p"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("\n".join(path.read_text().splitlines()[1:])),
        lambda path: path.write_bytes(path.read_bytes().replace(b"train_loss", b"train_lost", 1)),
        lambda path: path.write_text('{"epoch": true}\n{"epoch": 2}\n{"epoch": 1e300}\n[]\n'),
    ],
)
def test_rows_that_were_lost_or_changed_come_back_from_the_checkpoint(done, paused, capsys, damage):
    damage(paused / "metrics.jsonl")
    jaxrobust.train(settings(), paused)
    said = capsys.readouterr().err
    assert "metrics.jsonl had lost or changed the rows of epoch" in said
    assert read_rows(paused / "metrics.jsonl") == read_rows(done / "metrics.jsonl")


def test_a_finished_run_gets_its_rows_back_and_stays_as_it_is(done, copy, capsys):
    (copy / "metrics.jsonl").unlink()
    before = (copy / "results.json").read_bytes()
    assert jaxrobust.train(settings(), copy) == json.loads(before)
    assert "the rows of epochs 1 to 3; put back" in capsys.readouterr().err
    assert read_rows(copy / "metrics.jsonl") == read_rows(done / "metrics.jsonl")
    assert (copy / "results.json").read_bytes() == before
    jaxrobust.train(settings(), copy)
    assert "rows" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["noise.npz", "evidence.npz"])
def test_a_record_of_another_run_is_not_believed(copy, other, name):
    shutil.copy(other / name, copy / name)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=f"{name} is another run's. Put this run's own back"):
        audit.remake(copy)
    assert before == {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    (copy / name).unlink()
    jaxrobust.train(settings(), copy)
    assert audit.remake(copy).summary == json.loads((copy / "results.json").read_text())["audit"]


@pytest.mark.parametrize(
    "change",
    [
        {"last": {"accuracy": "high"}},
        {"last": {"epoch": []}},
        {"selected": []},
        {"selection_split": 5},
        {"noise": None},
        {"epochs": "3"},
        {"audit": 3},
        {"audit": {"flagged": 3, "noise_rate": 0.1, "noise_rate_interval": [0.1], "truth": None}},
        {"audit": {"flagged": 3, "noise_rate": 0.1, "noise_rate_interval": [0, 1], "truth": {}}},
    ],
)
def test_results_of_another_kind_are_made_again_and_end_a_reader_in_one_line(
    done, copy, tmp_path, change
):
    path = copy / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    said = run_main("--mode=audit", "--workdir=w", folder=tmp_path)
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    assert "does not hold the results of a run" in said.stderr
    jaxrobust.train(settings(), copy)
    last = [json.loads((w / "results.json").read_text())["last"] for w in (done, copy)]
    assert last[0] == last[1]


def test_a_colon_in_the_path_opens_in_every_mode(done, tmp_path):
    shutil.copytree(done, tmp_path / "a:b")
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 1), np.float32))
    for arguments in (
        ("--mode=evaluate",),
        ("--mode=predict", "--input=x.npy"),
        ("--mode=audit",),
        ("--config=a:b/config.json", "--dry_run"),
    ):
        said = run_main(*arguments, "--workdir=a:b", folder=tmp_path)
        assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("name", ["config.json", "model.npz"])
def test_a_changed_byte_names_the_file_and_the_remedy(copy, tmp_path, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    said = run_main("--mode=evaluate", "--workdir=w", folder=tmp_path)
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    assert name in said.stderr and "or remove it" in said.stderr
    (copy / name).unlink()
    if name == "model.npz":
        jaxrobust.train(settings(), copy)
    assert run_main("--mode=evaluate", "--workdir=w", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "output, message",
    [
        ("--output=x.npy", "would take the place of the file that is read"),
        ("--output=./w/../x.npy", "would take the place of the file that is read"),
        ("--output=w/model.npz", "is the run's own model.npz"),
        ("--output=w/checkpoints/1", "is the run's own checkpoints"),
        ("--output=w", "is a folder: name a file"),
        ("--output=no/p.csv", "no folder 'no'"),
    ],
)
def test_predictions_take_the_place_of_nothing_that_is_needed(copy, tmp_path, output, message):
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 1), np.float32))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    said = run_main("--mode=predict", "--workdir=w", "--input=x.npy", output, folder=tmp_path)
    assert said.returncode == 2 and message in said.stderr and said.stderr.count("\n") == 1
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_corrected_labels_take_the_place_of_no_file_of_the_run(copy, tmp_path):
    for flag in ("--write_corrected=w/label_issues.csv", "--export=label_studio:w/results.json"):
        said = run_main("--mode=audit", "--workdir=w", flag, folder=tmp_path)
        assert said.returncode == 2 and "is the run's own" in said.stderr


def untouched(folder):
    """What changes when a file is written again, though with the same content."""
    return {p: (p.stat().st_ino, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_an_audit_can_go_to_another_folder(copy, tmp_path):
    before = untouched(copy)
    (tmp_path / "out").mkdir()
    with locked(copy):  # Who writes elsewhere needs no lock.
        said = run_main("--mode=audit", "--workdir=w", "--output=out", folder=tmp_path)
    assert said.returncode == 0 and "Wrote out/label_issues.csv" in said.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(audit.FILES)
    for name in ("label_issues.csv",):
        assert (tmp_path / "out" / name).read_bytes() == (copy / name).read_bytes()
    assert before == untouched(copy)
    said = run_main("--mode=audit", "--workdir=w", "--output=nowhere", folder=tmp_path)
    assert said.returncode == 2 and "there is no such folder" in said.stderr


def test_where_the_workdir_cannot_be_written_the_corrected_labels_are(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(audit.os, "access", lambda path, mode: False)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    arguments = ("--mode=audit", "--workdir=w", "--write_corrected=l.csv", "--force")
    said = run_main(*arguments, folder=tmp_path)
    assert said.returncode == 0 and "w cannot be written: label_issues.csv" in said.stderr
    assert (tmp_path / "l.csv").read_text().startswith("index,label")
    assert before == {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}


def test_a_run_that_lost_its_lock_to_another_stops_before_it_writes(tmp_path, monkeypatch):
    """As after somebody removed the file: the files of two runs must not mix."""
    log, w = train.Log.write, tmp_path / "w"

    def taken(self, row):
        log(self, row)
        text = json.loads((w / "lock").read_text()) | {"token": "another's"}
        (w / "lock").write_text(json.dumps(text))

    monkeypatch.setattr(train.Log, "write", taken)
    with pytest.raises(RunError, match="is in use by another process: it has taken the lock"):
        jaxrobust.train(settings(), w)
    assert checkpoints.saved_steps(w / "checkpoints") == []
    assert "another's" in (w / "lock").read_text()


def test_a_lock_that_was_removed_is_taken_again(tmp_path, done, monkeypatch):
    log, w = train.Log.write, tmp_path / "w"

    def removed(self, row):
        log(self, row)
        (w / "lock").unlink()

    monkeypatch.setattr(train.Log, "write", removed)
    results = jaxrobust.train(settings(), w)
    assert results["last"] == json.loads((done / "results.json").read_text())["last"]
    assert not (w / "lock").exists()


def test_only_unfinished_checkpoints_begin_anew_and_it_is_said(paused, capsys):
    for step in (paused / "checkpoints").iterdir():
        (step / "digest.json").unlink()
    jaxrobust.train(settings(), paused)
    assert "not finished (its digest is not there: it was not finished); beginning anew" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"epoch": "2"},
        {"epoch": -1},
        {"sums": 5},
        {"record": None},
        {"selected_value": "x"},
        {"more": 1},
    ],
)
def test_progress_of_another_kind_ends_in_one_line(paused, place):
    """Its digest matches: a stranger, or another version, wrote it."""
    for step in (paused / "checkpoints").iterdir():
        path = step / "place" / "metadata"
        old = json.loads(path.read_text())
        path.write_text(json.dumps(old | place if place else {}))
        (step / "digest.json").unlink()
        checkpoints._write_digest(step)
    np.save(paused.parent / "x.npy", np.zeros((2, 8, 8, 1), np.float32))
    for mode in ("evaluate", "predict", "train"):
        arguments = [f"--mode={mode}", "--workdir=p"]
        arguments += ["--input=x.npy"] if mode == "predict" else []
        arguments += ["--config=p/config.json"] if mode == "train" else []
        said = run_main(*arguments, folder=paused.parent)
        assert said.returncode == 1
        assert said.stderr.splitlines()[-1].startswith("failed: Checkpoint ")
        assert "does not say how far the run is" in said.stderr


def test_a_file_where_damaged_checkpoints_go_is_named(paused):
    newest = max((paused / "checkpoints").iterdir(), key=lambda p: int(p.name))
    (newest / "place" / "metadata").write_text("{}")
    (paused / "damaged").write_text("")
    with pytest.raises(UserError, match="damaged is no folder.*: move it away"):
        jaxrobust.train(settings(), paused)


@pytest.mark.skipif(os.name != "posix", reason="a pipe has a name there")
@pytest.mark.parametrize("name", ["config.json", "model.npz", "noise.npz", "results.json"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(copy, tmp_path, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    said = run_main("--mode=audit", "--workdir=w", folder=tmp_path)
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    (copy / "label_issues.csv").unlink()  # something to make again
    with pytest.raises(UserError, match=f"{name} is no file but a pipe or a device: remove it"):
        jaxrobust.train(settings(), copy)


def test_a_run_of_a_version_with_fewer_settings_opens_and_goes_on(copy, paused, tmp_path):
    """As an earlier version wrote it: a setting and a digest of the data are missing."""

    def earlier(workdir):
        arrays = dict(np.load(workdir / "model.npz"))
        record = json.loads(str(arrays["model"]))
        del record["config"]["audit"], record["data"]["sizes of image files"]
        np.savez(workdir / "model.npz", **arrays | {"model": np.array(json.dumps(record))})
        own = model.load_model(workdir).fingerprint
        for step in (workdir / "checkpoints").iterdir():
            place = step / "place" / "metadata"
            place.write_text(json.dumps(json.loads(place.read_text()) | {"record": own}))
            (step / "digest.json").unlink()
            checkpoints._write_digest(step)
        return own

    before = model.load_model(copy).fingerprint
    own = earlier(copy)
    assert own != before == model.load_model(paused).fingerprint
    (copy / "evidence.npz").unlink()
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 1), np.float32))
    for mode in ("evaluate", "predict"):
        inputs = ["--input=x.npy"] if mode == "predict" else []
        said = run_main(f"--mode={mode}", "--workdir=w", *inputs, folder=tmp_path)
        assert said.returncode == 0, said.stderr
    jaxrobust.train(settings(), copy)
    assert audit.remake(copy)
    assert earlier(paused) == own
    results = jaxrobust.train(settings(), paused)
    assert results["last"] == json.loads((copy / "results.json").read_text())["last"]
    assert model.load_model(paused).fingerprint == own
