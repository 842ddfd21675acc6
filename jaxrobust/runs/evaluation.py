"""Evaluation of a network on the parts of an experiment's data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxrobust.errors import check
from jaxrobust.runs.experiment import Experiment
from jaxrobust.training import metrics
from jaxrobust.training.metric_table import METRICS


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
    data, found = experiment.data, {}
    for name in parts:
        part = getattr(data, name)
        if part is not None:
            logits = np.asarray(experiment.forward(params, batch_stats, part.x))
            found[name] = Evaluated(logits, _numbers(experiment, logits, part.labels))
    return found


def check_selection(experiment: Experiment) -> None:
    """Raises `UserError` if `eval.select` has no value on the validation data."""
    data, name = experiment.data, experiment.config.eval.select
    if data.validation is None:
        return
    labels = data.validation.labels
    numbers = _numbers(experiment, np.zeros((len(labels), len(data.class_names))), labels)
    check(
        numbers[name] is not None,
        f"eval.select={name} has no value on these validation data "
        f"({METRICS[name].meaning}): select by another metric.",
    )


def _numbers(experiment: Experiment, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    data, e = experiment.data, experiment.config.eval
    return metrics.classification(
        metrics.Predictions(
            logits=logits,
            labels=labels,
            train_counts=np.bincount(data.train.labels, minlength=len(data.class_names)),
            many_above=e.many_above,
            few_below=e.few_below,
            bins=e.bins,
        )
    )
