"""A folder of photos and its embeddings: the recipes' defaults next to cleanlab, and the time.

    python -m benchmarks.photos make --tfds=DATA_DIR --labels=FOLDER --output=photos_data
    python -m benchmarks.photos run --data=photos_data [--seeds=0,1,2] [--output=photos.json]

`make` writes CIFAR-10 images as JPEG files of several sizes, up to 2 megapixels, with the labels
that people gave (CIFAR-10N, `human_worst.npy`: 40 % wrong): photos/CLASS/*.jpg, truth.csv with the
true label of each, and test/CLASS/*.jpg with right labels. DATA_DIR is that of TFDS; FOLDER holds
the label sets [50000] in the original order.

`run` gives each folder to the commands that a user types: `--config=images` for the photos, and
`--config=arrays` for the features as an .npz file. Per seed: area under the precision-recall curve
and F1 of the label issues, balanced accuracy on test/, and the fraction of photos whose
out-of-sample prediction names the true class. Next to them stands cleanlab with a logistic
regression on the same features: five-fold predictions, its default filter and self-confidence, the
model fitted again without what is flagged. The seed fixes the folds. The time is that of the first
command in a fresh folder of runs, features and report included, then of the audit. What is finished
is kept in the output file. Prints a Markdown table of means over the seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

MEASURES = ("area", "f1", "balanced_accuracy", "named")
METHODS = ("images", "arrays", "cleanlab_linear")
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def make(arguments: argparse.Namespace) -> None:
    """Writes the folder of photos."""
    import tensorflow_datasets as tfds

    folder, rng = arguments.output, np.random.default_rng(0)
    given = np.load(arguments.labels / f"{arguments.given}.npy")
    truth = []
    for split, count in (("train", arguments.count), ("test", arguments.test)):
        source = tfds.data_source("cifar10", split=split, data_dir=arguments.tfds)
        for row in rng.choice(len(source), count, replace=False):
            example = source[int(row)]
            number = int(str(example["id"]).strip("b'").split("_")[1])
            true = int(example["label"])
            label = NAMES[true if split == "test" else given[number]]
            name = f"{label}/{number:05d}.jpg"
            place = folder / ("photos" if split == "train" else "test") / name
            _save(example["image"], place, rng)
            if split == "train":
                truth.append((name, NAMES[true]))
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *truth])


def _save(image: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    """Saves an image [32, 32, 3] enlarged to a random size of 64 to 1,600 pixels, as a JPEG."""
    from PIL import Image

    side, other = 64 * 25 ** rng.uniform(), rng.uniform(0.7, 1)
    size = (round(side), round(side * other)) if rng.uniform() < 0.6 else (round(side * other),
                                                                          round(side))  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def run(arguments: argparse.Namespace) -> None:
    """Measures every method and seed that the output file has not yet; prints the table."""
    data, path = arguments.data, arguments.output
    runs = data / "runs"
    found = json.loads(path.read_text()) if path.is_file() else {}
    if "time" not in found:
        found["time"] = timed(data, runs / "images_0")
        path.write_text(json.dumps(found, indent=1) + "\n")
    for seed in map(int, arguments.seeds.split(",")):
        for method in METHODS:
            key = f"{method}/{seed}"
            if key not in found:
                found[key] = measure(method, data, runs, seed)
                path.write_text(json.dumps(found, indent=1) + "\n")
                print(key, found[key], flush=True)
    print(table(found))


def timed(data: Path, workdir: Path) -> dict[str, float]:
    """Returns the seconds of the command in a fresh workdir, report included, and of the audit."""
    seconds = {}
    photos = f"--config.data.path={data / 'photos'}"
    for name, words in (("train", ["--config=images", photos]), ("audit", ["--mode=audit"])):
        begin = time.perf_counter()
        command = [sys.executable, "-m", "jaxrobust.main", *words, f"--workdir={workdir}"]
        subprocess.run(command, check=True)
        seconds[name] = round(time.perf_counter() - begin, 1)
    return seconds


def measure(method: str, data: Path, runs: Path, seed: int) -> dict[str, float]:
    """Returns the measures of one method and seed."""
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

    photos = features(data / "photos", runs)
    true = _truth(data, photos.ids, photos.names)
    if method == "cleanlab_linear":
        suspicion, flagged, p, named = _cleanlab(photos, features(data / "test", runs), seed)
    else:
        suspicion, flagged, p, named = _command(method, data, runs, photos, seed)
    expected = features(data / "test", runs).labels
    wrong = photos.labels != true
    return {
        "area": float(average_precision_score(wrong, suspicion)),
        "f1": float(f1_score(wrong, flagged)),
        "balanced_accuracy": float(balanced_accuracy_score(expected, named)),
        "named": float((p.argmax(1) == true).mean()),
    }


class Photos:
    """Images of a folder as features x [N, F], given labels [N], ids, class names."""

    def __init__(self, folder: Path, runs: Path):
        from jaxrobust.data import sources
        from jaxrobust.runs import image_features

        source = sources.load("folder", path=str(folder), image_size=128, test_fraction=0)
        self.x = image_features.of(source.train.x, workdir=runs / f"of_{folder.name}")
        self.labels, self.ids = source.train.labels, source.train.ids or []
        self.names = list(source.class_names)


_KEPT: dict[Path, Photos] = {}


def features(folder: Path, runs: Path) -> Photos:
    """Returns the photos of a folder; computed once."""
    if folder not in _KEPT:
        _KEPT[folder] = Photos(folder, runs)
    return _KEPT[folder]


def _truth(data: Path, ids: list[str], names: list[str]) -> np.ndarray:
    with (data / "truth.csv").open(newline="") as file:
        true = {row["path"]: names.index(row["label"]) for row in csv.DictReader(file)}
    return np.array([true[name] for name in ids])


def _command(method: str, data: Path, runs: Path, photos: Photos, seed: int) -> tuple[Any, ...]:
    """Runs the command, predicts test/ with it, reads what it wrote."""
    from jaxrobust import main

    workdir, path, test = runs / f"{method}_{seed}", data / "photos", data / "test"
    if method == "arrays":
        path, test = runs / "embeddings.npz", runs / "embeddings_test.npz"
        np.savez(path, x=photos.x, y=photos.labels)
        np.savez(test, x=features(data / "test", runs).x)
    words = ["", f"--config={method}", f"--config.data.path={path}", f"--config.seed={seed}"]
    assert main.run([*words, f"--workdir={workdir}"]) == 0
    output = workdir / "predictions.csv"
    words = ["", "--mode=predict", f"--workdir={workdir}", f"--input={test}"]
    assert main.run([*words, f"--output={output}"]) == 0
    with output.open(newline="") as file:
        named = [row["predicted_label"] for row in csv.DictReader(file)]
    names = photos.names if method == "images" else [str(c) for c in range(len(photos.names))]
    weights = np.load(workdir / "sample_weights.npz")
    assert np.array_equal(weights["index"], np.arange(len(photos.labels)))
    p = np.load(workdir / "evidence.npz")["true_out_of_sample"]
    named = np.array([names.index(name) for name in named])
    return -weights["label_score"], weights["is_label_issue"], p, named


def _cleanlab(photos: Photos, test: Photos, seed: int) -> tuple[Any, ...]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_self_confidence_for_each_label
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    x, labels = photos.x, photos.labels
    p = cross_val_predict(model, x, labels, cv=folds, method="predict_proba")
    flagged = find_label_issues(labels, p, n_jobs=1)
    again = model.fit(x[~flagged], labels[~flagged])
    return -get_self_confidence_for_each_label(labels, p), flagged, p, again.predict(test.x)


def table(found: dict[str, dict[str, float]]) -> str:
    """Returns a Markdown table of means over the seeds, and the time."""
    lines = ["| method | " + " | ".join(MEASURES) + " |", "| --- |" + " --- |" * len(MEASURES)]
    for method in METHODS:
        rows = [[v[m] for m in MEASURES] for k, v in found.items() if k.startswith(f"{method}/")]
        if rows:
            cells = " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0))
            lines.append(f"| {method} ({len(rows)} seeds) | {cells} |")
    if "time" in found:
        t = found["time"]
        lines.append(f"\nTime: {t['train']:.0f} s to train, audit and report; {t['audit']:.0f} s "
                     "for the audit again.")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="write the folder of photos")
    making.add_argument("--tfds", required=True, help="data_dir of TFDS that holds cifar10")
    making.add_argument("--labels", type=Path, required=True, help="folder of label sets")
    making.add_argument("--given", default="human_worst", help="name of the label set")
    making.add_argument("--count", type=int, default=3000)
    making.add_argument("--test", type=int, default=1000)
    making.add_argument("--output", type=Path, required=True)
    making.set_defaults(run=make)
    running = commands.add_parser("run", help="measure")
    running.add_argument("--data", type=Path, required=True, help="folder that `make` wrote")
    running.add_argument("--seeds", default="0,1,2")
    running.add_argument("--output", type=Path, default=Path("photos.json"))
    running.set_defaults(run=run)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
