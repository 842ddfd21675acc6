"""Runs of `method.name=blend`: scikit-learn models instead of a network, in the same workdir.

A path of its own beside `runs.train`, because nothing of the engine has a meaning here (epochs,
steps, checkpoints, devices); what is written is read by the same audit, report and tools: config,
environment, noise.npz, evidence.npz, results.json, label_issues.csv, sample_weights.npz,
report.html, and blend.pkl in place of checkpoints. Every example of the data is judged, test and
validation rows alike, by models that have not seen it. A run that was stopped begins again: it
takes minutes; features of images are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import files
from jaxrobust.audit import models
from jaxrobust.data import manifest, table, tabular
from jaxrobust.data.prepare import Part, Prepared
from jaxrobust.data.readers.unlabelled import load_inputs
from jaxrobust.errors import check
from jaxrobust.runs import audit as auditing
from jaxrobust.runs import image_features, results
from jaxrobust.runs.experiment import load_data
from jaxrobust.runs.safe_pickle import read_pickle, write_pickle

MODEL, FEATURES = "blend.pkl", "features.npz"
_WIDE = models.WIDE

Say = Callable[[str], None]


class Fitted(NamedTuple):
    """What predictions need: the blend, class names, shape of an example, and, of tables, the
    arrays of the encoder (see `tabular.Encoder.to_arrays`)."""

    blend: models.Blend
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    encoder: dict[str, np.ndarray] | None

    @property
    def classes(self) -> np.ndarray:
        """Str [K], names of the classes."""
        return np.array(self.class_names)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Returns float64 [N, K], probabilities of the true class.

        Args:
          x: a DataFrame or array as the run was trained on; or images uint8 [N, H, W, C].
        """
        if self.encoder is None:
            return self.of_inputs(x)
        encoder = tabular.from_arrays(self.encoder)
        read = table.from_array(x, "x", encoder.inputs) if isinstance(x, np.ndarray) else (
            table.from_frame(x, "x"))
        return self.of_inputs(encoder.transform(read))

    def predict(
    workdir: str | Path, inputs: str | Path
) -> tuple[np.ndarray, list[str], tuple[str, ...]]:
    """Returns probabilities [N, K] of new examples, balanced as `Fitted.predict` decides, their
    names and those of the classes. Raises `UserError`."""
    fitted = load(workdir)
    encoder = None if fitted.encoder is None else tabular.from_arrays(fitted.encoder)
    like = fitted.shape if encoder is None else (len(encoder.feature_names),)
    x, names = load_inputs(inputs, like=like, encoder=encoder)
    return fitted.balanced(fitted.of_inputs(x)), names, fitted.class_names


def is_run(workdir: str | Path) -> bool:
    """Returns whether a workdir holds such a run."""
    return (Path(workdir) / MODEL).is_file()


def describe(config: ConfigDict) -> str:
    """Returns the dry run's text: data, classes, models; nothing is trained or written."""
    data = load_data(config)
    first = np.asarray(data.train.x[0])
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    order = np.argsort(-counts, kind="stable")
    classes = ", ".join(f"{data.class_names[c]} {counts[c]}" for c in order[:8])
    more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
    parts = [(name, getattr(data, name)) for name in ("train", "validation", "test")]
    sizes = ", ".join(f"{name} {len(part.labels)}" for name, part in parts if part is not None)
    width = first.size if first.ndim == 1 else image_features.width(first.shape)
    lines = [
        f"Data: {config.data.path or config.data.name}; examples: {sizes}.",
        f"Classes: {classes}{more}.",
        f"An example: {first.dtype}{list(first.shape)}, {width} features.",
        f"Models: {', '.join(models.members(width, len(counts)))}, cross-validated twice.",
        *(f"note: {line}" for line in data.warnings),
        "Nothing was trained or written.",
    ]
    return "\n".join(lines)
