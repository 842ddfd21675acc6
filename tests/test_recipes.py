"""Recipes for images on disk, on small pictures in the formats in which the data sets come."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.runs import experiment
from jaxrobust.training.metrics_log import read_rows

SIDE = 40


def picture(path, label, classes):
    """Saves a picture in which one of `classes` columns is bright, that of the label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 60, (SIDE, SIDE, 3), np.uint8)
    width = SIDE // classes
    pixels[:, label * width : (label + 1) * width] += 150
    Image.fromarray(pixels).save(path)


def animal10n(folder):
    """train/ and test/ with a folder a class: 10 classes, 8 and 2 images, one of them broken."""
    for split, count in (("train", 8), ("test", 2)):
        for k in range(10):
            for i in range(count):
                picture(folder / split / f"animal{k}" / f"{i}.jpg", k, 10)
    (folder / "train" / "animal3" / "5.jpg").write_bytes(b"\xff\xd8 cut short")
    return folder


def webvision(folder):
    """Lists in info/, of three classes; the images in google/ and val_images_256/."""
    lines = {"train_filelist_google.txt": [], "val_filelist.txt": []}
    for k in range(3):
        for i in range(8):
            name = f"google/q{k:04d}/{i}.jpg"
            picture(folder / name, k, 3)
            lines["train_filelist_google.txt"].append(f"{name} {k}")
        picture(folder / "val_images_256" / f"val{k}.jpg", k, 3)
        lines["val_filelist.txt"].append(f"val{k}.jpg {k}")
    return write_lists(folder / "info", lines) / "train_filelist_google.txt"


def imagenet_lt(folder):
    """Lists beside train/ and val/ of ImageNet: classes of 20, 10 and 5 images."""
    lines = {f"ImageNet_LT_{split}.txt": [] for split in ("train", "val", "test")}
    for k, count in enumerate((20, 10, 5)):
        names = [f"train/n{k}/n{k}_{i}.JPEG" for i in range(count + 1)]
        names.append(f"val/ILSVRC2012_val_{k}.JPEG")
        for name in names:
            picture(folder / name, k, 3)
        for split, part in (("train", names[:-2]), ("val", names[-2:-1]), ("test", names[-1:])):
            lines[f"ImageNet_LT_{split}.txt"] += [f"{name} {k}" for name in part]
    return write_lists(folder, lines) / "ImageNet_LT_train.txt"


def write_lists(folder, lines):
    folder.mkdir(exist_ok=True)
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")
    return folder


@pytest.mark.parametrize(
    "recipe, data, side, classes, sizes",
    [
        ("animal10n_dynamic_loss", animal10n, 64, 10, (79, 20)),
        ("webvision_ce", webvision, 256, 2, (16, 2)),
        ("webvision_dynamic_loss", webvision, 256, 3, (24, 3)),
        ("imagenet_lt_dynamic_loss", imagenet_lt, 256, 3, (35, 3)),
    ],
)
def test_a_recipe_fits_its_data_as_they_come(tmp_path, recipe, data, side, classes, sizes):
    """All but the number of classes and of examples is as published; nothing is compiled."""
    config = configuration.load(recipe)
    changed = {"data.path": str(data(tmp_path)), "data.num_classes": classes, "train.batch_size": 8}
    made = experiment.assemble(configuration.validate(configuration.override(config, changed)))
    assert made.data.train.x.shape[1:] == (side, side, 3)
    assert (len(made.data.train.labels), len(made.data.test.labels)) == sizes
    assert len(made.data.class_names) == classes and made.method.epochs == config.train.epochs


@pytest.mark.slow
def test_animal10n_runs_as_a_user_runs_it(tmp_path, program):
    """But for VGG-19, which takes minutes to compile: files, views, stages, pictures, report."""
    animal10n(tmp_path / "animals")
    done = program(
        "--config=animal10n_dynamic_loss",
        "--config.data.path=animals",
        "--workdir=w",
        "--config.data.image_size=32",
        "--config.augment.cutout=16",
        "--config.train.epochs=2",
        "--config.network.name=small_cnn",
        "--config.network.width=4",
        "--config.train.batch_size=20",
        "--config.method.warmup_epochs=1",
    )
    assert done.returncode == 0, done.stderr
    assert "Skipped 1 unreadable images of train: train/animal3/5.jpg." in done.stderr
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    assert results["epochs"] == 2 and results["selection_split"] is None
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert rows[1]["train_meta_grad_norm"] > 0 and len(rows[1]["weight_by_class"]) == 10
    with (tmp_path / "w" / "label_issues.csv").open() as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert (splits.count("train"), splits.count("test")) == (79, 20)
    figures = {path.name for path in (tmp_path / "w" / "figures").glob("*.png")}
    assert {"margins.png", "weight_by_rank.png", "learning_curves.png"} <= figures
    assert "animal3" in (tmp_path / "w" / "report.html").read_text()


@pytest.mark.parametrize("recipe", sorted(configuration.recipes()))
def test_a_benchmark_recipe_is_not_put_on_other_data(recipe, tmp_path, capsys):
    """What plants noise, cuts classes or takes clean metadata does so on its own data only."""
    for k in range(4):
        for i in range(6):
            picture(tmp_path / "photos" / f"class{k}" / f"{i}.jpg", k, 4)
    made = configuration.flat(configuration.load(recipe))
    default = configuration.flat(configuration.default_config())
    plants = [key for key in configuration.PLANTED if made[key] != default[key]]
    command = ["jaxrobust", f"--config={recipe}", "--config.data.name=folder", "--dry_run"]
    command += [f"--config.data.path={tmp_path / 'photos'}", "--config.train.batch_size=2"]
    if not plants:  # Nothing of it is harmful.
        main.parse(command)
        return
    assert main.run(command) == 2
    assert "--config=images" in capsys.readouterr().err


def test_what_a_user_plants_is_planted(tmp_path):
    command = ["jaxrobust", "--config=digits_curvenet", "--config.data.name=npz", "--dry_run"]
    given = ["noise.kind=symmetric", "imbalance.kind=step", "metadata.kind=noisy"]
    values = main.parse([*command, *(f"--config.data.{text}" for text in given)])
    assert values.config.data.noise.rate == 0.4
