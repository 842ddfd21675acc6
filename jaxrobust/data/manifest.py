"""The manifest of a run's data, `noise.npz`: which rows, which labels given, which true.

It records what was requested and what was realized; another run can replay it exactly.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrobust import files
from jaxrobust.data.examples import Source, View, in_memory, rows_of
from jaxrobust.data.table import Table
from jaxrobust.errors import UserError, check, present


class Rows(NamedTuple):
    """Some rows of a source (`Examples.rows`) with the labels given and true, int [M] each."""

    index: np.ndarray
    given_labels: np.ndarray
    true_labels: np.ndarray


class Manifest(NamedTuple):
    """What was done to a source.

    Attributes:
      source: its name.
      fingerprint: of its data and labels, see `fingerprint`.
      class_names: K names.
      seed: that everything was drawn from.
      noise_kind, noise_rate, imbalance_kind, imbalance_factor: as requested.
      truth_known: whether given labels were replaced, so that true ones are known; if not, they
        are only copies of the given.
      validation_kind: `noisy` or `clean` hold-out, `own` split of the source, or `none`.
      train, metadata, validation: the rows of each part; metadata and validation may be None.
      feature_names: D names of a table's columns, in order; () if they have none.
    """

    source: str
    fingerprint: str
    class_names: tuple[str, ...]
    seed: int
    noise_kind: str
    noise_rate: float
    imbalance_kind: str
    imbalance_factor: float
    truth_known: bool
    validation_kind: str
    train: Rows
    metadata: Rows | None
    validation: Rows | None
    feature_names: tuple[str, ...] = ()


_PARTS = ("train", "metadata", "validation")
_NAMES = ("class_names", "feature_names")
_PREFIX = {"train": "", "metadata": "metadata_", "validation": "validation_"}


def realised(manifest: Manifest) -> dict[str, Any]:
    """Returns rates and counts of the training part, as realized.

    Args:
      manifest: see `Manifest`.

    Returns:
      realised_rate: fraction of wrong labels; realised_rate_per_class [K], by true class (NaN for
      a class without examples); class_counts [K] by true class; given_class_counts [K];
      transition_counts [K, K], `[true, given]`; realised_factor: smallest / largest class.
    """
    _, given, true = manifest.train
    k = len(manifest.class_names)
    counts = np.bincount(true.astype(np.int64) * k + given, minlength=k * k).reshape(k, k)
    by_true = counts.sum(1)
    with np.errstate(invalid="ignore"):
        per_class = 1 - np.diag(counts) / by_true
    return {
        "realised_rate": float(1 - np.trace(counts) / max(len(true), 1)),
        "realised_rate_per_class": per_class,
        "class_counts": by_true,
        "given_class_counts": counts.sum(0),
        "transition_counts": counts,
        "realised_factor": float(by_true.min() / by_true.max()),
    }


def fingerprint(source: Source, sample: int = 64, max_bytes: int = 1 << 30) -> str:
    """Returns a sha256 over the training split: all labels and ids, and the data.

    Of data that is not in memory, or larger than `max_bytes`, a sample enters: the encoded bytes
    of image files, so that the decoder's version does not matter.

    Args:
      source: the data set; only its training split enters.
      sample: examples that are read of data that are not in memory.
      max_bytes: of an array that enters whole.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    x, labels, ids, *_ = source.train
    digest.update(repr((x.shape[1:], len(labels), source.class_names)).encode())
    for array in (labels, rows_of(source.train), source.true_labels):
        if array is not None:
            digest.update(np.ascontiguousarray(array, np.int64))
    digest.update("\n".join(ids or ()).encode())
    if isinstance(x, Table):
        for chunk in x.chunks():
            digest.update(chunk)
    elif in_memory(x) and x.nbytes <= max_bytes:
        digest.update(np.ascontiguousarray(x))
    else:
        for i in np.unique(np.linspace(0, len(labels) - 1, sample).astype(np.int64)):
            digest.update(_encoded(x, int(i)))
    return digest.hexdigest()


def _encoded(x: Any, i: int) -> bytes:
    if isinstance(x, View):
        return _encoded(x.x, int(x.rows[i]))
    return x.raw(i) if hasattr(x, "raw") else np.asarray(x[i]).tobytes()


def save(manifest: Manifest, path: str | Path) -> None:
    """Writes `noise.npz`; an existing file is replaced in one go.

    Keys: `index, given_labels, true_labels` of the training part, the same with `metadata_` and
    `validation_` where there are such parts, the fields of `Manifest`, and those of `realised`.

    Args:
      manifest: what is written.
      path: of the file.
    """
    arrays: dict[str, Any] = {}
    for part in _PARTS:
        rows = getattr(manifest, part)
        if rows is not None:
            arrays |= {_PREFIX[part] + k: v for k, v in rows._asdict().items()}
    arrays |= {k: v for k, v in manifest._asdict().items() if k not in _PARTS}
    arrays |= {k: np.array(getattr(manifest, k), str) for k in _NAMES}
    with files.whole(path, "wb") as file:
        np.savez_compressed(file, **arrays, **realised(manifest))


def load(path: str | Path) -> Manifest:
    """Returns the manifest that `save` wrote to `path`.

    Raises:
      UserError: no such file, or not a manifest.
    """
    check(Path(path).is_file(), f"No manifest {str(path)!r}.")
    arrays = files.read_npz(path, "is not a manifest (a run's noise.npz)")
    try:
        parts = {
            part: Rows(*(arrays[_PREFIX[part] + field] for field in Rows._fields))
            if _PREFIX[part] + "index" in arrays
            else None
            for part in _PARTS
        }
        fields = {
            name: arrays[name].item() for name in Manifest._fields if name not in (*_PARTS, *_NAMES)
        }
        arrays.setdefault("feature_names", np.array((), str))  # older runs have none
        fields |= {name: tuple(map(str, arrays[name])) for name in _NAMES}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not a manifest (a run's noise.npz): {error}") from None
    message = f"{path} is not a manifest: it has no array 'index'."
    train = present(parts.pop("train"), message)
    return Manifest(**fields, train=train, **parts)


def check_matches(manifest: Manifest, source: Source, path: str | Path) -> None:
    """Checks that a manifest was made from this very source.

    Args:
      manifest: as loaded.
      source: the data set as it is now.
      path: of the manifest's file, for the message.

    Raises:
      UserError: other classes, or another fingerprint.
    """
    check(
        manifest.class_names == source.class_names,
        f"{path} was made for the classes {', '.join(manifest.class_names[:5])}, ... of "
        f"{manifest.source}; {source.name} has {', '.join(source.class_names[:5])}, ...",
    )
    check(
        manifest.fingerprint == fingerprint(source),
        f"{path} was made from other data than {source.name} as it is now (other labels, images, "
        "rows or test share).",
    )
