"""Evaluation of a network on the parts of an experiment's data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxrobust.runs.experiment import Experiment
from jaxrobust.training import metrics


class Evaluated(NamedTuple):
    """Logits float [N, K] of a part of the data, on the host; `metrics.classification` of them."""

    logits: np.ndarray
    numbers: dict[str, Any]


def evaluate(
    experiment: Experiment,
    params: Any,
    batch_stats: Any,
    parts: tuple[str, ...] = ("validation", "test"),
) -> dict[str, Evaluated]:
    """Evaluates a network on those of `parts` that an experiment has; the result is by part."""
    data, e = experiment.data, experiment.config.eval
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    found = {}
    for name in parts:
        part = getattr(data, name)
        if part is not None:
            logits = np.asarray(experiment.forward(params, batch_stats, part.x))
            numbers = metrics.classification(
                logits,
                part.labels,
                counts,
                many_above=e.many_above,
                few_below=e.few_below,
                bins=e.bins,
            )
            found[name] = Evaluated(logits, numbers)
    return found
