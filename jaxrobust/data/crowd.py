"""Consensus of several annotators' labels: majority vote and Dawid–Skene.

Symbols: N examples, A annotators, K classes; votes are int [N, A], -1 where there is none.
"""

from __future__ import annotations

import numpy as np

CONSENSUS = ("dawid_skene", "majority")
STEPS = 50
PSEUDO = 1.0  # votes that draw an annotator's confusion matrix to the pooled one


def majority(votes: np.ndarray, k: int) -> np.ndarray:
    """Returns [N, K], the fraction of an example's votes for each class; uniform without votes."""
    n, a = votes.shape
    counts = np.zeros((n, k))
    for j in range(a):
        there = np.flatnonzero(votes[:, j] >= 0)
        counts[there, votes[there, j]] += 1
    total = counts.sum(1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), 1 / k)


def dawid_skene(votes: np.ndarray, k: int) -> np.ndarray:
    """Returns [N, K], the posterior of the true class, by EM over the confusion matrix of each
    annotator (Dawid and Skene, 1979, equations 2.3 to 2.5), shrunk to the pooled matrix."""
    n, a = votes.shape
    r = majority(votes, k)
    for _ in range(STEPS):
        prior = (r.sum(0) + 1e-3) / (n + 1e-3 * k)
        tables = np.zeros((a, k, k))
        for j in range(a):
            there = votes[:, j] >= 0
            np.add.at(tables[j].T, votes[there, j], r[there])
        pooled = tables.sum(0) + 0.5 * np.eye(k) + 0.05
        pooled /= pooled.sum(1, keepdims=True)
        tables += PSEUDO * k * pooled
        logs = np.log(tables / tables.sum(2, keepdims=True))
        odds = np.tile(np.log(prior), (n, 1))
        for j in range(a):
            there = np.flatnonzero(votes[:, j] >= 0)
            odds[there] += logs[j][:, votes[there, j]].T
        before, r = r, np.exp(odds - odds.max(1, keepdims=True))
        r /= r.sum(1, keepdims=True)
        if np.abs(r - before).max() < 1e-5:
            break
    return r


def consensus(votes: np.ndarray, k: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels int32 [N] on which annotators agree most, and how far, [N, K].

    Args:
      votes: int [N, A], -1 where an annotator gave none.
      k: number of classes.
      method: of `CONSENSUS`.
    """
    agreed = {"majority": majority, "dawid_skene": dawid_skene}[method](votes, k)
    return agreed.argmax(1).astype(np.int32), agreed
