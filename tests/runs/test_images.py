"""A folder of images with the recipe `images`: features, cache, report, correction, heads."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.networks import pretrained
from jaxrobust.runs import experiment, image_features

CLASSES = ("coast", "forest", "night")


def picture(path, label, rng, side):
    """Saves an image whose brightest channel is that of the label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 90, (side, side + 8, 3), np.uint8)
    pixels[..., label] += 140
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sixty images of several sizes; every fifth lies in the folder of another class."""
    folder, rng = tmp_path_factory.mktemp("own") / "photos", np.random.default_rng(0)
    for i in range(60):
        label = i % 3
        given = (label + 1) % 3 if i % 5 == 0 else label
        picture(folder / CLASSES[given] / f"{i:02d}_{label}.png", label, rng, 32 + i % 4 * 9)
    (folder / ".hidden").mkdir()
    (folder / "empty").mkdir()
    (folder / "coast" / "Thumbs.db").write_text("no image")
    return folder


def command(photos, workdir, *more):
    return [
        "jaxrobust",
        "--config=images",
        f"--config.data.path={photos}",
        f"--workdir={workdir}",
        "--config.data.image_size=32",
        *more,
    ]


@pytest.fixture(scope="module")
def run(photos):
    workdir = photos.parent / "runs" / "first"
    assert main.run(command(photos, workdir, "--config.data.test_fraction=0.25")) == 0
    return workdir


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def counted(monkeypatch):
    """Numbers of images whose features are computed, call by call."""
    counts, features = [], pretrained.features

    def count(name, images, **options):
        counts.append(len(images))
        return features(name, images, **options)

    monkeypatch.setattr(pretrained, "features", count)
    return counts


def test_every_image_is_judged_and_shown(run):
    found, results = rows(run / "label_issues.csv"), json.loads((run / "results.json").read_text())
    assert len(found) == 60 and {row["split"] for row in found} == {"train", "test"}
    wrong = [CLASSES.index(row["given_label"]) != int(row["path"][-5]) for row in found]
    assert np.mean(wrong[:8]) > 0.8
    assert {row["given_label"] for row in found} == {*CLASSES}
    assert "agreement" in results["last"] and "accuracy" not in results["last"]
    report = (run / "report.html").read_text()
    assert report.count("data:image") >= 12 and "not shown" not in report


def test_unreadable_images_are_named_together_with_the_setting(photos, tmp_path, capsys):
    copied = shutil.copytree(photos, tmp_path / "photos")
    (copied / "coast" / "zero.jpg").touch()
    (copied / "night" / "text.png").write_text("no image")
    assert main.run(command(copied, tmp_path / "w")) == 2
    text = capsys.readouterr().err
    assert "2 of 62 images cannot be read: coast/zero.jpg, night/text.png" in text
    assert "--config.data.on_unreadable=skip" in text


def test_features_are_kept_for_the_same_images_only(photos, run, tmp_path, counted):
    again = shutil.copytree(run.parent, tmp_path / "runs") / "second"
    copied = shutil.copytree(photos, tmp_path / "photos")
    assert main.run(command(copied, again)) == 0  # Other splits, and the neighbor's features.
    assert sum(counted) == 0
    changed = copied / "night" / "02_2.png"
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    assert main.run(command(copied, again.with_name("third"))) == 0
    assert sum(counted) == 1
    kept = np.load(again.with_name("third") / image_features.FILE)["x"]
    assert kept.shape == (60, 1280)


def test_corrected_labels_are_no_truth_turned_upside_down(photos, run, tmp_path, counted, capsys):
    fixed = tmp_path / "fixed.csv"
    arguments = ["--mode=audit", f"--workdir={run}", f"--write_corrected={fixed}", "--force"]
    assert main.run(["jaxrobust", *arguments]) == 0
    lines, flagged = rows(fixed), rows(run / "label_issues.csv")
    flagged = {r["path"]: r["given_label"] for r in flagged if r["is_label_issue"] == "True"}
    assert len(lines) == 60
    replaced = {r["path"]: r["replaces"] for r in lines if r["replaces"] != r["label"]}
    assert replaced == flagged
    assert f"{len(flagged)} labels replaced" in capsys.readouterr().out
    test = {r["path"] for r in rows(run / "label_issues.csv") if r["split"] == "test"}
    assert test & {*flagged}
    second = run.parent / "corrected"
    more = ["--config.data.test_fraction=0.25", f"--config.data.labels_file={fixed}"]
    assert main.run(command(photos, second, *more)) == 0
    results = json.loads((second / "results.json").read_text())
    assert results["audit"]["truth"] is None and results["noise"]["realised_rate"] is None
    given = {row["path"]: row["given_label"] for row in rows(second / "label_issues.csv")}
    assert given == {row["path"]: row["label"] for row in lines}
    assert f"{len(flagged)} of 60 are not the data set's own" in capsys.readouterr().err
    assert sum(counted) == 0


def test_predictions_of_new_images_with_broken_ones_among_them(run, tmp_path, capsys):
    rng = np.random.default_rng(1)
    for label in range(3):
        picture(tmp_path / "new" / f"{label}.jpg", label, rng, 50)
    (tmp_path / "new" / "broken.jpg").touch()
    arguments = ["jaxrobust", "--mode=predict", f"--workdir={run}", f"--input={tmp_path / 'new'}"]
    arguments.append(f"--output={tmp_path / 'out.csv'}")
    assert main.run(arguments) == 2 and "broken.jpg" in capsys.readouterr().err
    assert main.run([*arguments, "--config.data.on_unreadable=skip"]) == 0
    found = rows(tmp_path / "out.csv")
    assert [row["example"] for row in found] == ["0.jpg", "1.jpg", "2.jpg"]
    assert sum(row["predicted_label"] == CLASSES[i] for i, row in enumerate(found)) >= 2


@pytest.mark.slow
def test_learned_objectives_train_a_head_on_frozen_features(photos, run, tmp_path, counted, capsys):
    workdir = run.parent / "dynamic"
    more = [
        "--config.method.name=dynamic_loss",
        "--config.data.test_fraction=0.25",
        "--config.data.validation.fraction=0.2",
        "--config.method.warmup_epochs=1",
        "--config.method.num_ranks=5",
        "--config.train.epochs=4",
        "--config.train.batch_size=16",
        "--config.optimizer.learning_rate=0.003",
        "--config.log.figures=False",
        "--config.log.tensorboard=False",
    ]
    assert main.run(command(photos, workdir, *more)) == 0
    assert sum(counted) == 0
    found = rows(workdir / "label_issues.csv")
    assert len(found) == 60 and {row["split"] for row in found} == {"train", "validation", "test"}
    assert [int(row["rank"]) for row in found] == [*range(1, 61)]
    assert json.loads((workdir / "results.json").read_text())["measured_on"] == "given labels"
    assert "agreement with the given test labels" in (workdir / "report.html").read_text()
    said = capsys.readouterr()
    assert "test_agreement" in said.err and "Agreement with the given labels" in said.out
    assert (workdir / "report.html").read_text().count("data:image") >= 5
    names = [path for path in sorted(photos.rglob("*.png"))][:9]
    x = np.stack([np.asarray(Image.open(path).resize((32, 32))) for path in names])
    predicted = jaxrobust.load(workdir).predict(x)
    assert np.mean(predicted == [CLASSES[int(path.stem[-1])] for path in names]) > 0.5
    output = tmp_path / "out.csv"
    arguments = ["--mode=predict", f"--workdir={workdir}", f"--input={photos}"]
    assert main.run(["jaxrobust", *arguments, f"--output={output}"]) == 0
    assert len(rows(output)) == 60


@pytest.mark.slow
def test_fine_tuning_begins_with_the_published_weights_and_their_normalization(photos):
    made = configuration.override(
        configuration.load("images"),
        {
            "data.path": str(photos),
            "data.image_size": 32,
            "method.name": "supervised",
            "network.freeze": False,
            "train.batch_size": 8,
        },
    )
    whole = experiment.assemble(configuration.validate(made))
    np.testing.assert_allclose(whole.scale[0] * 255, [127.0] * 3, rtol=1e-6)
    assert "top" in whole.network.stages and whole.data.train.x.shape[1:] == (32, 32, 3)
    params, _ = pretrained.variables("efficientnet_lite0")
    begun, _ = whole.network.init(experiment.jax.random.key(0), whole.data.train.x[:1])
    kernel = np.asarray(begun["stem"]["conv"]["kernel"])
    np.testing.assert_array_equal(kernel, params["stem"]["conv"]["kernel"])


@pytest.mark.parametrize(
    "more, text",
    [
        (["--config.network.freeze=False"], "--config.method.name=supervised"),
        (["--config.network.pretrained=no.pth"], "network.pretrained=no.pth: no such file"),
        (["--config.network.name=resnet18"], "No installed weights of 'resnet18'"),
        (["--config.network.name=mlp"], "Network 'mlp' has no published weights"),
        (["--config.data.image_size=20"], "need at least 32"),
    ],
)
def test_settings_that_cannot_be_used(photos, tmp_path, more, text, capsys):
    assert main.run(command(photos, tmp_path / "w", *more)) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("method", ["blend", "supervised"])
def test_the_dry_run_is_short_and_tells_the_time(photos, tmp_path, method, capsys, counted):
    arguments = command(photos, tmp_path / "w", f"--config.method.name={method}", "--dry_run")
    assert main.run(arguments) == 0
    text = capsys.readouterr().out
    assert "ms per image" in text and "expected in all" in text and "forest 20" in text
    assert len(text.splitlines()) <= 12 and counted == []
    assert main.run([*arguments, "--verbose"]) == 0
    assert '"learning_rate"' in capsys.readouterr().out


def test_what_an_image_takes_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXROBUST_COMPILE_CACHE", str(tmp_path))
    which = image_features.Extractor(image_size=32)
    stored, measured = image_features.seconds_per_image(which)
    assert not measured and stored > 0
    clock = image_features._Clock(300)
    clock.add(16, 9.0)  # compiles
    clock.add(200, 4.0)
    assert clock.left() == pytest.approx(84 * 0.02)
    clock.remember(which)
    assert image_features.seconds_per_image(which) == (pytest.approx(0.02), True)
