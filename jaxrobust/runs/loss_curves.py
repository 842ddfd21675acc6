"""Loss curves on disk: what a probe leaves behind, and what comes from other trainings.

An .npz with `curves` [M, T] and `index` int [M], rows of the source; from a probe also
`given_labels` [M] and `fingerprint`, so that curves of other data or labels are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxrobust import files
from jaxrobust.data.examples import positions
from jaxrobust.data.manifest import Manifest
from jaxrobust.errors import check

_WRONG = "does not hold curves [N, T] and index [N]"


def save(path: Path, name: str, values: np.ndarray, manifest: Manifest) -> None:
    """Writes `values` [N, ...], one row a training example, as `name`; whole or not at all."""
    rows = manifest.train
    with files.whole(path, "wb") as file:
        np.savez(
            file,
            **{name: values},
            index=rows.index,
            given_labels=rows.given_labels,
            fingerprint=manifest.fingerprint,
        )


def load(path: str | Path, manifest: Manifest) -> np.ndarray:
    """Returns the curves [N, T] of the training examples of a manifest, in their order.

    Raises:
      UserError: no such file, not curves, not finite, of other data or labels, or some missing.
    """
    path, rows = Path(path), manifest.train
    check(path.is_file(), f"No curves {str(path)!r}.")
    arrays = files.read_npz(path, _WRONG)
    check(arrays.keys() >= {"curves", "index"}, f"{path} {_WRONG}.")
    curves, index = arrays["curves"], arrays["index"]
    right = (
        curves.ndim == 2
        and curves.dtype.kind == "f"
        and index.dtype.kind in "iu"
        and index.shape == curves.shape[:1]
        and 0 not in curves.shape
    )
    check(
        right,
        f"{path}: expected numbers curves [N, T] and integers index [N], not {curves.dtype} "
        f"{list(curves.shape)} and {index.dtype} {list(index.shape)}.",
    )
    check(bool(np.isfinite(curves).all()), f"{path}: some of the curves are not finite.")
    check(
        str(arrays.get("fingerprint", manifest.fingerprint)) == manifest.fingerprint,
        f"{path} was recorded on other data than {manifest.source} as it is now.",
    )
    missing = int((~np.isin(rows.index, index)).sum())
    check(
        missing == 0,
        f"{path} lacks the curves of {missing} of the {len(rows.index)} training examples. "
        "Train on the rows that were probed: same seed and data settings.",
    )
    place = positions(index, rows.index)
    if "given_labels" in arrays:
        other = int((arrays["given_labels"][place] != rows.given_labels).sum())
        check(
            other == 0,
            f"{path} was recorded with other labels for {other} training examples. Use the same "
            "seed and noise, or data.manifest of that run.",
        )
    return curves[place]
