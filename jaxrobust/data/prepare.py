"""Disjoint parts of a data set for a run (training, metadata, validation, test), from one seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.data import label_noise, labels_file, manifest, splits, tabular
from jaxrobust.data.examples import Examples, Joined, Source, positions, rows_of, take
from jaxrobust.data.manifest import Manifest, Rows
from jaxrobust.data.table import Table
from jaxrobust.data.training_pool import Pool
from jaxrobust.errors import check, choose


class Part(NamedTuple):
    """Examples with given and true labels.

    Attributes:
      x: see `Examples`; of data that is not in memory, a view.
      labels: int32 [N], given.
      true_labels: int32 [N]; the same as given if the truth is not known.
      index: int64 [N], rows in the source's own order (test: in its test split's order).
      ids: N names, or None.
      table: of tables, the rows as they were before `Prepared.encoder` turned them into x.
      groups: int64 [N], see `Examples`, or None.
      votes: int32 [N, A], see `Examples`, or None.
      images: where x are features of images, these; else None.
    """

    x: Any
    labels: np.ndarray
    true_labels: np.ndarray
    index: np.ndarray
    ids: list[str] | None
    table: Table | None = None
    groups: np.ndarray | None = None
    votes: np.ndarray | None = None
    images: Any = None

    @property
    def shown(self) -> Any:
        """What a person would look at: images, where there are any, else x."""
        return self.x if self.images is None else self.images


PARTS = ("train", "metadata", "validation", "test")


class Prepared(NamedTuple):
    """What a run works on. train, metadata and validation share no row.

    Attributes:
      train: what is trained on.
      metadata: held out for meta-learning, or None.
      validation: held out for model selection, or None.
      test: or None if the source has none.
      class_names: K names.
      manifest: what was done; save it as `noise.npz`.
      truth_known: whether true labels are known (see `Manifest`).
      validation_kind: `noisy` or `clean` hold-out, `own` split of the source, or `none`.
      warnings: lines to tell the user.
      encoder: of tables, what turns rows into features, fitted on the training part; or None.
    """

    train: Part
    metadata: Part | None
    validation: Part | None
    test: Part | None
    class_names: tuple[str, ...]
    manifest: Manifest
    truth_known: bool
    validation_kind: str
    warnings: list[str]
    encoder: tabular.Encoder | None = None


class Everything(NamedTuple):
    """Examples of all parts, to show: `x[i]`, and of tables `table[i]`, is the i-th."""

    x: Any
    table: Table | None


def everything(prepared: Prepared) -> Everything:
    """Returns the examples of training, metadata, validation and test, in this order."""
    parts = [p for p in (getattr(prepared, name) for name in PARTS) if p is not None]
    tables = [p.table for p in parts if p.table is not None]
    joined = None
    if len(tables) == len(parts):
        columns = {
            name: np.concatenate([t.columns[name] for t in tables]) for name in tables[0].columns
        }
        joined = Table(columns, tables[0].kinds)
    return Everything(Joined([p.shown for p in parts]), joined)


def prepare(
    source: Source,
    *,
    seed: int,
    labels_path: str | Path | None = None,
    check_labels: bool = True,
    manifest_path: str | Path | None = None,
    subset: int | None = None,
    noise_kind: str = "none",
    noise_rate: float = 0.0,
    noise_map: str | Mapping | None = None,
    noise_matrix: np.ndarray | str | Path | None = None,
    imbalance_kind: str = "none",
    imbalance_factor: float = 1.0,
    metadata_kind: str = "none",
    metadata_per_class: int = 10,
    validation_fraction: float = 0.1,
    validation_clean: bool = False,
) -> Prepared:
    """Makes a run's data out of a source, in this order.

    1. Labels file: its labels are given, the source's become the truth.
    2. Subset: a stratified `subset` of the training split.
    3. Clean metadata: `metadata_per_class` of every class, held out with true labels.
    4. Imbalance: classes are cut to the sizes of `long_tail.class_counts`.
    5. Clean validation: a stratified share is held out with true labels.
    6. Noise: given labels are drawn from the true ones.
    7. Noisy metadata, then noisy validation: held out of what is left, by given label.

    Every step has its own key, so that changing one does not change what another draws. A
    source's own validation split takes the place of a hold-out (none is used at fraction 0).

    Args:
      source: see `sources.load`.
      seed: all is drawn from it.
      labels_path: see `labels_file.replace`.
      check_labels: refuse a labels file that seems to be in another order.
      manifest_path: a `noise.npz`: use its rows and labels instead of steps 1 to 7.
      subset: number of training examples, or None for all.
      noise_kind, noise_rate, noise_matrix [K, K]: see `label_noise`.
      noise_map: which class becomes which, for asymmetric noise; see `flip_maps.parse`.
      imbalance_kind, imbalance_factor: see `long_tail`.
      metadata_kind: none, clean, noisy.
      metadata_per_class: examples of each class.
      validation_fraction: share of the training examples, in [0, 1).
      validation_clean: hold out before the noise.

    Raises:
      UserError: a value out of range, too few examples, settings that contradict each other,
        a labels file or manifest that does not fit.
    """
    source = source._replace(train=source.train._replace(rows=rows_of(source.train)))
    if manifest_path is not None:
        return _replay(source, manifest_path, needs_metadata=metadata_kind != "none")
    choose("metadata", metadata_kind, ("none", "clean", "noisy"))
    choose("label noise", noise_kind, label_noise.KINDS)
    check(
        0 <= validation_fraction < 1,
        f"Validation fraction {validation_fraction:g} is outside [0, 1).",
    )
    fingerprint = manifest.fingerprint(source)
    if labels_path is not None:
        source = labels_file.replace(source, labels_path, check_labels=check_labels)
    check(
        noise_kind == "none" or source.true_labels is None,
        f"Noise {noise_kind!r} cannot be put on labels that already differ from the true ones "
        "(a labels file's, a label key's): choose one of the two.",
    )
    validation_kind = _validation_kind(source, validation_fraction, validation_clean)
    check(
        noise_kind == "none" or source.train.votes is None,
        f"Noise {noise_kind!r} cannot be put on the labels of several annotators: choose one.",
    )
    pool = Pool(source, seed)
    with splits.on_cpu():
        metadata, validation = _deal(
            pool,
            subset,
            (metadata_kind, metadata_per_class),
            (imbalance_kind, imbalance_factor),
            (noise_kind, noise_rate, noise_map, noise_matrix),
            (validation_kind, validation_fraction),
        )
    record = Manifest(
        source=source.name,
        fingerprint=fingerprint,
        class_names=source.class_names,
        seed=seed,
        noise_kind=noise_kind,
        noise_rate=float(noise_rate),
        imbalance_kind=imbalance_kind,
        imbalance_factor=float(imbalance_factor),
        truth_known=source.true_labels is not None or noise_kind != "none",
        validation_kind=validation_kind,
        train=pool.rows(pool.free),
        metadata=None if metadata is None else pool.rows(metadata),
        validation=None if validation is None else pool.rows(validation),
        feature_names=source.feature_names,
    )
    return _assemble(source, record, [*source.notes, *pool.notes])


def _deal(
    pool: Pool,
    subset: int | None,
    metadata: tuple,
    imbalance: tuple,
    noise: tuple,
    validation: tuple,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Takes steps 2 to 7 of `prepare`; returns the positions of metadata and validation."""
    (metadata_kind, per_class), (validation_kind, fraction) = metadata, validation
    meta = held_out = None
    if subset is not None:
        pool.keep(subset)
    if metadata_kind == "clean":
        meta = pool.metadata(per_class, clean=True)
    pool.unbalance(*imbalance)
    if validation_kind == "clean":
        held_out = pool.validation(fraction, clean=True)
    pool.add_noise(*noise)
    if metadata_kind == "noisy":
        meta = pool.metadata(per_class, clean=False)
    if validation_kind == "noisy":
        held_out = pool.validation(fraction, clean=False)
    return meta, held_out


def _validation_kind(source: Source, fraction: float, clean: bool) -> str:
    if fraction == 0:
        return "none"
    if source.validation is not None:
        return "own"
    return "clean" if clean else "noisy"


def _replay(source: Source, path: str | Path, *, needs_metadata: bool) -> Prepared:
    record = manifest.load(path)
    manifest.check_matches(record, source, path)
    check(
        record.metadata is not None or not needs_metadata,
        f"{path} holds no metadata, but this run needs it.",
    )
    note = (
        f"Rows and labels are those of {path}; what is set for labels file, subset, noise, "
        "imbalance, metadata and validation is not used."
    )
    record = record._replace(feature_names=source.feature_names)
    return _assemble(source, record, [*source.notes, note])


def _assemble(source: Source, record: Manifest, notes: list[str]) -> Prepared:
    """Takes the rows of a manifest out of its source."""
    validation = _part(source.train, record.validation)
    if record.validation_kind == "own":
        validation = _whole(source.validation)
    prepared = Prepared(
        train=_part(source.train, record.train),
        metadata=_part(source.train, record.metadata),
        validation=validation,
        test=_whole(source.test),
        class_names=source.class_names,
        manifest=record,
        truth_known=record.truth_known,
        validation_kind=record.validation_kind,
        warnings=[],
    )
    prepared = _encoded(prepared)
    notes += [] if prepared.encoder is None else prepared.encoder.notes
    return prepared._replace(warnings=[*notes, *_warnings(prepared)])


def _encoded(prepared: Prepared) -> Prepared:
    """Turns tables into features, by an encoder that the training part has been fitted to."""
    if not isinstance(prepared.train.x, Table):
        return prepared
    encoder = tabular.fit(prepared.train.x)
    parts = {
        name: part._replace(x=encoder.transform(part.x), table=part.x)
        for name in PARTS
        if (part := getattr(prepared, name)) is not None
    }
    return prepared._replace(encoder=encoder, **parts)


def _part(examples: Examples, rows: Rows | None) -> Part | None:
    if rows is None:
        return None
    x, _, ids, _, groups, votes = take(examples, positions(rows_of(examples), rows.index))
    return Part(x, rows.given_labels, rows.true_labels, rows.index, ids, groups=groups, votes=votes)


def _whole(examples: Examples | None) -> Part | None:
    if examples is None:
        return None
    x, labels, ids, _, groups, votes = examples
    return Part(x, labels, labels, rows_of(examples), ids, groups=groups, votes=votes)


def _warnings(prepared: Prepared) -> list[str]:
    names, lines = prepared.class_names, []
    counts = np.bincount(prepared.train.labels, minlength=len(names))
    check(int((counts > 0).sum()) >= 2, "Fewer than two classes are left in the training data.")
    for number, text in ((0, "no example"), (1, "one example")):
        classes = [names[c] for c in np.flatnonzero(counts == number)]
        if classes:
            lines.append(f"Classes with {text} in the training data: {_some(classes)}.")
    for part in ("validation", "test"):
        if (examples := getattr(prepared, part)) is not None:
            present = np.bincount(examples.labels, minlength=len(names)) > 0
            absent = [names[c] for c in np.flatnonzero(~present)]
            if absent:
                lines.append(f"Classes without an example in {part}: {_some(absent)}.")
    if prepared.validation_kind == "own":
        lines.append("Validation: the source's own split, with the labels it comes with.")
    return lines


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
