r"""Noise model of predictions: recalibrated class posteriors and a noise matrix, fitted by EM.

A prediction p [N, K] of the *given* label g comes from a true label t that nobody has seen:

    P(g | x) = sum_t q_t(x) T[t, g],    q(x) = softmax(beta log max(p, floor) + b)

T is the noise matrix; beta (a number) and b [K] recalibrate the prediction towards the true label.
A class that is learned badly is soft in q, a class that is mislabeled is noisy in T.

Symbols: N examples, K classes, z = log max(p, floor), r[n, t] = P(t | x_n, g_n).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FLOOR = 1e-3  # of probabilities: below it differences say nothing
BIAS_PRIOR = 5.0  # pseudo-examples that shrink b to 0
PSEUDO = 1.0  # pseudo-examples that shrink a row of T
CONFIDENT = 0.3  # fraction of each class's predictions that the first T is read from
HELD_ROUNDS, FREE_ROUNDS = 10, 20  # of EM, with T held and free
DIRECT_CLASSES = 30  # up to here the exact Newton step for b
SCALES = (0.1, 8.0)  # of beta
TINY = 1e-30


class Fit(NamedTuple):
    """Parameters of the model: T [K, K] (rows sum to one), beta, b [K]."""

    matrix: np.ndarray
    scale: float
    bias: np.ndarray


def floor(k: int) -> float:
    """Returns the floor of probabilities of k classes."""
    return min(FLOOR, 0.1 / k)


def log_predictions(p: np.ndarray, inverse: np.ndarray | None = None) -> np.ndarray:
    """Returns z [N, K] of predictions p [N, K] of the given label, or of what they say of the true
    one, max(p T^-1, 0), where the inverse of a noise matrix [K, K] is given."""
    if inverse is not None:
        p = np.maximum(p @ inverse.astype(p.dtype), 0)
        p = p / np.maximum(p.sum(1, keepdims=True), 1e-9)
    return np.log(np.maximum(p, floor(p.shape[1])))


def posterior(fit: Fit, z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns r [N, K] and the log-likelihood of each given label [N]."""
    r = _softmax(fit.scale * z + fit.bias.astype(z.dtype))
    r *= fit.matrix.T.astype(z.dtype)[labels]
    total = np.maximum(r.sum(1), TINY)
    r /= total[:, None]
    return r, np.log(total)


def _softmax(a: np.ndarray) -> np.ndarray:
    a = a - a.max(1, keepdims=True)
    np.exp(a, out=a)
    a /= a.sum(1, keepdims=True)
    return a


def confident_matrix(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns T [K, K] as read from the most confident `CONFIDENT` of each class's predictions: the
    noisiest explanation of the data, from which EM is started."""
    n, k = p.shape
    best = p.argmax(1)
    confidence = p[np.arange(n), best]
    counts = np.zeros((k, k))
    order = np.lexsort((-confidence, best))
    start = np.searchsorted(best[order], np.arange(k + 1))
    for c in range(k):
        rows = order[start[c] : start[c + 1]]
        rows = rows[: max(int(np.ceil(CONFIDENT * len(rows))), min(len(rows), 5))]
        counts[c] = np.bincount(labels[rows], minlength=k)
    return _shrunk(counts, np.bincount(labels, minlength=k))


def confident_joint(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns counts [true, given] of confident learning (arXiv 1911.00068, equation 1): an example
    counts for the most probable of the classes whose probability reaches the mean probability of
    the examples given that class (predicted, where none is given it); scaled to the given classes'
    sizes."""
    n, k = p.shape
    size = np.bincount(labels, minlength=k)
    own = np.bincount(labels, p[np.arange(n), labels], k)
    named = p.argmax(1)
    predicted = np.bincount(named, p[np.arange(n), named], k) / np.maximum(
        np.bincount(named, minlength=k), 1
    )
    threshold = np.where(size > 0, own / np.maximum(size, 1), np.maximum(predicted, 1 / k))
    above = np.where(p >= threshold - 1e-6, p, -1.0)
    best = above.argmax(1)
    counted = above[np.arange(n), best] >= 0
    joint = np.bincount(best[counted].astype(np.int64) * k + labels[counted], minlength=k * k)
    joint = joint.reshape(k, k).astype(np.float64)
    joint[np.arange(k), np.arange(k)] = np.maximum(joint.diagonal(), size > 0)
    return joint * (size / np.maximum(joint.sum(0), 1e-12))


def stochastic(joint: np.ndarray) -> np.ndarray:
    """Returns T of counts [true, given]; a class without examples keeps its label."""
    total = joint.sum(1, keepdims=True)
    return np.where(total > 0, joint / np.maximum(total, 1e-12), np.eye(len(joint)))


def _shrunk(counts: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns T of soft counts [true, given]: its rate per class shrunk to the pooled rate, its
    directions to the given classes' frequencies, each by `PSEUDO` examples."""
    k = len(counts)
    off = counts * (1 - np.eye(k))
    total, wrong = counts.sum(1), off.sum(1)
    pooled = wrong.sum() / max(total.sum(), 1e-12)
    rate = (wrong + PSEUDO * pooled) / (total + PSEUDO)
    common = np.tile(size + 1e-3, (k, 1)) * (1 - np.eye(k))
    common /= common.sum(1, keepdims=True)
    ways = (off + PSEUDO * common) / (wrong + PSEUDO)[:, None]
    return ways * rate[:, None] + np.diag(1 - rate)


def recalibrated(fit: Fit, z: np.ndarray, q: np.ndarray, r: np.ndarray) -> Fit:
    """Returns the fit after a Newton step of beta and b on the cross-entropy of q to r [N, K]; of
    many classes only the diagonal of the Hessian counts."""
    n, k = z.shape
    excess = q - r
    total = q.sum(0, dtype=np.float64)
    qz = q * z
    mean = qz.sum(1)
    spread = float(np.einsum("nk,nk->", qz, z) - np.einsum("n,n->", mean, mean)) + 1e-3 * n
    pull = excess.sum(0, dtype=np.float64) + BIAS_PRIOR * fit.bias
    slope = float(np.einsum("nk,nk->", excess, z))
    if k > DIRECT_CLASSES:
        step = np.append(pull / (total + BIAS_PRIOR), slope / spread)
    else:
        hessian = np.empty((k + 1, k + 1))
        hessian[:k, :k] = np.diag(total + BIAS_PRIOR + 1e-6) - q.T @ q
        hessian[:k, k] = hessian[k, :k] = qz.sum(0) - mean @ q
        hessian[k, k] = spread
        step = np.linalg.solve(hessian, np.append(pull, slope))
    step *= min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
    bias = fit.bias - step[:k]
    return Fit(fit.matrix, float(np.clip(fit.scale - step[k], *SCALES)), bias - bias.mean())


def em(
    z: np.ndarray,
    labels: np.ndarray,
    matrix: np.ndarray,
    *,
    held: int = HELD_ROUNDS,
    free: int = FREE_ROUNDS,
    start: Fit | None = None,
) -> Fit:
    """Fits the model by EM from T, which is held for `held` rounds and free for `free`.

    Args:
      z: float [N, K]; labels: int [N]; matrix: [K, K], the first T.
      start: where beta and b begin; default 2 and 0.
    """
    k = z.shape[1]
    size = np.bincount(labels, minlength=k)
    fit = Fit(matrix, 2.0, np.zeros(k)) if start is None else start._replace(matrix=matrix)
    for i in range(held + free):
        q = _softmax(fit.scale * z + fit.bias.astype(z.dtype))
        r = q * fit.matrix.T.astype(z.dtype)[labels]
        r /= np.maximum(r.sum(1, keepdims=True), TINY)
        if i >= held:
            fit = fit._replace(matrix=_shrunk(soft_counts(r, labels), size))
        fit = recalibrated(fit, z, q, r)
    return fit


def soft_counts(r: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Returns counts [true, given] of responsibilities r [N, K], perhaps weighted [N]."""
    import scipy.sparse  # Not needed before there are predictions.

    n, k = r.shape
    weights = np.ones(n, r.dtype) if weights is None else weights
    place = scipy.sparse.csr_array((weights, labels, np.arange(n + 1)), (n, k))
    return np.asarray(place.T @ r, np.float64).T


def wrong_odds(r: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the log-odds [N] that each given label is wrong, of responsibilities r [N, K], which
    need not sum to one."""
    own = (np.arange(len(r)), labels)
    right = r[own].copy()
    r[own] = 0  # sum - right would lose the digits of small probabilities
    wrong = r.sum(1)
    r[own] = right
    wrong, right = wrong.astype(float), right.astype(float)
    least = 1e-9 * (wrong + right) + TINY
    return np.log(np.maximum(wrong, least)) - np.log(np.maximum(right, least))


def apply(fit: Fit, z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log-odds [N] that each label is wrong, and soft counts [true, given]: `posterior`
    without normalizing q, which cancels."""
    e = z * z.dtype.type(fit.scale)
    e += (fit.bias - fit.bias.max()).astype(z.dtype)
    np.exp(e, out=e)
    e *= fit.matrix.T.astype(z.dtype)[labels]
    odds = wrong_odds(e, labels)
    return odds, soft_counts(e, labels, 1 / np.maximum(e.sum(1), TINY))


def likelihood(fit: Fit, z: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean log-likelihood of the given labels, in nats per example."""
    return float(posterior(fit, z, labels)[1].mean())
