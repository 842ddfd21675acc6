"""A model is complete in its workdir: predictions need no data, and changes are refused."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from helpers import TINY, run_main
from PIL import Image

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust.data.examples import View
from jaxrobust.data.prepare import Part
from jaxrobust.data.readers.images import LazyImages
from jaxrobust.errors import UserError
from jaxrobust.runs import model, predict
from jaxrobust.training import checkpoints


def photos(folder, classes=("cat", "dog"), count=12, seed=0):
    """Class folders of small images; class k has much of color k."""
    rng = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (8, 8, 3)).astype(np.uint8)
            pixels[..., k] += 150
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run on photographs; the folder that holds both."""
    folder = tmp_path_factory.mktemp("photos")
    photos(folder / "photos")
    photos(folder / "new", count=3, seed=5)
    made = configuration.load("digits_losses:ce")
    made.update_from_flattened_dict(
        TINY
        | {
            "data.noise.kind": "none",
            "data.noise.rate": 0.0,
            "data.name": "folder",
            "data.path": str(folder / "photos"),
            "data.image_size": 8,
            "train.batch_size": 8,
            "train.epochs": 10,
        }
    )
    jaxrobust.train(made, folder / "w")
    predict.predict(folder / "w", folder / "new", folder / "expected.csv")
    return folder


@pytest.fixture
def trained(original, tmp_path):
    """A copy of the run's folder and its photographs to change."""
    for name in ("w", "new"):
        shutil.copytree(original / name, tmp_path / name)
    shutil.copy(original / "expected.csv", tmp_path)
    return tmp_path


def test_predictions_are_right_and_need_no_training_data(original, trained):
    with (trained / "expected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["predicted_label"] for r in rows] == ["cat"] * 3 + ["dog"] * 3
    os.rename(original / "photos", original / "away")
    try:
        path = predict.predict(trained / "w", trained / "new", trained / "again.csv")
    finally:
        os.rename(original / "away", original / "photos")
    assert path.read_text() == (trained / "expected.csv").read_text()


def test_changed_data_change_no_prediction_and_no_file(original, trained):
    before = {p: p.read_bytes() for p in (trained / "w").rglob("*") if p.is_file()}
    photos(original / "photos", ("cat", "dog", "eel"), count=14, seed=9)
    try:
        path = predict.predict(trained / "w", trained / "new", trained / "again.csv")
        with pytest.raises(UserError, match="data have changed since .* classes: cat, dog -> cat"):
            predict.evaluate(trained / "w")
        shutil.copytree(trained / "w", trained / "stopped")
        (trained / "stopped" / "results.json").unlink()
        noise = (trained / "stopped" / "noise.npz").read_bytes()
        with pytest.raises(UserError, match="training examples: 17 -> 31"):
            jaxrobust.train(model.load_model(trained / "w").config, trained / "stopped")
        assert (trained / "stopped" / "noise.npz").read_bytes() == noise
    finally:
        shutil.rmtree(original / "photos")
        photos(original / "photos")
    assert path.read_text() == (trained / "expected.csv").read_text()
    assert before == {p: p.read_bytes() for p in (trained / "w").rglob("*") if p.is_file()}
    assert predict.evaluate(trained / "w")["last"]["epoch"] == 10  # as they were again


def test_the_predictor_does_what_the_mode_does(trained):
    found = jaxrobust.load(trained / "w")
    x = np.stack(
        [
            np.asarray(Image.open(trained / "new" / name / f"{i}.png"))
            for name in ("cat", "dog")
            for i in range(3)
        ]
    )
    p = found.predict_proba(x)
    assert p.shape == (6, 2) and list(found.classes) == ["cat", "dog"]
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    assert list(found.predict(x)) == ["cat"] * 3 + ["dog"] * 3
    with (trained / "expected.csv").open() as file:
        written = [[float(r["cat"]), float(r["dog"])] for r in csv.DictReader(file)]
    np.testing.assert_allclose(p, written, atol=1e-6)
    assert found.predict_proba(x[:0]).shape == (0, 2)
    with pytest.raises(UserError, match=r"shape \[4, 4, 3\]; the run was trained on \[8, 8, 3\]"):
        found.predict(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="float64; the run was trained on uint8 images"):
        found.predict(x / 255)
    with pytest.raises(UserError, match="which='best': one of selected, last"):
        jaxrobust.load(trained / "w", "best")


@pytest.mark.parametrize("key, value", [("seed", 3), ("loss.name", "mae")])
def test_a_changed_config_json_is_refused_with_the_difference(trained, key, value):
    path = trained / "w" / "config.json"
    made = configuration.load(str(path))
    made.update_from_flattened_dict({key: value})
    path.write_text(configuration.to_json(made))
    for arguments in (
        ["--mode=evaluate"],
        ["--mode=predict", "--input=new"],
        ["--mode=audit"],
        [f"--config={path}"],
    ):
        done = run_main(*arguments, "--workdir=w", folder=trained)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"{key}: " in done.stderr and "has been changed since the run began" in done.stderr
    path.unlink()
    assert jaxrobust.load(trained / "w").epoch


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.data.image_size=64"], "data.image_size=64 was given, but --mode=predict uses"),
        (["--config=digits_ce"], "was given, but --mode=predict uses the run's own settings"),
        (["--which=best"], "one of selected, last"),
        (["--output=nowhere/p.csv"], "no folder 'nowhere'"),
    ],
)
def test_what_predict_does_not_take_is_refused(trained, arguments, message):
    done = run_main("--mode=predict", "--workdir=w", "--input=new", *arguments, folder=trained)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_the_new_place_of_the_data_is_honored(original, trained):
    shutil.copytree(original / "photos", trained / "elsewhere")
    done = run_main(
        "--mode=evaluate",
        "--workdir=w",
        "--config.data.path=elsewhere",
        "--config.eval.batch_size=7",
        folder=trained,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((trained / "w" / "results.json").read_text())
    again = json.loads((trained / "w" / "evaluation.json").read_text())
    assert again["last"]["accuracy"] == results["last"]["accuracy"]
    (trained / "elsewhere" / "cat" / "0.png").unlink()
    done = run_main(
        "--mode=evaluate", "--workdir=w", "--config.data.path=elsewhere", folder=trained
    )
    assert done.returncode == 2 and "data have changed since" in done.stderr


def test_a_fallback_is_said(trained):
    steps = sorted(map(int, os.listdir(trained / "w" / "checkpoints")))
    place = trained / "w" / "checkpoints" / str(steps[-1]) / "place" / "metadata"
    place.write_text(place.read_text().replace('"epoch": 10', '"epoch": 9'))
    done = run_main("--mode=evaluate", "--workdir=w", folder=trained)
    assert done.returncode == 0
    assert f"Checkpoint {steps[-1]} is damaged" in done.stderr
    assert "parameters of epoch 9 of 10, not of the last" in done.stderr
    done = run_main("--mode=predict", "--workdir=w", "--input=new", folder=trained)
    assert done.returncode == 0 and f"Checkpoint {steps[-1]} is damaged" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "model.npz",
        "noise.npz",
        "evidence.npz",
        "label_issues.csv",
        "sample_weights.npz",
        "report.html",
        "matrices.npz",
    ],
)
def test_what_a_finished_run_has_lost_is_made_again(trained, name, capsys):
    path = trained / "w" / name
    before = path.read_bytes()
    config = model.load_model(trained / "w").config
    results = (trained / "w" / "results.json").read_text()
    path.unlink()
    jaxrobust.train(config, trained / "w")
    assert f"has lost {name}; made again" in capsys.readouterr().err
    if name.endswith(".npz"):
        with np.load(path) as again:
            path.write_bytes(before)
            with np.load(path) as first:
                assert set(again) == set(first)
                for key in first:
                    np.testing.assert_array_equal(again[key], first[key], key)
    elif name == "label_issues.csv":
        assert path.read_bytes() == before
    assert json.loads((trained / "w" / "results.json").read_text()) == json.loads(results)


def test_damaged_results_are_made_again_and_named_by_the_audit(trained, capsys):
    path = trained / "w" / "results.json"
    results = json.loads(path.read_text())
    path.write_text(path.read_text()[:200])
    done = run_main("--mode=audit", "--workdir=w", folder=trained)
    assert done.returncode == 2 and "results.json is damaged" in done.stderr
    again = jaxrobust.train(model.load_model(trained / "w").config, trained / "w")
    assert "It is made again from the last checkpoint" in capsys.readouterr().err
    assert again | {"seconds": None} == results | {"seconds": None}


def test_lost_rows_of_metrics_come_back_and_it_is_said_which(trained, capsys):
    config = model.load_model(trained / "w").config
    (trained / "w" / "results.json").unlink()
    path = trained / "w" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"5\n", b"\xff\xfe{}\n", *lines[4:]]))
    jaxrobust.train(config, trained / "w")
    said = capsys.readouterr().err
    assert "metrics.jsonl had lost or changed the rows of epochs 2 to 4; put back" in said
    assert path.read_bytes().splitlines(keepends=True) == lines


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": "xx"},
        {"class_names": []},
        {"class_names": ["a", "a"]},
        {"class_names": [1, 2]},
        {"feature_names": 3},
        {"shape": []},
        {"shape": [-8, 8, 3]},
        {"shape": ["8", 8, 3]},
        {"shape": [8, 8]},
        {"dtype": "O"},
        {"dtype": 5},
        {"data": None},
        {"mean": np.zeros(7, np.float32)},
        {"std": np.array(["a", "b", "c"])},
        {"version": "x"},
        {"version": 99},
    ],
)
def test_a_model_of_another_kind_ends_in_one_line(trained, change):
    path = trained / "w" / "model.npz"
    arrays = dict(np.load(path))
    record = json.loads(str(arrays["model"]))
    for key, value in change.items():
        (arrays if key in arrays else record)[key] = value
    np.savez(path, **arrays | {"model": np.array(json.dumps(record))})
    for mode in ("predict", "evaluate"):
        inputs = ["--input=new"] if mode == "predict" else []
        done = run_main(f"--mode={mode}", "--workdir=w", *inputs, folder=trained)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "model.npz" in done.stderr


def test_parameters_that_do_not_fit_the_model_end_in_one_line(trained):
    """A stranger's workdir whose digests and fingerprints match."""
    path = trained / "w" / "model.npz"
    arrays = dict(np.load(path))
    record = json.loads(str(arrays["model"]))
    record["config"]["network"]["width"] = 77
    np.savez(path, **arrays | {"model": np.array(json.dumps(record))})
    (trained / "w" / "config.json").unlink()
    own = model.load_model(trained / "w").fingerprint
    for step in (trained / "w" / "checkpoints").iterdir():
        place = step / "place" / "metadata"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"record": own}))
        (step / "digest.json").unlink()
        checkpoints._write_digest(step)
    done = run_main("--mode=predict", "--workdir=w", "--input=new", folder=trained)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "does not fit the network of w/model.npz" in done.stderr


def test_a_folder_that_cannot_be_written_still_gives_the_numbers(trained, monkeypatch):
    from jaxrobust.runs import results

    def refuse(path, values):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(results, "write_json", refuse)
    done = run_main("--mode=evaluate", "--workdir=w", folder=trained)
    assert done.returncode == 0 and "w (last)" in done.stdout
    assert "evaluation.json was not written: Read-only file system" in done.stderr


def test_another_size_of_any_image_file_is_noticed(tmp_path):
    photos(tmp_path, count=100)
    paths = [str(p) for p in sorted(tmp_path.rglob("*.png"))]
    lazy = LazyImages(lambda i: open(paths[i], "rb").read(), paths, paths=paths)
    part = Part(
        View(lazy, np.arange(1, 200)), *(np.zeros(199, np.int32),) * 2, np.arange(199), None
    )
    before = model.sizes_digest(part, None)
    with open(paths[0], "ab") as file:  # not of the part
        file.write(b"x")
    assert model.sizes_digest(part, None) == before
    with open(paths[77], "ab") as file:
        file.write(b"x")
    assert model.sizes_digest(part, None) != before
    assert model.sizes_digest(part._replace(x=np.zeros((199, 2))), None) is None
