"""Images on disk: class folders, CSV files, list files; broken, gray and large images."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import sources
from jaxrobust.data.examples import View
from jaxrobust.data.readers import folder, images
from jaxrobust.errors import UserError


def write(path, value=0, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value,) * 3).save(path)


def load(path, **more):
    reading = dict(label_key=None, image_size=None, on_unreadable="error", max_bytes=1 << 30)
    return folder.load(str(path), **(reading | more))


@pytest.fixture
def tree(tmp_path):
    """Class folders with images whose gray value tells them apart; classes a, b, c."""
    for i, name in enumerate(("a/1.png", "a/2.PNG", "b/deep/er/3.png", "b/4.jpg", "c/5.bmp")):
        write(tmp_path / name, 10 * i)
    (tmp_path / "c/notes.txt").write_text("no image")
    write(tmp_path / ".hidden/9.png")
    return tmp_path


def test_class_folders(tree):
    loaded = load(tree)
    train = loaded.splits["train"]
    assert loaded.class_names == ("a", "b", "c") and list(loaded.splits) == ["train"]
    assert train.ids == ["a/1.png", "a/2.PNG", "b/4.jpg", "b/deep/er/3.png", "c/5.bmp"]
    np.testing.assert_array_equal(train.labels, [0, 0, 1, 1, 2])
    assert train.x.shape == (5, 6, 6, 3) and train.x.dtype == np.uint8
    np.testing.assert_array_equal(train.x[:, 0, 0, 0], [0, 10, 30, 20, 40])


def test_split_folders_and_a_class_only_in_the_test(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/c/4.png"):
        write(tmp_path / name)
    (tmp_path / "train/empty").mkdir()
    loaded = load(tmp_path)
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.notes[0] == "Left out: 1 folders without images (e.g. train/empty)."
    assert {k: v.ids for k, v in loaded.splits.items()} == {
        "train": ["train/a/1.png", "train/b/2.png"],
        "validation": ["val/a/3.png"],
        "test": ["test/c/4.png"],
    }
    np.testing.assert_array_equal(loaded.splits["test"].labels, [2])
    source = sources.load("folder", path=str(tmp_path))
    assert source.validation.ids == ["val/a/3.png"] and source.test.ids == ["test/c/4.png"]


def test_numbered_class_folders_are_in_numerical_order(tmp_path):
    for name in ("10", "9", "8"):
        write(tmp_path / name / "1.png")
    assert load(tmp_path).class_names == ("8", "9", "10")


def test_large_folders_are_read_when_asked_for(tree):
    lazy = load(tree, max_bytes=100, image_size=4).splits["train"].x
    assert isinstance(lazy, images.LazyImages) and lazy.shape == (5, 4, 4, 3) and len(lazy) == 5
    np.testing.assert_array_equal([lazy[i][0, 0, 0] for i in range(5)], [0, 10, 30, 20, 40])
    source = sources.load("folder", path=str(tree), max_bytes=100, test_fraction=0.4)
    assert isinstance(source.train.x, View) and isinstance(source.test.x, View)


def test_resizing_keeps_the_shape_and_cuts_the_middle():
    stripes = np.zeros((20, 60, 3), np.uint8)
    stripes[:, 20:40] = 200  # the middle third is what a central square shows
    data = io.BytesIO()
    Image.fromarray(stripes).save(data, "PNG")
    image = images.decode(data.getvalue(), 10, 3)
    assert image.shape == (10, 10, 3)
    np.testing.assert_array_equal(image[:, 1:-1], 200)
    tall = io.BytesIO()
    Image.fromarray(stripes.transpose(1, 0, 2)).save(tall, "PNG")
    np.testing.assert_array_equal(images.decode(tall.getvalue(), 10, 3)[1:-1], 200)
    assert images.decode(data.getvalue(), 33, 3).shape == (33, 33, 3)


def test_gray_images_have_one_channel_if_all_are_gray(tmp_path):
    write(tmp_path / "a/1.png", 7, mode="L")
    write(tmp_path / "b/2.png", 9, mode="L")
    assert load(tmp_path).splits["train"].x.shape == (2, 6, 6, 1)
    write(tmp_path / "b/3.png", 5)
    x = load(tmp_path).splits["train"].x
    assert x.shape == (3, 6, 6, 3)
    np.testing.assert_array_equal(x[:, 0, 0], [[7] * 3, [9] * 3, [5] * 3])


def test_unusual_kinds_of_images(tmp_path):
    Image.fromarray(np.full((6, 6), 0x1280, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (6, 6), (1, 2, 3, 4)).save(tmp_path / "alpha.png")
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, 50, 60, 70])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff")
    read = {p.stem: images.decode(p.read_bytes(), None, 3)[0, 0] for p in tmp_path.iterdir()}
    np.testing.assert_array_equal(read["deep"], [0x12] * 3)
    np.testing.assert_array_equal(read["alpha"], [251] * 3)  # nearly transparent, over white
    np.testing.assert_array_equal(read["palette"], [50, 60, 70])


def test_a_file_that_is_no_list_is_named(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(UserError, match="photos.zip is no text: use a folder of images"):
        load(tmp_path / "photos.zip")


@pytest.mark.parametrize("max_bytes", [1 << 30, 100])
def test_an_unreadable_image_is_named_or_skipped(tree, max_bytes):
    content = (tree / "a/1.png").read_bytes()
    (tree / "a/1.png").write_bytes(content[: len(content) // 2])
    (tree / "b/4.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"1\.png cannot be read"):
        x = load(tree, max_bytes=max_bytes, image_size=6).splits["train"].x
        x[0]  # if it is lazy, only now
    if max_bytes > 100:
        with pytest.raises(UserError, match=r"2 of 5 images cannot be read: a/1\.png, b/4\.jpg"):
            load(tree, image_size=6)
    loaded = load(tree, max_bytes=max_bytes, image_size=6, on_unreadable="skip")
    train = loaded.splits["train"]
    assert train.ids == ["a/2.PNG", "b/deep/er/3.png", "c/5.bmp"]
    np.testing.assert_array_equal(train.labels, [0, 1, 2])
    np.testing.assert_array_equal([train.x[i][0, 0, 0] for i in range(3)], [10, 20, 40])
    np.testing.assert_array_equal(train.rows, [1, 3, 4])
    assert loaded.notes == (
        "Left out: 1 .txt files (e.g. c/notes.txt).",
        "Skipped 2 unreadable images of train: a/1.png, b/4.jpg.",
    )
    assert loaded.num_rows == 5


def test_large_images_are_decoded_by_threads_in_order(tmp_path):
    for i in range(12):
        write(tmp_path / f"{'ab'[i % 2]}/{i:02}.png", i, size=(70, 70))
    train = load(tmp_path).splits["train"]
    np.testing.assert_array_equal(train.x[:, 0, 0, 0], [int(name[2:4]) for name in train.ids])
    (tmp_path / "a/04.png").write_text("no image")
    with pytest.raises(UserError, match=r"04\.png cannot be read"):
        load(tmp_path)


def test_images_of_several_sizes_need_a_size(tree):
    write(tree / "b/6.png", size=(8, 6))
    with pytest.raises(UserError, match=r"6\.png is 6 x 8, others are 6 x 6: choose"):
        load(tree, on_unreadable="skip")
    assert load(tree, image_size=5).splits["train"].x.shape == (6, 5, 5, 3)


def test_splits_of_several_sizes_need_a_size(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png"):
        write(tmp_path / name, size=(9, 9) if "test" in name else (6, 6))
    with pytest.raises(UserError, match="choose an image size"):
        sources.load("folder", path=str(tmp_path))
    assert sources.load("folder", path=str(tmp_path), image_size=6).test.x.shape == (1, 6, 6, 3)


def test_nothing_readable(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        write(tmp_path / name)
        (tmp_path / name).write_text("no image")
    with pytest.raises(UserError, match="None of the 2 images can be read"):
        load(tmp_path, on_unreadable="skip", image_size=4)


def test_a_csv_file(tree):
    file = tree / "labels.csv"
    file.write_text(
        "path,label,split,seen\na/1.png,cat,train,dog\nb/4.jpg,dog,train,dog\nc/5.bmp,cat,test,dog\n"
    )
    loaded = load(file)
    assert loaded.class_names == ("cat", "dog") and loaded.num_rows == 3
    assert loaded.splits["train"].ids == ["a/1.png", "b/4.jpg"]
    np.testing.assert_array_equal(loaded.splits["train"].labels, [0, 1])
    np.testing.assert_array_equal(loaded.splits["test"].rows, [2])
    assert loaded.true_labels is None
    noisy = load(file, label_key="seen")
    np.testing.assert_array_equal(noisy.splits["train"].labels, [1, 1])
    np.testing.assert_array_equal(noisy.true_labels, [0, 1])
    np.testing.assert_array_equal(noisy.splits["test"].labels, [0])


def test_list_files_as_imagenet_lt_has_them(tmp_path):
    for i, name in enumerate(("train/n01/a b.png", "train/n02/2.png", "val/3.png", "val/4.png")):
        write(tmp_path / name, i)
    (tmp_path / "ImageNet_LT_train.txt").write_text("train/n01/a b.png 3\ntrain/n02/2.png 11\n")
    (tmp_path / "ImageNet_LT_val.txt").write_text("val/3.png 11\n\n")
    (tmp_path / "ImageNet_LT_test.txt").write_text("val/4.png 7\n")
    loaded = load(tmp_path / "ImageNet_LT_train.txt")
    assert loaded.class_names == ("3", "7", "11")
    assert {k: v.labels.tolist() for k, v in loaded.splits.items()} == {
        "train": [0, 2], "validation": [2], "test": [1]
    }  # fmt: skip
    assert loaded.splits["train"].ids[0] == "train/n01/a b.png"


def test_list_files_as_webvision_has_them(tmp_path):
    write(tmp_path / "google/q0001/x.jpg")
    write(tmp_path / "google/q0002/y.jpg")
    (tmp_path / "google/q0003").mkdir()
    (tmp_path / "google/q0003/z.jpg").write_text("Never opened: of no use to the first classes.")
    write(tmp_path / "val_images_256/v1.jpg")
    write(tmp_path / "val_images_256/v2.jpg")
    info = tmp_path / "info"
    info.mkdir()
    (info / "train_filelist_google.txt").write_text(
        "google/q0001/x.jpg 0\ngoogle/q0002/y.jpg 1\ngoogle/q0003/z.jpg 2\n"
    )
    (info / "val_filelist.txt").write_text("v1.jpg 1\nv2.jpg 2\n")
    path = str(info / "train_filelist_google.txt")
    source = sources.load("folder", path=path, num_classes=2, image_size=4)
    assert source.train.ids == ["google/q0001/x.jpg", "google/q0002/y.jpg"]
    assert source.test.ids == ["v1.jpg"] and source.class_names == ("0", "1")
    assert source.num_rows == 3
    for wrong in (1, 4):
        with pytest.raises(UserError, match=f"num_classes={wrong}: the data set has 3"):
            sources.load("folder", path=path, num_classes=wrong, image_size=4, on_unreadable="skip")


def test_animal10n_as_shipped_is_told_to_be_listed_and_its_lists_are_read(tmp_path):
    for name in ("training/0_1.jpg", "training/1_2.jpg", "testing/1_0.jpg"):
        write(tmp_path / name)
    with pytest.raises(UserError, match="has testing/, training/ but no class sub-folders"):
        load(tmp_path)
    for split in ("training", "testing"):
        lines = [f"{split}/{path.name} {path.name[0]}" for path in (tmp_path / split).iterdir()]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    source = sources.load("folder", path=str(tmp_path / "training.txt"))
    assert len(source.train.ids) == 2 and source.test.ids == ["testing/1_0.jpg"]
    np.testing.assert_array_equal(source.test.labels, [1])


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train/1.png", "bus/2.png"):
        write(tmp_path / name)
    assert load(tmp_path).class_names == ("bus", "train")


@pytest.mark.parametrize(
    "content, message",
    [
        ("a/1.png 0\na/9.png 1\n", r"a/9\.png, which does not exist"),
        ("x/1.png 0\nx/2.png 1\n", r"x/1\.png, which is in none of"),
        ("a/1.png 0\nodd\n", r"line 1 \(from 0\) does not read"),
        ("\n", "is empty"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tree, content, message):
    (tree / "train.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        load(tree / "train.txt")


def test_folders_that_do_not_fit_are_refused(tmp_path, tree):
    with pytest.raises(UserError, match="one folder of images per class; it holds no folder"):
        load(tree / "c")
    (tmp_path / "none/x").mkdir(parents=True)
    (tmp_path / "none/y").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="Only a .csv file"):
        load(tree, label_key="noisy")
    with pytest.raises(UserError, match="'skip'"):
        load(tree, on_unreadable="skp")
    (tree / "bad.csv").write_text("file,label\na/1.png,0\na/7.png,1\n")
    with pytest.raises(UserError, match=r"a/7\.png, which does not exist"):
        load(tree / "bad.csv")
