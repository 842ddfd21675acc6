"""Image classification data sets of TFDS that are prepared on disk, read without TensorFlow."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import files
from jaxrobust.data.examples import Examples, Loaded
from jaxrobust.data.readers import images
from jaxrobust.errors import UserError, check, nearest

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def load(
    name: str,
    *,
    data_dir: str | None,
    label_key: str | None,
    image_size: int | None,
    on_unreadable: str,
    max_bytes: int,
    own: Sequence[str] = (),
) -> Loaded:
    """Reads the splits train, validation and test of a prepared TFDS data set.

    `name` is `builder`, `builder/config`, or either with `:version`. With a `label_key`, that
    feature is given to training and `label`, if there is one, is the truth (cifar10_n's
    `worse_label`). If every training id ends in its number (`train_00012`), that number is the
    example's row. A data set whose only split is not called train is read as if it were. `own` are
    the names of `sources`, which an unknown name is compared with.

    Raises:
      UserError: not prepared (says which command prepares it), no such feature, labels missing,
        not in array_record files.
    """
    # Found here and not by `tfds.builder`: that imports the code that generates the data set,
    # and asks the network about names that it does not know.
    folder = _find(name, files.expanded(data_dir or _default_data_dir()), own)
    builder = _tfds().builder_from_directory(folder)
    features = builder.info.features
    image_key = _image_key(features, name)
    given_key, own_key = _label_keys(builder, label_key, name)
    class_names = _class_names(features, own_key)
    available = list(builder.info.splits)
    known = {split: split for split in ("train", "validation", "test") if split in available}
    if "train" not in known:
        check(len(available) == 1, f"{name} has no split 'train', but {', '.join(available)}.")
        known = {"train": available[0]}
    splits, truth, notes, num_rows = {}, None, [], 0
    for split, tfds_name in known.items():
        source = _records(builder, tfds_name, image_key, folder)
        wanted = {given_key, own_key, "id"} & set(features)
        columns, encoded = _columns(source, wanted, image_key, max_bytes)
        labels = columns[given_key if split == "train" else own_key]
        if split != "train" and (labels < 0).all():  # published without its labels
            continue
        _check_labels(labels, len(class_names), f"{name}, split {tfds_name}")
        ids = columns.get("id") or [f"{tfds_name} {i}" for i in range(len(labels))]
        read = encoded.__getitem__ if encoded else partial(_read, source, image_key)
        lazy = images.LazyImages(read, ids, image_size, features[image_key].shape[-1])
        x, kept = images.load(lazy, on_unreadable, max_bytes)
        if len(kept) < len(labels):
            notes.append(images.skipped_note(split, ids, kept))
        rows = _rows(ids)[kept]
        splits[split] = Examples(x, labels[kept], [ids[i] for i in kept], rows)
        if split == "train":
            num_rows = len(labels)
            truth = columns[own_key][kept] if own_key != given_key else None
    return Loaded(splits, class_names, truth, num_rows, tuple(notes))


def _tfds() -> Any:
    import tensorflow_datasets as tfds  # takes a while: only when it is needed

    return tfds


def _default_data_dir() -> str:
    return _tfds().core.constants.DATA_DIR


def _find(name: str, data_dir: Path, own: Sequence[str]) -> Path:
    """Returns the folder of the newest version, or of the one asked for."""
    path, _, version = name.partition(":")
    base = data_dir / path
    versions = _versions(base)
    if not versions and base.is_dir():
        configs = [f.name for f in sorted(base.iterdir()) if _versions(f)]
        if len(configs) == 1:
            base, versions = base / configs[0], _versions(base / configs[0])
        elif configs:
            raise UserError(f"{path} has several configurations: {path}/{', '.join(configs)}.")
    if versions and not version:
        return base / max(versions, key=lambda v: tuple(map(int, v.split("."))))
    if version in versions:
        return base / version
    if versions:
        raise UserError(f"{path} is prepared as version {', '.join(versions)}, not {version}.")
    raise UserError(_not_prepared(name, data_dir, own))


def _versions(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [
        f.name
        for f in sorted(folder.iterdir())
        if _VERSION.fullmatch(f.name) and (f / "dataset_info.json").is_file()
    ]


def _not_prepared(name: str, data_dir: Path, own: Sequence[str]) -> str:
    builders = _tfds().list_builders(with_community_datasets=False)
    builder = re.split("[/:]", name)[0]
    if builder not in builders:
        return (
            f"Unknown data set {name!r}: not one of {', '.join(own)}, no TFDS builder, and not in "
            f"{data_dir}.{nearest(builder, [*own, *builders])}"
        )
    need = "" if importlib.util.find_spec("tensorflow") else " (needs TensorFlow, this once)"
    return (
        f"{name} is not prepared in {data_dir}; run: "
        f"python -m jaxrobust.data.prepare_tfds {name} --data_dir={data_dir}{need}"
    )


def _image_key(features: Any, name: str) -> str:
    tfds = _tfds()
    keys = [key for key in features if type(features[key]) is tfds.features.Image]
    if "image" in keys:
        return "image"
    check(len(keys) == 1, f"{name} has {len(keys)} image features, not one: {list(features)}.")
    return keys[0]


def _class_labels(features: Any) -> list[str]:
    return [k for k in features if isinstance(features[k], _tfds().features.ClassLabel)]


def _label_keys(builder: Any, label_key: str | None, name: str) -> tuple[str, str]:
    """Returns the features that hold the given and the data set's own labels."""
    keys, supervised = _class_labels(builder.info.features), builder.info.supervised_keys
    own: Any = "label" if "label" in keys else None
    if label_key is None and own is None:
        if supervised and supervised[-1] in keys:
            own = supervised[-1]
        else:
            choice = ", ".join(keys) or "none there"
            check(len(keys) == 1, f"{name} has no feature 'label'; choose a label key: {choice}.")
            own = keys[0]
    given: Any = label_key or own
    check(
        given in keys,
        f"{name} has no label {given!r}, but {', '.join(keys)}.{nearest(given, keys)}",
    )
    return given, own or given


def _class_names(features: Any, key: str) -> tuple[str, ...]:
    names = features[key].names
    return tuple(names or map(str, range(features[key].num_classes)))


def _records(builder: Any, split: str, image_key: str, folder: Path) -> Any:
    decoders = {image_key: _tfds().decode.SkipDecoding()}
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError:
        raise UserError(
            f"{folder} holds files that cannot be read at random; prepare the data set in another "
            "folder: python -m jaxrobust.data.prepare_tfds NAME --data_dir=FOLDER"
        ) from None


def _columns(
    source: Any, keys: set[str], image_key: str, max_bytes: int
) -> tuple[dict[str, Any], list[bytes] | None]:
    """Reads labels (int32 [N]) and ids of all records, and the encoded images if they fit."""
    columns: dict[str, list] = {key: [] for key in keys}
    encoded, room = [], max_bytes
    for start in range(0, len(source), 4096):
        records = source.__getitems__(range(start, min(start + 4096, len(source))))
        for key, values in columns.items():
            values += [record[key] for record in records]
        if encoded is not None:
            encoded += [record[image_key] for record in records]
            room -= sum(map(len, encoded[start:]))
            encoded = encoded if room > 0 else None
    if "id" in columns:
        columns["id"] = [i.decode() for i in columns["id"]]
    return {k: v if k == "id" else np.array(v, np.int32) for k, v in columns.items()}, encoded


def _check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(bad):
        raise UserError(f"{where}: example {bad[0]} has no label ({labels[bad[0]]}).")


def _rows(ids: list[str]) -> np.ndarray:
    """The numbers at the end of the ids if these number the examples, else the record order."""
    found = [re.search(r"(\d+)$", i) for i in ids]
    if all(found):
        numbers = np.array([int(m.group()) for m in found if m])
        if np.array_equal(np.sort(numbers), np.arange(len(ids))):
            return numbers
    return np.arange(len(ids))


def _read(source: Any, key: str, i: int) -> bytes:
    return source[i][key]
