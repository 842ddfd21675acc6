"""Lines of the dry run: what a command would work on, and how long it would take."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from jaxrobust.data.prepare import Prepared
from jaxrobust.process import duration
from jaxrobust.runs import image_features

MOST_CLASSES = 8
_JUDGING = 0.004  # seconds per example of cross-validated models of features, two CPU cores


def data(config: ConfigDict, prepared: Prepared) -> str:
    """Returns a line about the data set and its parts."""
    parts = [(n, getattr(prepared, n)) for n in ("train", "metadata", "validation", "test")]
    sizes = ", ".join(f"{name} {len(part.labels)}" for name, part in parts if part is not None)
    return f"Data: {config.data.path or config.data.name}; examples: {sizes}."


def classes(prepared: Prepared) -> str:
    """Returns a line with the largest classes of the training data, by given label."""
    names = prepared.class_names
    counts = np.bincount(prepared.train.labels, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{names[c]} {counts[c]}" for c in order[:MOST_CLASSES])
    rest = len(names) - MOST_CLASSES
    return f"Classes: {shown}{f' and {rest} more' if rest > 0 else ''}."


def feature_time(which: image_features.Extractor, total: int, shape: tuple[int, ...]) -> str:
    """Returns a line with the time that features of images take, and the whole run with it.

    Args:
      which: what computes them.
      total: number of images.
      shape: of an image.
    """
    if min(shape[:2]) < image_features.SMALL:
        return "Time: seconds; small images are their own features."
    seconds, measured = image_features.seconds_per_image(which)
    how = "measured here before" if measured else "a stored figure, none was measured here yet"
    expected = duration(total * (seconds + _JUDGING) + 20)
    return (
        f"Time: {1000 * seconds:.0f} ms per image for features by {which.network} at "
        f"{which.image_size} pixels ({how}); {expected} expected in all, less where features are "
        "kept from before."
    )
