"""Out-of-sample predictions of the training examples, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxrobust.data import splits
from jaxrobust.data.examples import View
from jaxrobust.data.prepare import Part
from jaxrobust.errors import check
from jaxrobust.training.experiment import Experiment, assemble
from jaxrobust.training.memory import fit


def assign(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns int [N], the fold of each example; every class is spread evenly over the folds."""
    with splits.on_cpu():
        rank = splits.random_rank(labels, splits.key_for(seed, splits.FOLDS))
    sizes = np.bincount(labels)
    start = np.cumsum(sizes) - sizes  # Classes go on where the one before ended: equal folds.
    return (rank + start[labels]) % folds


def out_of_sample(
    experiment: Experiment, folds: int, say: Callable[[str], None] = lambda line: None
) -> np.ndarray:
    """Returns float32 [N, K], for each training example the prediction of a network that has not
    seen it: one trained in the same way, from the same seed, on the other folds.

    Raises:
      UserError: more folds than a class can be spread over, or none.
    """
    config, data = experiment.config, experiment.data
    labels = data.train.labels
    check(2 <= folds <= len(labels), f"audit.folds={folds}: use 2 to {len(labels)}.")
    fold = assign(labels, folds, config.seed)
    found = np.zeros((len(labels), len(data.class_names)), np.float32)
    for k in range(folds):
        say(f"Fold {k + 1} of {folds}.")
        rest, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        part = assemble(config, data._replace(train=_take(data.train, rest)))
        state, _ = fit(part)
        logits = part.forward(state.params, state.batch_stats, _rows(data.train.x, held))
        found[held] = np.asarray(jax.nn.softmax(logits))
    return found


def _rows(x, rows: np.ndarray):
    return x[rows] if isinstance(x, (jax.Array, np.ndarray)) else View(x, rows)


def _take(part: Part, rows: np.ndarray) -> Part:
    ids = None if part.ids is None else [part.ids[i] for i in rows]
    x = _rows(part.x, rows)
    x = np.asarray(x) if isinstance(x, jax.Array) else x
    return Part(x, part.labels[rows], part.true_labels[rows], part.index[rows], ids)
