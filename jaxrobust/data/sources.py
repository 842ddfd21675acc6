"""Data sets by name: `load("digits")`, `load("cifar10", data_dir=...)`, `load("folder", ...)`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust.data import annotators as raters
from jaxrobust.data import class_labels, splits
from jaxrobust.data.examples import Examples, Loaded, Source, labeled_only, take
from jaxrobust.data.readers import arrays, folder, tfds
from jaxrobust.errors import check

OWN = ("digits", "folder", "npz", "csv")  # names that are not looked up in TFDS
MAX_BYTES = 1 << 30  # images beyond this stay on disk and are decoded when asked for


def load(
    name: str,
    *,
    path: str | None = None,
    data_dir: str | None = None,
    label_key: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    unlabeled: str | None = None,
    annotators: str | None = None,
    consensus: str = "dawid_skene",
    image_size: int | None = None,
    on_unreadable: str = "error",
    test_fraction: float | None = None,
    num_classes: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Source:
    """Reads a data set.

    A data set without a test split is tested on its validation split; without either, a
    stratified share is held out, always the same one whatever the seed of the run.

    Args:
      name: `digits`, `folder`, `npz`, `csv`, or a TFDS builder prepared on disk (`cifar10`,
        `cifar10_corrupted/brightness_1`).
      path: file or folder of `folder`, `npz` and `csv`.
      data_dir: where TFDS keeps prepared data sets.
      label_key: which labels are given to training, where there are several; the usual ones
        are then the truth.
      label_column: column of the labels in a CSV file (default: see `arrays.load_csv`).
      group_column: column of a CSV file, or array of an .npz file, that names each example's group
        (patient, video); no split separates a group.
      unlabeled: label or class folder that means "not labeled".
      annotators: columns of a CSV file, the array [N, A] of an .npz file, or a file of labels per
        annotator, see `data.annotators`; their consensus takes the place of the labels.
      consensus: how it is found, see `crowd.CONSENSUS`.
      image_size: images from files: shorter side resized to it, then the central square.
      on_unreadable: `error`, or `skip` images that cannot be decoded.
      test_fraction: fraction held out where there is no test split; 0 for none. Default: 0.3 of
        digits, else 0.2.
      num_classes: keep the first classes only (mini-WebVision: 50).
      max_bytes: images that would take more memory are decoded when asked for.

    Raises:
      UserError: see `folder.load`, `arrays.load_npz`, `arrays.load_csv`, `tfds.load`.
    """
    if name in OWN:
        check(data_dir is None, f"data_dir is for TFDS data sets; {name!r} takes a path.")
    else:
        check(path is None, f"path is for folder, npz and csv; {name!r} takes a data_dir.")
    images = {"image_size": image_size, "on_unreadable": on_unreadable, "max_bytes": max_bytes}
    roles = {"group_column": group_column, "unlabeled": unlabeled}
    check(
        label_column is None or name in ("csv", "folder"),
        f"data.label_column is for CSV files; {name!r} has no columns.",
    )
    check(
        group_column is None or name in OWN[1:],
        f"data.group_column is for folder, npz and csv; {name!r} has no groups.",
    )
    by_file = raters.are_files(annotators)
    check(
        annotators is None or by_file or name in ("npz", "csv"),
        f"data.annotators={annotators}: {name!r} takes a file (.csv, .npy) per annotator.",
    )
    inside = None if by_file else annotators
    if name == "digits":
        check(path is None and label_key is None, "digits takes neither a path nor a label key.")
        loaded = _digits()
    elif name == "npz":
        loaded = arrays.load_npz(
            path, label_key=label_key, max_bytes=max_bytes, annotators=inside, **roles
        )
    elif name == "csv":
        loaded = arrays.load_csv(
            path, label_key=label_key, label_column=label_column, annotators=inside, **roles
        )
    elif name == "folder":
        loaded = folder.load(
            path, label_key=label_key, label_column=label_column, num_classes=num_classes,
            **roles, **images,
        )  # fmt: skip
    else:
        loaded = tfds.load(name, data_dir=data_dir, label_key=label_key, own=OWN, **images)
    if by_file:
        loaded = raters.from_files(loaded, annotators or "")
    if annotators is not None:
        loaded = raters.agreed(loaded, consensus)
    loaded = labeled_only(loaded)
    if num_classes is not None:
        loaded = _first_classes(loaded, num_classes)
    if test_fraction is None:
        test_fraction = 0.3 if name == "digits" else 0.2
    return _with_test(name, loaded, test_fraction)


def _digits() -> Loaded:
    """scikit-learn's 1797 digits: uint8 [N, 8, 8, 1], 0 ... 16 scaled to 0 ... 255 and rounded."""
    digits, target = _digits_table()
    x = np.round(digits * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    n = len(x)
    examples = Examples(x, target.astype(np.int32), None, np.arange(n))
    return Loaded({"train": examples}, tuple(map(str, range(10))), None, n)


def _digits_table() -> tuple[np.ndarray, np.ndarray]:
    """Returns float [N, 64] and int [N], read from scikit-learn's file without importing it."""
    package = importlib.util.find_spec("sklearn")
    for place in (package and package.submodule_search_locations) or ():
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(int)
    from sklearn import datasets

    digits: Any = datasets.load_digits()
    return digits.data, digits.target


def _first_classes(loaded: Loaded, num_classes: int) -> Loaded:
    names = loaded.class_names
    check(
        2 <= num_classes <= len(names),
        f"num_classes={num_classes}: the data set has {len(names)}: {', '.join(names[:10])}"
        f"{', ...' if len(names) > 10 else '.'} Benchmark recipes cut classes; data of your own: "
        "--config=images, --config=table or --config=arrays.",
    )
    kept = {s: np.flatnonzero(e.labels < num_classes) for s, e in loaded.splits.items()}
    truth = loaded.true_labels
    if truth is not None:
        both = (loaded.splits["train"].labels < num_classes) & (truth < num_classes)
        kept["train"] = np.flatnonzero(both)
        truth = truth[kept["train"]]
    check(len(kept["train"]) > 0, f"No example has one of the first {num_classes} classes.")
    return loaded._replace(
        splits={s: take(e, kept[s]) for s, e in loaded.splits.items()},
        class_names=names[:num_classes],
        true_labels=truth,
    )


def _shared_groups(train: Examples, *others: Examples | None) -> list[str]:
    """Returns a note if a data set's own splits separate groups."""
    own = [e.groups for e in others if e is not None and e.groups is not None]
    shared = (
        0
        if train.groups is None or not own
        else len(np.intersect1d(train.groups, np.concatenate(own)))
    )
    if not shared:
        return []
    return [f"{shared} groups (or images that occur more than once) are in training and test both."]


def _with_test(name: str, loaded: Loaded, fraction: float) -> Source:
    train, truth = loaded.splits["train"], loaded.true_labels
    test, validation = loaded.splits.get("test"), loaded.splits.get("validation")
    notes = list(loaded.notes)
    labels = {split: examples.labels for split, examples in loaded.splits.items()}
    notes += class_labels.class_notes(labels, loaded.class_names)
    shapes = {tuple(split.x.shape[1:]) for split in loaded.splits.values()}
    check(
        len(shapes) == 1,
        f"{name}: examples of the splits differ in shape, {sorted(shapes)}: choose an image size, "
        "--config.data.image_size=64.",
    )
    if test is None and validation is not None:
        test, validation = validation, None
        notes.append("No test split: the validation split is the test.")
    check(0 <= fraction < 1, f"test_fraction={fraction:g} is outside [0, 1).")
    if test is None and fraction > 0:
        strata = train.labels if truth is None else truth
        total = round(fraction * len(strata))
        with splits.on_cpu():
            key = splits.key_for(0, splits.TEST)
            out = splits.stratified(
                strata, total, len(loaded.class_names), key, leave=1, groups=train.groups
            )
        check(
            out.any(),
            f"{name}: {len(strata)} examples are too few to hold out a test set: set "
            "--config.data.test_fraction=0 to train on all.",
        )
        test = take(train._replace(labels=strata), np.flatnonzero(out))
        train = take(train, np.flatnonzero(~out))
        truth = None if truth is None else truth[~out]
        notes.append(f"No test split: {len(test.labels)} examples held out, the same every time.")
    notes += _shared_groups(train, test, validation)
    return Source(
        name,
        train,
        test,
        validation,
        loaded.class_names,
        truth,
        loaded.num_rows,
        tuple(notes),
        loaded.feature_names,
    )
