"""Prepared TFDS data sets, written here by hand and read without TensorFlow."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from jaxrobust.data import prepare_tfds, sources
from jaxrobust.data.readers import images, tfds
from jaxrobust.errors import UserError

FEATURE = "tensorflow_datasets.core.features."


def png(value, size=(5, 4)):
    data = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(data, "PNG")
    return data.getvalue()


def features_json(class_labels, sides=("4", "5")):
    feature = {
        "id": {"text": {}, "pythonClassName": FEATURE + "text_feature.Text"},
        "image": {
            "image": {"dtype": "uint8", "shape": {"dimensions": [*sides, "3"]}},
            "pythonClassName": FEATURE + "image_feature.Image",
        },
    }
    for key in class_labels:
        feature[key] = {
            "classLabel": {"numClasses": "3"},
            "pythonClassName": FEATURE + "class_label_feature.ClassLabel",
        }
    return {
        "featuresDict": {"features": feature},
        "pythonClassName": FEATURE + "features_dict.FeaturesDict",
    }


def write(data_dir, splits, name="tiny", version="1.0.0", format="array_record", **more):
    """Writes a data set; `splits` maps a name to records {feature: value}."""
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    labels = [k for k in next(iter(splits.values()))[0] if k not in ("id", "image")]
    names = "\n".join(("ant", "bee", "cat"))
    for key in labels:
        (folder / f"{key}.labels.txt").write_text(names)
    (folder / "features.json").write_text(json.dumps(features_json(labels, **more)))
    info = {
        "fileFormat": format,
        "moduleName": "somewhere",
        "name": name.split("/")[0],
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1000",
                "shardLengths": [str(len(records))],
            }
            for split, records in splits.items()
        ],
        "version": version,
    }
    if "/" in name:
        info["configName"] = name.split("/")[1]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for split, records in splits.items():
        stem = f"{name.split('/')[0]}-{split}.{format}-00000-of-00001"
        writer = ArrayRecordWriter(str(folder / stem), "group_size:1")
        for record in records:
            example = tf_example_pb2.Example()
            for key, value in record.items():
                feature = example.features.feature[key]
                if isinstance(value, int):
                    feature.int64_list.value.append(value)
                else:
                    feature.bytes_list.value.append(value)
            writer.write(example.SerializeToString())
        writer.close()
    return str(data_dir)


ORDER = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]  # records are not in the order of their numbers


def records(split="train", **label_of):
    """Ten records; pixel (0, 0) is the number in the id, `label` that number mod 3."""
    label_of = {"label": lambda i: i % 3} | label_of
    return [
        {"id": f"{split}_{i:05}".encode(), "image": png(i)}
        | {key: value(i) for key, value in label_of.items()}
        for i in ORDER
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    splits = {"train": records(), "test": records("test")}
    return write(tmp_path_factory.mktemp("tfds"), splits)


@pytest.mark.parametrize("max_bytes", [1 << 30, 300])
def test_images_labels_ids_and_original_rows(tiny, max_bytes):
    source = sources.load("tiny", data_dir=tiny, max_bytes=max_bytes)
    train = source.train
    assert source.class_names == ("ant", "bee", "cat") and source.num_rows == 10
    assert train.ids[:2] == ["train_00007", "train_00002"]
    assert isinstance(train.x, images.LazyImages) == (max_bytes == 300)
    assert tuple(train.x.shape) == (10, 4, 5, 3) and train.x.dtype == np.uint8
    np.testing.assert_array_equal(train.rows, ORDER)
    np.testing.assert_array_equal([train.x[i][0, 0, 0] for i in range(10)], ORDER)
    np.testing.assert_array_equal(train.labels, np.array(ORDER) % 3)
    assert source.test.ids[0] == "test_00007" and source.validation is None
    assert source.true_labels is None


def test_nothing_imports_tensorflow(tiny):
    code = (
        "import sys; from jaxrobust.data import sources;"
        "from jaxrobust.data.prepare import prepare;"
        f"s = sources.load('tiny', data_dir={tiny!r});"
        "p = prepare(s, seed=0, noise_kind='symmetric', noise_rate=0.5, validation_fraction=0.2);"
        "print(len(p.train.labels), [m for m in ('tensorflow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "8 []", done.stderr


def test_a_label_key_is_given_and_label_is_the_truth(tmp_path):
    worse = {"worse_label": lambda i: (i + 1) % 3}
    # As cifar10_n has it: the human labels of the test split mean nothing.
    splits = {"train": records(**worse), "test": records("test", worse_label=lambda i: 0)}
    data_dir = write(tmp_path, splits)
    source = sources.load("tiny", data_dir=data_dir, label_key="worse_label")
    np.testing.assert_array_equal(source.train.labels, (np.array(ORDER) + 1) % 3)
    np.testing.assert_array_equal(source.true_labels, np.array(ORDER) % 3)
    np.testing.assert_array_equal(source.test.labels, np.array(ORDER) % 3)
    with pytest.raises(UserError, match="no label 'wors_label'.*'worse_label'"):
        sources.load("tiny", data_dir=data_dir, label_key="wors_label")
    with pytest.raises(UserError, match="no label 'id'"):
        sources.load("tiny", data_dir=data_dir, label_key="id")


def test_a_configuration_and_a_single_split(tmp_path):
    data_dir = write(tmp_path, {"test": records("test")}, name="tiny/fog_1")
    for name in ("tiny/fog_1", "tiny"):
        source = sources.load(name, data_dir=data_dir, test_fraction=0.3)
        assert len(source.train.labels) == 7 and len(source.test.labels) == 3
        np.testing.assert_array_equal(
            [source.train.x[i][0, 0, 0] for i in range(7)], source.train.rows
        )
    write(tmp_path, {"test": records("test")}, name="tiny/fog_2")
    with pytest.raises(UserError, match="several configurations: tiny/fog_1, fog_2"):
        sources.load("tiny", data_dir=data_dir)


def test_the_newest_version_unless_one_is_asked_for(tmp_path):
    for version, label in (("9.0.0", 0), ("10.0.0", 1), ("2.0.1", 2)):
        splits = {"train": records(label=lambda i, c=label: c), "test": records("test")}
        write(tmp_path, splits, version=version)
    assert set(sources.load("tiny", data_dir=str(tmp_path)).train.labels) == {1}
    assert set(sources.load("tiny:2.0.1", data_dir=str(tmp_path)).train.labels) == {2}
    with pytest.raises(UserError, match="not 3.0.0"):
        sources.load("tiny:3.0.0", data_dir=str(tmp_path))


def test_a_validation_split_is_the_test_where_the_test_has_no_labels(tmp_path):
    unlabeled = records("test", label=lambda i: -1)
    splits = {"train": records(), "validation": records("validation"), "test": unlabeled}
    source = sources.load("tiny", data_dir=write(tmp_path, splits))
    assert source.test.ids[0].startswith("validation") and source.validation is None


def test_images_of_any_size_are_resized(tmp_path):
    splits = {"train": records(), "test": records("test")}
    splits["train"][3]["image"] = png(0, size=(9, 9))
    data_dir = write(tmp_path, splits, sides=("-1", "-1"))
    assert sources.load("tiny", data_dir=data_dir, image_size=6).train.x.shape == (10, 6, 6, 3)
    with pytest.raises(UserError, match="train_00000 is 9 x 9.*choose an image size"):
        sources.load("tiny", data_dir=data_dir)


def test_unreadable_images_are_named_or_skipped(tmp_path):
    splits = {"train": records(), "test": records("test")}
    splits["train"][2]["image"] = b"no image"
    data_dir = write(tmp_path, splits)
    with pytest.raises(UserError, match="train_00009 cannot be read"):
        sources.load("tiny", data_dir=data_dir)
    source = sources.load("tiny", data_dir=data_dir, on_unreadable="skip")
    assert "train_00009" not in source.train.ids and len(source.train.x) == 9
    assert source.num_rows == 10 and "Skipped 1" in source.notes[0]


def test_missing_labels_are_refused(tmp_path):
    splits = {"train": records(label=lambda i: i % 3 - (i == 9) * 9), "test": records("test")}
    with pytest.raises(UserError, match="example 2 has no label"):
        sources.load("tiny", data_dir=write(tmp_path, splits))


def test_files_without_random_access_are_refused(tmp_path):
    data_dir = write(tmp_path, {"train": records()}, format="tfrecord")
    with pytest.raises(UserError, match="cannot be read at random.*prepare_tfds"):
        sources.load("tiny", data_dir=data_dir)


def test_a_data_set_that_is_not_prepared_says_which_command_to_run(tmp_path):
    command = f"python -m jaxrobust.data.prepare_tfds cifar100 --data_dir={tmp_path}"
    with pytest.raises(UserError) as error:
        sources.load("cifar100", data_dir=str(tmp_path))
    assert command in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="Unknown data set 'cifar1000'.*'cifar100'"):
        sources.load("cifar1000", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="Unknown data set 'digit'.*'digits'"):
        sources.load("digit", data_dir=str(tmp_path))


def test_preparing_says_that_it_needs_tensorflow(monkeypatch, capsys):
    monkeypatch.setattr(prepare_tfds.importlib.util, "find_spec", lambda name: None)
    assert prepare_tfds.main(["cifar100", "--data_dir=x"]) == 2
    assert "pip install tensorflow" in capsys.readouterr().err


def test_rows_are_record_order_unless_ids_number_the_examples():
    np.testing.assert_array_equal(tfds._rows(["a_1", "a_0"]), [1, 0])
    for ids in (["a_1", "a_2"], ["a_1", "b"], ["a_1", "b_1"]):
        np.testing.assert_array_equal(tfds._rows(ids), [0, 1])
