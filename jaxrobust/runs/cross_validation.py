"""Out-of-sample predictions of the training examples, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrobust.data import splits
from jaxrobust.data.examples import View
from jaxrobust.data.manifest import Rows
from jaxrobust.data.prepare import Part, Prepared
from jaxrobust.errors import UserError, check
from jaxrobust.runs.experiment import Experiment, assemble, data_seed
from jaxrobust.runs.fit import fit


def assign(
    labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Returns int [N], the fold of each example; see `splits.fold_of`."""
    with splits.on_cpu():
        return splits.fold_of(labels, folds, splits.key_for(seed, splits.FOLDS), groups)


def check_folds(experiment: Experiment, folds: int) -> None:
    """Checks that every part of a cross-validation can be trained on.

    Raises:
      UserError: more folds than examples, or too few examples outside one of them: for a
        batch, or for the metadata of a class.
    """
    data = experiment.data
    labels = data.train.labels
    check(2 <= folds <= len(labels), f"audit.folds={folds}: use 2 to {len(labels)}.")
    fold = assign(labels, folds, data_seed(experiment.config), data.train.groups)
    one = np.asarray(data.train.x[0])[None]  # What is checked depends on the labels alone.
    if data.metadata is not None:
        data = data._replace(metadata=data.metadata._replace(x=one))
    for k in range(folds):
        part = _only(data, np.flatnonzero(fold != k), one)
        try:
            assemble(experiment.config, part, experiment.network)
        except UserError as error:
            raise UserError(f"audit.folds={folds}, without fold {k + 1}: {error}") from None


def out_of_sample(
    experiment: Experiment,
    folds: int,
    say: Callable[[str], None] = lambda line: None,
    pause: Callable = lambda *_: None,
) -> np.ndarray:
    """Returns float32 [N, K], for each training example the prediction of a network that has not
    seen it: one trained in the same way, from the same seed, on the other folds.

    Args:
      experiment: the run; its training examples are predicted.
      folds: how many networks are trained.
      say: called with a line per fold.
      pause: see `fit`.

    Raises:
      UserError: see `check_folds`; before the first fold is trained.
    """
    check_folds(experiment, folds)
    config, data = experiment.config, experiment.data
    labels = data.train.labels
    fold = assign(labels, folds, data_seed(config), data.train.groups)
    found = np.zeros((len(labels), len(data.class_names)), np.float32)
    for k in range(folds):
        say(f"Fold {k + 1} of {folds}.")
        rest, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        x = _rows(data.train.x, rest)
        x = np.asarray(x) if isinstance(x, jax.Array) else x
        part = assemble(config, _only(data, rest, x))
        state, _ = fit(part, pause)
        logits = part.forward(state.params, state.network_state, _rows(data.train.x, held))
        found[held] = np.asarray(jax.nn.softmax(logits))
    return found


def _rows(x: Any, rows: np.ndarray) -> Any:
    return x[rows] if isinstance(x, (jax.Array, np.ndarray)) else View(x, rows)


def _only(data: Prepared, rows: np.ndarray, x: Any) -> Prepared:
    """Returns the data with `rows` of the training part alone, `x` their examples, and nothing to
    measure on."""
    train, record = data.train, data.manifest
    ids = None if train.ids is None else [train.ids[i] for i in rows]
    images = None if train.images is None else View(train.images, rows)
    part = Part(
        x, train.labels[rows], train.true_labels[rows], train.index[rows], ids, images=images
    )
    record = record._replace(train=Rows(*(a[rows] for a in record.train)), validation=None)
    return data._replace(train=part, validation=None, test=None, manifest=record)
