"""Labels from a file, in place of a data set's own: of an experiment, or corrections."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jaxrobust import files
from jaxrobust.data import class_labels, manifest
from jaxrobust.data.examples import Examples, Source, rows_of
from jaxrobust.data.readers import csv_columns
from jaxrobust.errors import UserError, check, nearest, present

_WHOLE = re.compile(r"^(-?\d+)\.0*$")
LABEL = ("label", "given_label")
KEY = ("index", "path", "id")
REPLACES = "replaces"
_TRUTH = ("true_label", "true", "clean_label", "clean")


def replace(source: Source, path: str | Path, *, check_labels: bool = True) -> Source:
    """Gives a source the labels in `path`.

    A file with a column `replaces` holds corrections, as `--write_corrected` writes them: its
    labels take the place of those of all splits, and nothing is known to be true. The labels of any
    other file are for the training split, and those it had become the truth.

    The file is one of:

    - `.npy`: [R], one label for each row of the source's own order, which is the order of a
      file's rows, of a folder's sorted paths, and of TFDS ids that end in numbers (entry i
      belongs to `train_i`). Where a test share was held out, its rows are among the R.
    - `.csv`: a column `label` (or `given_label`), and `index` (row), `path` or `id` to say whose
      it is; without one, a line for each row in order. A column `true_label` or `clean_label`
      is compared with the source's labels.
    - `.npz`: the `noise.npz` of another run that used every row.

    Labels are class names, or else class numbers 0 ... K-1.

    Raises:
      UserError: wrong length, rows missing, unknown or out of range labels; the file's true
        labels contradict the source's; or (unless `check_labels` is False) labels that agree
        with the source's no better than chance, so that they probably are in another order.
    """
    path = files.expanded(path)
    check(path.is_file(), f"No labels file {str(path)!r}.")
    truth = source.train.labels if source.true_labels is None else source.true_labels
    if path.suffix.lower() in csv_columns.SUFFIXES and REPLACES in csv_columns.read(path).columns:
        return _corrected(source, path)
    if path.suffix.lower() == ".npy":
        given = _from_npy(path, source)
    elif path.suffix.lower() in csv_columns.SUFFIXES:
        given = _from_csv(path, source, truth)
    else:
        check(path.suffix == ".npz", f"Labels file {path}: use .npy, .csv, or a run's noise.npz.")
        given = _from_manifest(path, source)
    if check_labels:
        _check_agreement(given, truth, len(source.class_names), path)
    return source._replace(train=source.train._replace(labels=given, votes=None), true_labels=truth)


def apart(split: Examples, train: Examples) -> bool:
    """Returns whether the rows of a split can be told from those of the training split."""
    if split.ids is not None and train.ids is not None:
        return not set(split.ids) & set(train.ids)
    return len(np.intersect1d(rows_of(split), rows_of(train))) == 0


def _corrected(source: Source, path: Path) -> Source:
    """Puts the labels of a file of corrections in the place of a source's own."""
    columns = csv_columns.read(path).columns
    values = codes(columns[csv_columns.column(columns, LABEL, path)], source.class_names, path)
    key = next((name for name in KEY if name in columns), None)
    check(key is not None, f"Labels file {path} has no column {' or '.join(KEY)}.")
    splits = {"train": source.train, "test": source.test, "validation": source.validation}
    line = {str(name): i for i, name in enumerate(columns[key])}
    changed = total = 0
    for name, split in splits.items():
        if split is None or (name != "train" and not apart(split, source.train)):
            continue
        if name == "train":
            place = _places(columns[key], key, source, path)
            labels = values[place]
        else:
            keys = map(str, rows_of(split)) if key == "index" else split.ids or ()
            place = np.array([line.get(k, -1) for k in keys], int)
            labels = (
                np.where(place >= 0, values[place], split.labels) if len(place) else split.labels
            )
        changed, total = changed + int((labels != split.labels).sum()), total + len(labels)
        splits[name] = split._replace(labels=labels.astype(np.int32), votes=None)
    note = f"Labels are those of {path}: {changed} of {total} are not the data set's own."
    return source._replace(**splits, notes=(*source.notes, note))


def _in_order(values: np.ndarray, source: Source, path: Path) -> np.ndarray:
    """The training examples' entries of an array with one entry for each row of the source."""
    num_rows = source.num_rows or len(source.train.labels)
    held_out = " (those held out for the test included)"
    check(
        values.ndim == 1 and len(values) == num_rows,
        f"Labels file {path} has shape {list(values.shape)}; {source.name} has {num_rows} rows"
        f"{held_out if num_rows != len(source.train.labels) else ''}: use one label for each.",
    )
    return values[rows_of(source.train)]


def _from_npy(path: Path, source: Source) -> np.ndarray:
    values = files.read_npy(path, "Labels file ")
    return _in_order(codes(values, source.class_names, path), source, path)


def _from_csv(path: Path, source: Source, truth: np.ndarray) -> np.ndarray:
    columns = csv_columns.read(path).columns
    label = csv_columns.column(columns, LABEL, path)
    key = next((name for name in KEY if name in columns), None)
    values = codes(columns[label], source.class_names, path)
    if key is None:
        place = _in_order(np.arange(len(values)), source, path)
    else:
        place = _places(columns[key], key, source, path)
    own = next((name for name in _TRUTH if name in columns), None)
    if own is not None:
        theirs = codes(columns[own], source.class_names, path)[place]
        wrong = np.flatnonzero(theirs != truth)
        if len(wrong):
            i = wrong[0]
            raise UserError(
                f"Labels file {path} contradicts {source.name}: its {own!r} differs for "
                f"{len(wrong)} of {len(truth)} examples, first row {rows_of(source.train)[i]}: "
                f"{source.class_names[theirs[i]]!r} there, {source.class_names[truth[i]]!r} here."
            )
    return values[place]


def _places(keys: np.ndarray, key: str, source: Source, path: Path) -> np.ndarray:
    """For each training example, the line of the file that names it."""
    line = {str(name): i for i, name in enumerate(keys)}
    check(len(line) == len(keys), f"Labels file {path}: a value of {key!r} occurs twice.")
    ids = source.train.ids
    if key == "index":
        wanted = [str(row) for row in rows_of(source.train)]
        known = set(map(str, range(source.num_rows or len(wanted))))
    else:
        wanted = present(ids, f"Labels file {path}: {source.name} has no ids; use 'index'.")
        splits = (source.train, source.test, source.validation)
        known = {i for split in splits if split is not None for i in split.ids or ()}
    strange = next((name for name in line if name not in known), None)
    if strange is not None:
        raise UserError(
            f"Labels file {path}: no {key} {strange!r} in {source.name}."
            f"{nearest(strange, wanted[:1000])}"
        )
    missing = [name for name in wanted if name not in line]
    check(
        not missing,
        f"Labels file {path} lacks {len(missing)} of {len(wanted)} training examples, "
        f"e.g. {key} {missing[:1]}.",
    )
    return np.array([line[name] for name in wanted])


def _from_manifest(path: Path, source: Source) -> np.ndarray:
    saved = manifest.load(path)
    manifest.check_matches(saved, source, path)
    given = np.full(source.num_rows or len(source.train.labels), -1, np.int32)
    for part in (saved.train, saved.metadata, saved.validation):
        if part is not None:
            given[part.index] = part.given_labels
    given = given[rows_of(source.train)]
    check(
        bool((given >= 0).all()),
        f"{path} covers {(given >= 0).sum()} of {len(given)} training examples; as a manifest "
        "(not a labels file) it replays those rows.",
    )
    return given


def codes(values: np.ndarray, class_names: tuple[str, ...], path: str | Path) -> np.ndarray:
    """Returns class numbers, int32, of labels that are class names or class numbers.

    Raises:
      UserError: a label that is neither.
    """
    tidied = class_labels.tidy(values, f"Labels file {path}").astype(object)
    missing = np.flatnonzero([v is None or v == "-1" for v in tidied])
    if len(missing):
        raise UserError(f"Labels file {path}: entry {missing[0]} has no label.")
    texts = np.array([str(v) for v in tidied], object)
    if not {*texts} <= {*class_names}:  # "2.0", as pandas writes whole numbers
        texts = np.array([_WHOLE.sub(r"\1", v) for v in texts], object)
    distinct, inverse = np.unique(texts, return_inverse=True)
    names = distinct.tolist()
    index = {name: i for i, name in enumerate(class_names)}
    numbers = {str(i): i for i in range(len(class_names))}
    for known in (index, numbers):
        if all(name in known for name in names):
            table = np.array([known[name] for name in names], np.int32)
            return table[inverse]
    bad = next(i for i, name in enumerate(names) if name not in index and name not in numbers)
    raise UserError(
        f"Labels file {path}: entry {np.flatnonzero(inverse == bad)[0]} is {names[bad]!r}, "
        f"neither a class name nor a number in 0..{len(class_names) - 1}."
        f"{nearest(names[bad], class_names)}"
    )


def _check_agreement(given: np.ndarray, truth: np.ndarray, num_classes: int, path: Path) -> None:
    """Raises if the labels agree no better than two that have nothing to do with each other."""
    n = len(truth)
    shares = [np.bincount(labels, minlength=num_classes) / n for labels in (given, truth)]
    chance = float(shares[0] @ shares[1])
    agreement = float((given == truth).mean())
    check(
        agreement > chance + 2 * np.sqrt(chance * (1 - chance) / n),
        f"Labels file {path} agrees with the data set's own labels on {agreement:.1%} of "
        f"{n} examples, no better than chance ({chance:.1%}): is it in another order? "
        "If it is meant so, set check_labels to False.",
    )
