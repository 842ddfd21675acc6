"""Folders as people have them."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import sources
from jaxrobust.data.readers.unlabeled import load_inputs
from jaxrobust.errors import UserError


def photos(root, names=("cat", "dog"), n=4):
    for k, name in enumerate(names):
        os.makedirs(os.path.join(root, name), exist_ok=True)
        for i in range(n):
            noise = np.random.default_rng(1000 * k + i).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(os.path.join(root, name, f"{i}.png"))
    return root


def load(root, **more):
    return sources.load("folder", path=str(root), image_size=8, test_fraction=0, **more)


def test_what_systems_leave_behind_is_neither_class_nor_image(tmp_path):
    photos(tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX/cat", "@eaDir/cat", "$RECYCLE.BIN", "cat/.thumbs",
                 "cat/.ipynb_checkpoints", "dog/@eaDir", "lost+found"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(tmp_path / "cat/0.png", tmp_path / name / "copy.png")
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "~$a.png"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog") and len(source.train.labels) == 8
    assert source.notes == ()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Test"),
        ("TRAIN", "Valid"),
        ("train", "dev"),
        ("Train", "val"),
        ("train", "testing"),
    ],
)
def test_split_folders_in_any_case(tmp_path, train, test):
    photos(tmp_path / train)
    photos(tmp_path / test, n=2)
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert len(source.train.labels) == 8 and len(source.test.labels) == 4


def test_what_is_left_out_is_counted_and_named(tmp_path):
    photos(tmp_path)
    (tmp_path / "owl").mkdir()
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/notes.txt", "dog/README"):
        (tmp_path / name).write_bytes(b"what")
    os.rename(tmp_path / "dog/0.png", tmp_path / "dog/0")  # an image all the same
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog") and len(source.train.labels) == 8
    (note,) = source.notes
    for part in ("1 .txt files (e.g. dog/notes.txt)", "1 files without a suffix (e.g. dog/README)",
                 "1 folders without images (e.g. owl)"):  # fmt: skip
        assert part in note
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        assert "2 .heic files (e.g. cat/a.heic)" in note and "pip install pillow-heif" in note


def test_a_folder_within_a_folder_is_looked_into(tmp_path):
    photos(tmp_path / "photos/photos")
    source = load(tmp_path / "photos")
    assert source.class_names == ("cat", "dog") and source.train.ids[0] == "cat/0.png"
    assert source.notes == ("The classes are the folders in photos.",)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    photos(tmp_path / "all", ("cat", "dog", "far"))
    os.rename(tmp_path / "all/far", tmp_path / "elsewhere")
    (tmp_path / "all/owl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all/cat/up").symlink_to(tmp_path / "all/cat")
    source = load(tmp_path / "all")
    assert source.class_names == ("cat", "dog", "owl") and len(source.train.labels) == 12
    assert source.notes == ("Left out: 1 links to a folder above (e.g. cat/up).",)


def test_accents_composed_and_decomposed_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    photos(tmp_path / "train", (composed, "dog"))
    photos(tmp_path / "test", (apart, "dog"), n=2)
    source = load(tmp_path)
    assert source.class_names == (composed, "dog") and len(source.test.labels) == 4
    (tmp_path / "list.csv").write_text(f"path,label\ntest/{composed}/0.png,a\ntest/dog/0.png,b\n")
    assert len(load(tmp_path / "list.csv").train.labels) == 2


def test_names_that_are_no_utf8_are_printable(tmp_path):
    photos(tmp_path)
    os.rename(os.fsencode(tmp_path / "cat"), os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(os.fsencode(tmp_path / "dog/0.png"), os.fsencode(tmp_path) + b"/dog/\xff.png")
    source = load(tmp_path)
    assert source.class_names == (r"caf\xe9", "dog")
    assert r"dog/\xff.png" in source.train.ids
    "".join([*source.class_names, *source.train.ids]).encode()  # can be written
    x, names = load_inputs(tmp_path, like=(8, 8, 3))
    assert r"dog/\xff.png" in names and len(x) == 8 and x[7].shape == (8, 8, 3)


def test_a_class_folder_may_hold_what_is_not_labeled(tmp_path):
    photos(tmp_path, ("cat", "dog", "todo"))
    source = load(tmp_path, unlabeled="todo")
    assert source.class_names == ("cat", "dog") and len(source.train.labels) == 8
    assert "4 of 12 examples of train have no label" in source.notes[0]


def test_copies_are_noted_and_stay_on_one_side(tmp_path):
    photos(tmp_path, n=20)
    for i in range(5):
        shutil.copy(tmp_path / f"cat/{i}.png", tmp_path / f"cat/copy{i}.png")
    shutil.copy(tmp_path / "cat/9.png", tmp_path / "dog/wrong.png")
    source = sources.load("folder", path=str(tmp_path), test_fraction=0.3)
    assert "6 of 46 images occur more than once" in source.notes[0]
    assert "1 of them with different labels. Copies are never separated" in source.notes[0]
    test = set(source.test.ids)
    for i in range(5):
        assert (f"cat/{i}.png" in test) == (f"cat/copy{i}.png" in test)
    assert ("cat/9.png" in test) == ("dog/wrong.png" in test)
    assert 9 <= len(test) <= 18


def test_a_list_is_relative_to_its_own_folder_and_missing_files_can_be_left_out(
    tmp_path, monkeypatch
):
    photos(tmp_path / "img")
    (tmp_path / "lists").mkdir()
    lines = [f"img/{c}/{i}.png {c}" for c in ("cat", "dog") for i in range(4)]
    (tmp_path / "lists/train.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path / "lists")
    assert len(load("train.txt").train.labels) == 8
    os.remove(tmp_path / "img/cat/2.png")
    with pytest.raises(UserError, match=r"img/cat/2.png, which does not exist \(1 of 8.*=skip"):
        load("train.txt")
    source = load("train.txt", on_unreadable="skip")
    assert len(source.train.labels) == 7 and source.train.rows.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert "1 of 8 files of train, e.g. img/cat/2.png" in source.notes[0]


def test_groups_of_a_list_are_never_separated(tmp_path):
    photos(tmp_path, n=20)
    lines = [f"{c}/{i}.png,{c},who{i // 4}" for c in ("cat", "dog") for i in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,who", *lines]))
    source = sources.load(
        "folder", path=str(tmp_path / "list.csv"), group_column="who", test_fraction=0.4
    )
    assert len(source.test.labels) and not {*source.test.groups} & {*source.train.groups}


def test_folders_named_after_splits_in_other_words(tmp_path):
    for name in ("Train_Set", "validation data", "test-images"):
        photos(tmp_path / name)
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.train.ids[0].startswith("Train_Set/")
    assert source.validation.ids[0].startswith("validation data/")
    assert source.test.ids[0].startswith("test-images/")


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "val", "valid"):
        photos(tmp_path / name)
    with pytest.raises(UserError, match="two folders of the split 'validation': val, valid"):
        load(tmp_path)


def test_folders_beside_the_splits_and_loose_images_are_named(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "extra")
    photos(tmp_path, names=("test",))  # as of a competition: without labels
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "train/cover.png")
    notes = load(tmp_path).notes
    assert any("1 images outside the class folders (e.g. train/cover.png)" in n for n in notes)
    unused = "extra/ (no split, 8 images), test/ (without class folders, 4 images)"
    assert f"Folders that are not used: {unused}." in notes


def test_images_next_to_folders_without_any_are_found(tmp_path):
    photos(tmp_path / "images/train")
    photos(tmp_path / "images/test")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.xml").write_text("<a/>")
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog") and len(source.test.labels) == 8
    assert "The classes are the folders in images." in source.notes


def test_spaces_around_a_class_folders_name_make_no_other_class(tmp_path):
    photos(tmp_path, names=("cat", "cat ", " dog"), n=2)
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert np.bincount(source.train.labels).tolist() == [4, 2]


@pytest.mark.parametrize("name", ["None", "NA", "nan", "null"])
def test_a_class_folder_may_be_called_as_missing_values_are(tmp_path, name):
    photos(tmp_path, names=(name, "other"), n=2)
    source = load(tmp_path)
    assert set(source.class_names) == {name, "other"} and len(source.train.labels) == 4


def test_classes_without_training_examples_and_names_alike_are_noted(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "test", names=("Cat", "dog"), n=2)
    notes = load(tmp_path).notes
    assert "Class names that differ in case or spaces only: 'Cat' and 'cat'." in notes
    assert "Classes of validation or test without a training example: 'Cat'." in notes


@pytest.mark.parametrize("header", ["path,label", "Image_Path,Class", "FILENAME,Target"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_a_csv_of_paths_with_other_headers_and_slashes(tmp_path, header, slash):
    photos(tmp_path / "img")
    rows = [f"img{slash}{c}{slash}{i}.png,{c}" for c in ("cat", "dog") for i in range(4)]
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]) + "\n")
    source = load(tmp_path / "a.csv")
    assert source.class_names == ("cat", "dog") and len(source.train.labels) == 8


def test_a_csv_of_paths_without_header_or_path_is_refused(tmp_path):
    photos(tmp_path / "img")
    rows = [f"img/{c}/{i}.png,{c}" for c in ("cat", "dog") for i in range(4)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match="first line names an image, img/cat/0.png. Write a header"):
        load(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *rows, ",cat"]) + "\n")
    with pytest.raises(UserError, match=r"row 8 \(from 0\) names no image"):
        load(tmp_path / "a.csv")
