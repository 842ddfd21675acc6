"""Evidence from features: labels of nearest neighbors, and duplicates with different labels.

Features are embeddings, a network's penultimate layer, or scaled columns: examples that are alike
must be near to each other in them. Symbols: N examples, D features, K classes, k neighbors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrobust.errors import UserError, check

NEIGHBORS = 10
REFERENCES = 50_000  # examples among which neighbors are sought, at most
NEAR = 0.05  # near duplicates: distance, as a fraction of the median distance to the nearest


class Neighbors(NamedTuple):
    """Nearest neighbors of examples.

    Attributes:
      index: int64 [N, k], rows of the neighbors, nearest first; never the example itself.
      distance: float32 [N, k], Euclidean distances of the features scaled to unit length.
      references: how many examples they were sought among; N if all.
    """

    index: np.ndarray
    distance: np.ndarray
    references: int


class Duplicates(NamedTuple):
    """Pairs of examples that are the same, or nearly.

    Attributes:
      pairs: int64 [M, 2], rows of the two; the nearest first.
      exact: bool [M], whether their features are equal to the last bit.
      conflict: bool [M], whether their labels differ.
    """

    pairs: np.ndarray
    exact: np.ndarray
    conflict: np.ndarray


def nearest(
    features: np.ndarray,
    *,
    neighbors: int = NEIGHBORS,
    among: np.ndarray | None = None,
    seed: int = 0,
    references: int = REFERENCES,
) -> Neighbors:
    """Finds the nearest neighbors of every example, exactly, among at most `references` examples.

    Args:
      features: float [N, D], finite.
      neighbors: k; fewer where there are fewer examples.
      among: float [M, D], other examples to seek them in; None: the examples themselves.
      seed: of the sample of references where there are more.
      references: at most so many examples are searched, a random sample where there are more.

    Raises:
      UserError: not [N, D], values that are not finite, fewer than two examples.
    """
    from sklearn.neighbors import NearestNeighbors

    x = unit(features)
    own = among is None
    y = x if own else unit(among)
    check(len(y) >= (2 if own else 1), "Neighbors need at least two examples.")
    rows = np.arange(len(y))
    if len(y) > references:
        rows = np.sort(np.random.default_rng(seed).choice(len(y), references, replace=False))
    k = min(neighbors, len(rows) - own)
    model = NearestNeighbors(n_neighbors=k + own, algorithm="brute").fit(y[rows])
    distance, index = model.kneighbors(x)
    index = rows[index]
    if own:  # Leave the example itself out; where it is not among them, the farthest.
        itself = index == np.arange(len(x))[:, None]
        itself[~itself.any(1), -1] = True
        keep = ~itself
        index, distance = (a[keep].reshape(len(x), k) for a in (index, distance))
    return Neighbors(index, distance.astype(np.float32), len(rows))


def unit(features: np.ndarray) -> np.ndarray:
    """Returns float32 [N, D] features, rows scaled to unit length; rows of zeros stay.

    Raises:
      UserError: not [N, D], or values that are not finite.
    """
    try:
        x = np.asarray(features, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"features must be numbers [N, D]: {error}.") from None
    check(x.ndim == 2, f"features of shape {list(x.shape)}; expected [N, D], a row per example.")
    finite = np.isfinite(x).all(1)
    check(
        bool(finite.all()),
        "features hold NaN or infinity"
        + (f", first in row {int(np.argmin(finite))}." if not finite.all() else "."),
    )
    largest = np.abs(x).max(1, keepdims=True, initial=0)
    x = (x / np.where(largest > 0, largest, 1)).astype(np.float32)  # Squares must not overflow.
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def label_probabilities(found: Neighbors, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Predicts labels from those of the neighbors, never from the example's own.

    A neighbor at distance d counts exp(−d²/s²), s² the mean squared distance of the example's
    neighbors: local scaling, so that dense and sparse regions are treated alike.

    Args:
      found: see `nearest`.
      labels: int [N], given labels of the examples in which neighbors were sought.
      num_classes: K.

    Returns:
      float32 [N, K], rows sum to one; a pseudo-neighbor is spread over all classes.
    """
    square = found.distance.astype(np.float64) ** 2
    weight = np.exp(-square / np.maximum(square.mean(1, keepdims=True), 1e-12))
    p = np.full((len(square), num_classes), 1 / num_classes)
    rows = np.arange(len(square))[:, None]
    np.add.at(p, (rows, np.asarray(labels)[found.index]), weight)
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def duplicates(
    features: np.ndarray, labels: np.ndarray, found: Neighbors | None = None, *, near: float = NEAR
) -> Duplicates:
    """Finds pairs of examples that are the same: one of two different labels must be wrong.

    Args:
      features: float [N, D].
      labels: int [N], given labels.
      found: their neighbors, where these are known.
      near: pairs nearer than this fraction of the median distance to the nearest neighbor are near
        duplicates; 0: exact ones alone.
    """
    x = np.asarray(features, np.float32)
    exact = _exact_pairs(x)
    pairs, same = [exact], [np.ones(len(exact), bool)]
    if near > 0 and len(x) > 1:
        found = found or nearest(x)
        limit = near * float(np.median(found.distance[:, 0]))
        a, j = np.nonzero(found.distance <= limit)
        b = found.index[a, j]
        close = np.unique(np.sort(np.stack([a, b], 1), axis=1), axis=0)
        equal = (x[close[:, 0]] == x[close[:, 1]]).all(1) if len(close) else np.zeros(0, bool)
        pairs.append(close[~equal])
        same.append(np.zeros(int((~equal).sum()), bool))
    both, is_exact = np.concatenate(pairs), np.concatenate(same)
    given = np.asarray(labels)
    return Duplicates(both, is_exact, given[both[:, 0]] != given[both[:, 1]])


def _exact_pairs(x: np.ndarray) -> np.ndarray:
    """Returns int64 [M, 2]: each example whose features came before, with the first such one."""
    rows = np.ascontiguousarray(x + 0.0)  # −0 is 0
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first = first[inverse]
    again = np.flatnonzero(first != np.arange(len(x)))
    return np.stack([first[again], again], 1).astype(np.int64)


def across(train: np.ndarray, test: np.ndarray, *, near: float = NEAR) -> np.ndarray:
    """Finds test examples that are, nearly, training examples too.

    Args:
      train, test: float [N, D], [M, D].
      near: as in `duplicates`, of the training examples' distances.

    Returns:
      int64 [L, 2], rows of the test example and of the training example.
    """
    found = nearest(test, neighbors=1, among=train)
    own = nearest(train, neighbors=1) if len(train) > 1 else found
    limit = near * float(np.median(own.distance[:, 0]))
    rows = np.flatnonzero(found.distance[:, 0] <= max(limit, 1e-6))
    return np.stack([rows, found.index[rows, 0]], 1)
