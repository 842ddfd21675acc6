"""Out-of-sample predictions of a scikit-learn classifier, by stratified cross-validation."""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np

from jaxrobust.errors import UserError, check


def out_of_sample(
    model: Any,
    x: Any,
    labels: np.ndarray,
    k: int,
    *,
    folds: int = 5,
    groups: Any = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns predictions float32 [N, K] of clones that have not been fitted to the example.

    Args:
      model: a classifier with `fit` and `predict_proba`; cloned, never changed.
      x: N examples: array [N, ...], DataFrame, sparse matrix or list.
      labels: int [N], classes 0 ... K-1.
      k: number of classes; one that a fold has not seen gets probability 0.
      folds: number of folds, stratified by class; fewer if the largest class is smaller.
      groups: N groups (patients, sources), never parted by a fold; or None.
      seed: of the folds.

    Raises:
      UserError: model or x is missing or does not fit, or there are too few examples or groups.
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    check(x is not None, "model needs the examples: pass x=X as well.")
    check(
        hasattr(model, "predict_proba"),
        f"{type(model).__name__} has no predict_proba: use a classifier that has.",
    )
    n = x.shape[0] if hasattr(x, "shape") else len(x)
    check(n == len(labels), f"x has {n} rows for {len(labels)} labels.")
    check(folds >= 2, f"folds={folds}: use 2 or more.")
    folds = min(folds, int(np.bincount(labels).max()))
    check(folds >= 2, "Every class has one example only: no fold can be left out.")
    if groups is not None:
        groups = np.asarray(groups)
        check(groups.shape == (n,), f"groups has shape {list(groups.shape)} for {n} labels.")
        count = len(np.unique(groups))
        check(count >= folds, f"There are {count} groups for {folds} folds: pass folds={count}.")
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
        folds, shuffle=True, random_state=seed
    )
    p = np.zeros((n, k), np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        splits = list(splitter.split(np.zeros(n), labels, groups))
    for train, test in splits:
        check(len(np.unique(labels[train])) > 1, "A fold has one class only: use fewer folds.")
        try:
            fitted = cast(Any, clone(model)).fit(_rows(x, train), labels[train])
        except TypeError as error:
            raise UserError(f"model cannot be cloned: {error}".splitlines()[0]) from error
        p[np.ix_(test, np.asarray(fitted.classes_).astype(int))] = fitted.predict_proba(
            _rows(x, test)
        )
    return p / np.maximum(p.sum(1, keepdims=True), 1e-12)


def _rows(x: Any, rows: np.ndarray) -> Any:
    from sklearn.utils import _safe_indexing

    return _safe_indexing(x, rows)
