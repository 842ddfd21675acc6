"""The examples of a finished run, found again in a data set that may have changed since.

By row while the data are what was trained on (`manifest.fingerprint`); by name (paths, ids) where
they are not; and not at all where there are no names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.data.examples import Source, positions, rows_of
from jaxrobust.data.manifest import Manifest, Rows
from jaxrobust.errors import check


class Shown(NamedTuple):
    """Examples to show: `x[i]` is the i-th; and what to say of them."""

    x: Any
    note: str


class _Named:
    """The examples of these names, wherever in a source they are now."""

    def __init__(self, source: Source, names: Sequence[str]):
        self._found: dict[str, tuple[Any, int]] = {}
        for split in (source.train, source.test, source.validation):
            if split is not None:
                for i, name in enumerate(split.ids or ()):
                    self._found.setdefault(name, (split.x, i))
        self._names = names
        self.shape = (len(names), *source.train.x.shape[1:])
        self.gone = [name for name in names if name not in self._found]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> np.ndarray:
        if self._names[i] not in self._found:
            raise FileNotFoundError(self._names[i])
        x, place = self._found[self._names[i]]
        return np.asarray(x[place])


def by_name(source: Source, names: Sequence[str] | None) -> Shown | str:
    """Returns a run's training examples out of a source that has changed; or why there are none."""
    changed = "The data have changed since the run"
    if names is None or source.train.ids is None:
        return f"{changed}: no examples are shown."
    x = _Named(source, list(map(str, names)))
    if not x.gone:
        return Shown(x, f"{changed}; examples are shown as they are now.")
    first = ", ".join(x.gone[:5]) + (", …" if len(x.gone) > 5 else "")
    return Shown(x, f"{changed}: {len(x.gone)} of {len(names)} files have gone: {first}.")


class Given(NamedTuple):
    """The labels that a run was given, as a source has their examples now.

    Attributes:
      labels: int32 [R], of the source's training split; an example that the run did not have
        keeps its label, as does one whose label was changed by hand since.
      places: by part of the run (`train`, `metadata`, `validation`), int64 [N], where in it the
        part's examples are; -1: not to be changed.
      note: what has changed, or an empty text.
    """

    labels: np.ndarray
    places: dict[str, np.ndarray]
    note: str


def by_row(source: Source, record: Manifest) -> Given:
    """Returns the labels given, of a source that is what was trained on."""
    labels, places = source.train.labels.copy(), {}
    for name, part in _parts(record).items():
        places[name] = positions(rows_of(source.train), part.index)
        labels[places[name]] = part.given_labels
    return Given(labels, places, "")


def _parts(record: Manifest) -> dict[str, Rows]:
    """Returns the parts of a run that were taken from the training split of its source."""
    names = ("train", "metadata", *(("validation",) if record.validation_kind != "own" else ()))
    return {name: part for name in names if (part := getattr(record, name)) is not None}


def given_by_name(source: Source, record: Manifest, names: dict[str, np.ndarray]) -> Given:
    """Returns the labels given, of a source that has changed.

    Args:
      names: of the examples of each part of the run: `train`, `metadata`, `validation`.

    Raises:
      UserError: there are no names to go by, or other classes.
    """
    parts = _parts(record)
    check(
        source.train.ids is not None and set(parts) <= set(names),
        "The data have changed since the run, and there are no names to find its examples by: "
        "corrected labels cannot be written. Train again.",
    )
    check(
        source.class_names == record.class_names,
        f"The classes have changed since the run, from {', '.join(record.class_names[:5])}, … to "
        f"{', '.join(source.class_names[:5])}, …: corrected labels cannot be written. Train again.",
    )
    labels, places, known, by_hand = source.train.labels.copy(), {}, 0, 0
    for part, rows in parts.items():
        place = places[part] = find_places(source.train.ids, names[part].tolist())
        here = place >= 0
        known += int(here.sum())
        if record.truth_known:
            labels[place[here]] = rows.given_labels[here]
        else:  # What was given were the source's own labels.
            place[here & (labels[place] != rows.given_labels)] = -1
            by_hand += int((here & (place < 0)).sum())
    gone = sum(len(names[part]) for part in parts) - known
    note = (
        f"The data have changed since the run: of its examples {gone} are not among those to train "
        f"on now; {len(labels) - known} are new to it and keep their label"
    )
    note += f"; {by_hand} with another label than then keep that one." if by_hand else "."
    return Given(labels, places, note)


def find_places(keys: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Returns int64, where among `keys` each of those wanted is; -1 where it is not."""
    place = {key: i for i, key in enumerate(keys)}
    return np.array([place.get(key, -1) for key in wanted], np.int64)
