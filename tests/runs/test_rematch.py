"""Data that have changed since a run: nothing is shown or labeled that is another's."""

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import main
from jaxrobust.audit import thumbnails
from jaxrobust.data import manifest
from jaxrobust.data.examples import Examples, Source
from jaxrobust.errors import UserError
from jaxrobust.runs import audit as auditing
from jaxrobust.runs import corrections, rematch
from jaxrobust.runs.experiment import load_data

NAMES = ("cat", "dog", "emu")


def settings(**data):
    made = configuration.load("digits_losses:ce")
    made.update_from_flattened_dict(
        {
            "network.name": "mlp",
            "network.width": 16,
            "train.epochs": 30,
            "train.batch_size": 32,
            "log.figures": False,
            "log.tensorboard": False,
            "data.validation.fraction": 0.1,
            **{f"data.{key}": value for key, value in data.items()},
        }
    )
    return made


def picture(rng, kind):
    """A class is where the bright band is; no two pictures are the same."""
    x = rng.integers(0, 60, (8, 8))
    x[2 * kind : 2 * kind + 3] += 180
    return Image.fromarray(x.astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of pictures, every fifth of which lies in the next class's folder."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 80), ("test", 20)):
        for kind in range(3):
            (root / "data" / split / NAMES[kind]).mkdir(parents=True)
        for kind in range(3):
            for i in range(count):
                wrong = split == "train" and i % 5 == 0
                folder = root / "data" / split / NAMES[(kind + wrong) % 3]
                picture(rng, kind).save(folder / f"{NAMES[kind][0]}{i:03}.png")
    jaxrobust.train(settings(name="folder", path=str(root / "data")), root / "run")
    return root


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of run and data to do as one likes with."""
    for name in ("data", "run"):
        ignore = shutil.ignore_patterns("checkpoints")
        shutil.copytree(trained / name, tmp_path / name, ignore=ignore)
    return tmp_path


def moved(root):
    """Where the data of a copied run are now, as settings."""
    return {"data.path": str(root / "data")}


def delete(root):
    (root / "data/train/cat/c001.png").unlink()


def delete_and_add(root):
    delete(root)
    picture(np.random.default_rng(1), 2).save(root / "data/train/emu/e999.png")


def shown(page):
    """What the report shows: pairs of a path and the picture above it, or None for a gap."""
    for figure in re.findall(r"<figure>(.*?)</figure>", page, re.S):
        source = re.search(r'src="(data:[^"]*)"', figure)
        path = re.search(r"<small>(train/[^<]*)<br>", figure)
        yield path[1].strip(), source and source[1]


def audit(root, name=None):
    more = [f"--write_corrected={root / name}", "--force"] if name else []
    return main.run(
        [
            "",
            "--mode=audit",
            f"--workdir={root / 'run'}",
            f"--config.data.path={root / 'data'}",
            *more,
        ]
    )


@pytest.mark.parametrize("change, count", [(delete, 0), (delete_and_add, 1)])
def test_a_changed_folder_gives_its_own_pictures_and_each_file_its_own_label(
    copied, capsys, change, count
):
    change(copied)
    if not count:  # a suspect one goes as well
        with (copied / "run/label_issues.csv").open(newline="") as file:
            suspect = next(csv.DictReader(file))["path"]
        (copied / "data" / suspect).unlink()
    assert audit(copied, "labels.csv") == 0
    page, seen, gaps = (copied / "run/report.html").read_text(), 0, []
    for path, url in shown(page):
        if url is None:
            gaps.append(path)
            continue
        with Image.open(copied / "data" / path) as image:
            assert url == thumbnails.thumbnail(np.asarray(image)[..., None]), path
        seen += 1
    assert seen > 20 and gaps == ([] if count else [suspect])
    assert "The data have changed since the run" in page and "train/cat/c001.png" in page
    with (copied / "labels.csv").open(newline="") as file:
        written = {row["path"]: row["label"] for row in csv.DictReader(file)}
    with (copied / "run/label_issues.csv").open(newline="") as file:
        found = {row["path"]: row for row in csv.DictReader(file)}
    files = {
        f.relative_to(copied / "data").as_posix(): f.parent.name
        for f in (copied / "data").glob("*/*/*.png")
    }
    assert set(written) == set(files)
    replaced = 0
    for path, own in files.items():
        flagged = path in found and found[path]["is_label_issue"] == "True"
        assert written[path] == (found[path]["predicted_label"] if flagged else own), path
        replaced += written[path] != own
    said = capsys.readouterr()
    assert f"{replaced} labels replaced" in said.out and replaced > 20
    assert f"{2 - count} are not among" in said.err and f"{count} are new" in said.err
    again = load_data(
        settings(name="folder", path=str(copied / "data"), labels_file=str(copied / "labels.csv"))
    )
    for path, label in zip(again.train.ids, again.train.labels, strict=True):
        assert written[path] == NAMES[label]


def test_an_unchanged_folder_has_every_picture_and_its_labels_by_path(copied, capsys):
    assert audit(copied, "labels.csv") == 0
    page = (copied / "run/report.html").read_text()
    assert all(url for _, url in shown(page)) and "have changed" not in page
    assert (copied / "labels.csv").read_text().startswith("path,label,replaces\ntrain/cat/c")
    assert "note" not in capsys.readouterr().err


def test_new_predictions_are_not_made_of_changed_data(copied):
    delete(copied)
    with pytest.raises(UserError, match=r"need the data: The data have changed.*cat/c001\.png"):
        auditing.remake(copied / "run", folds=2, settings=moved(copied))


def test_a_class_that_has_gone_is_one_line_and_nothing_is_written(copied, capsys):
    for split in ("train", "test"):
        shutil.rmtree(copied / "data" / split / "dog")
    assert audit(copied, "labels.csv") == 2
    said = capsys.readouterr().err
    assert "The classes have changed since the run, from cat, dog, emu" in said
    assert said.count("error: ") == 1 and not (copied / "labels.csv").exists()
    assert (copied / "run/report.html").read_text().count("no picture") > 5


def test_changed_data_without_names_are_one_line_and_show_no_picture(copied):
    rng = np.random.default_rng(0)
    np.savez(copied / "d.npz", x=rng.integers(0, 255, (300, 8, 8)), y=rng.integers(0, 3, 300))
    other = {"data.name": "npz", "data.path": str(copied / "d.npz")}
    found = auditing.remake(copied / "run", settings=other)
    with pytest.raises(UserError, match="no names to find its examples by") as error:
        corrections.write_corrected(copied / "run", found.issues, copied / "labels.csv", other)
    assert "\n" not in str(error.value)
    assert not (copied / "labels.csv").exists()
    page = (copied / "run/report.html").read_text()
    assert "data:image" not in page and "have changed since the run: no examples" in page


def record(truth_known, names=("a", "b", "c")):
    rows = manifest.Rows(np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([0, 1, 1]))
    held = manifest.Rows(np.array([3]), np.array([2]), np.array([2]))
    return manifest.Manifest(
        "folder", "", names, 0, "none", 0.0, "none", 1.0, truth_known, "noisy", rows, None, held
    )


@pytest.mark.parametrize(
    "truth_known, labels, place",
    [
        (True, [2, 0, 2, 0, 2], [3, -1, 0]),  # as the run was given them, whatever the source says
        (False, [1, 0, 0, 1, 2], [-1, -1, -1]),  # as the source has them now
    ],
)
def test_labels_that_were_changed_by_hand_stay(truth_known, labels, place):
    """The run had p q r and held out s; now there are r n s p m, and other labels."""
    train = Examples(np.zeros((5, 2)), np.array([1, 0, 0, 1, 2]), ["r", "n", "s", "p", "m"])
    source = Source("folder", train, None, None, ("a", "b", "c"))
    names = {"train": np.array(["p", "q", "r"]), "validation": np.array(["s"])}
    given = rematch.given_by_name(source, record(truth_known), names)
    np.testing.assert_array_equal(given.places["train"], place)
    np.testing.assert_array_equal(given.labels, labels)
    assert "1 are not among" in given.note and "2 are new" in given.note
    assert ("3 with another label" in given.note) == (not truth_known)
    with pytest.raises(UserError, match="no names"):
        rematch.given_by_name(source, record(True), {"train": names["train"]})
