"""Corrected labels of a finished run, written as a labels file for the next one.

Nothing is overwritten that the evidence does not support: a class of which most labels would go,
labels condemned by a model that knows nothing, more labels than there are thought to be wrong. What
a reviewer decided is applied as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.audit import LabelIssues, decisions, export
from jaxrobust.audit.checks import COLLAPSED
from jaxrobust.data import labels_file, manifest
from jaxrobust.data.examples import Examples, Source, positions, rows_of
from jaxrobust.data.manifest import Manifest
from jaxrobust.errors import check
from jaxrobust.runs import rematch
from jaxrobust.runs.audit import Evidence, fingerprint, load, load_record, split_of
from jaxrobust.runs.experiment import load_source
from jaxrobust.runs.workdir import read_config

UNRELIABLE = (*COLLAPSED, "weak_model", "column_order")
MOST = 0.5  # fraction of a class's labels that are replaced without --force
SURE = 0.5  # of the flagged labels that the interval's lower end must speak for
_ADVICE = (
    "Review them in report.html and pass --decisions=FILE, which is applied as it is; "
    "or add --force."
)


class _Place(NamedTuple):
    """Where the issues `rows` are among the examples of the split `name` of a source, whose labels
    are `labels`."""

    name: str
    split: Examples
    rows: np.ndarray
    labels: np.ndarray
    place: np.ndarray


def write_corrected(
    workdir: str | Path,
    issues: LabelIssues,
    path: str | Path,
    settings: Mapping[str, Any] | None = None,
    reviewed: str | Path | None = None,
    force: bool = False,
) -> tuple[int, str]:
    """Writes the labels of a run's data set, those found wrong replaced, as a labels file.

    Args:
      workdir: of a finished run.
      issues: found by its audit, of all judged examples (`Audited.every`) or of those trained on.
      path: of the labels file.
      settings: by full name, instead of the run's own: where the data are now.
      reviewed: a file of decisions saved from the report: exactly these are applied, and nothing
        that is merely flagged.
      force: replaces also what the evidence does not support, see `check_supported`.

    Data that have changed since the run are no obstacle where examples have names: each label goes
    to the example of its name, those that the run did not have keep theirs.

    Returns:
      How many labels were replaced, and what the user should know: what has changed since the run,
      or that the file does not record what it replaces.

    Raises:
      UserError: the data cannot be read, or have changed and their examples have no names; the
        evidence does not support so many replacements.
    """
    workdir = Path(workdir)
    config = read_config(workdir, settings or {})
    record, path = load_record(workdir), Path(path)
    own = source = load_source(config)
    same = manifest.fingerprint(source) == record.fingerprint
    if config.data.labels_file is not None:
        source = labels_file.replace(source, config.data.labels_file, check_labels=False)
    evidence = workdir / "evidence.npz"
    found = load(evidence, fingerprint(workdir)) if evidence.is_file() else {}
    places, note = _places(source, record, found, issues, same)
    decided = None if reviewed is None else decisions.read(reviewed, issues)
    if decided is None and not force:
        check_supported(issues)
    written, changed = [], 0
    for part in places:
        if decided is None:
            labels = export.corrected(issues.take(part.rows), part.labels, part.place)
        else:
            labels = decisions.corrected(decided.take(part.rows), part.labels, part.place)
        changed += int((labels != part.labels).sum())
        written.append(labels)
    replaces = None
    if not record.truth_known:
        replaces = np.concatenate([getattr(own, part.name).labels for part in places])
    ids = [part.split.ids for part in places]
    export.write_labels(
        np.concatenate(written),
        np.concatenate([rows_of(part.split) for part in places]),
        source.num_rows or len(written[0]),
        source.class_names,
        path,
        ids=None if None in ids else [name for names in ids for name in names or ()],
        replaces=replaces,
    )
    if replaces is not None and path.suffix == ".npy":
        note = (
            f"{note} {path} does not record which labels it replaces, so that a run takes the data "
            "set's own for the true ones; a .csv does."
        ).strip()
    return changed, note


def _places(
    source: Source, record: Manifest, found: Evidence, issues: LabelIssues, same: bool
) -> tuple[list[_Place], str]:
    """Returns where the issues are: in the training split, and in others that were judged."""
    split = split_of(found, issues, len(record.train.index))
    outside = {"test": source.test}
    outside |= {"validation": source.validation} if record.validation_kind == "own" else {}
    if same:
        given = rematch.by_row(source, record)
        rows = np.flatnonzero(~np.isin(split, list(outside)))
        place = positions(rows_of(source.train), issues.index[rows])
    else:
        given = rematch.given_by_name(source, record, _names(found))
        inside = [name for name in given.places if name not in outside and name in split]
        rows = np.concatenate([np.flatnonzero(split == name) for name in inside])
        place = np.concatenate([given.places[name] for name in inside])
    places = [_Place("train", source.train, rows, given.labels, place)]
    for name, part in outside.items():
        rows = np.flatnonzero(split == name)
        if part is None or len(rows) == 0 or not labels_file.apart(part, source.train):
            continue
        if same:
            place = positions(rows_of(part), issues.index[rows])
        elif part.ids is not None and issues.paths is not None:
            place = rematch.find_places(part.ids, [issues.paths[i] for i in rows])
        else:
            continue
        places.append(_Place(name, part, rows, part.labels, place))
    return places, given.note


def _names(found: Evidence) -> dict[str, np.ndarray]:
    """Returns the names of the examples of each part of a run that recorded them."""
    if "judged_paths" in found:
        return {part: found["judged_paths"][found["split"] == part] for part in set(found["split"])}
    names = {"train": "paths", "metadata": "paths_metadata", "validation": "paths_validation"}
    return {part: found[key] for part, key in names.items() if key in found}


def check_supported(issues: LabelIssues) -> None:
    """Checks that the evidence supports replacing all flagged labels.

    Raises:
      UserError: the audit's codes say that its flags are not to be relied on (see `UNRELIABLE`);
        most labels of a class would be replaced; more are flagged than there are thought to be
        wrong; or predictions are the only evidence, which cannot tell wrong labels from classes
        that overlap, and the lower end of the interval speaks for less than half of the flags.
    """
    flagged, names = issues.is_label_issue, issues.class_names
    unreliable = [code for code in issues.codes if code in UNRELIABLE]
    check(
        not unreliable or not flagged.any(),
        f"--write_corrected: {flagged.sum()} labels would be replaced, of whose evidence the audit "
        f"says [{', '.join(unreliable)}]. {_ADVICE}",
    )
    counts = np.bincount(issues.given_label, minlength=len(names))
    gone = np.bincount(issues.given_label, flagged, len(names))
    classes = np.flatnonzero(gone > MOST * counts)
    listed = ", ".join(f"{names[c]} ({int(gone[c])} of {counts[c]})" for c in classes[:5])
    check(
        len(classes) == 0,
        f"--write_corrected would overwrite most labels of {listed}"
        f"{', ...' if len(classes) > 5 else ''}. {_ADVICE}",
    )
    low, high = issues.num_issues_interval
    least = SURE * flagged.sum() if {*issues.scores} == {"prediction"} else 0
    check(
        low >= least and flagged.sum() <= high,
        f"--write_corrected would replace {flagged.sum()} labels, more than the evidence supports: "
        f"{low} to {high} are wrong (95 % interval). {_ADVICE}",
    )
