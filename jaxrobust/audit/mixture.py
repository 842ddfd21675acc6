r"""Right or wrong as a hidden variable: a mixture of two kinds of examples, fitted by EM.

With z = 1 where the given label g is wrong, the log-odds of z are

    log rho_g / (1 - rho_g)                  how often labels of class g are wrong
    + (e - (m_0 + m_1) / 2)' S^-1 (m_1 - m_0)   evidence e, normal in both kinds, same spread S
    + sum_a b_a log W[a, g] / C[a, g]          which classes a are named in the label's place

(linear discriminant analysis with unknown labels). The common spread takes account of sources that
say the same thing and keeps the odds monotone in each. W and C, the classes named for wrong and
for right labels, tell noise, which goes certain ways, from classes that are merely alike. rho, W
and C are drawn towards their means over the classes, so that a class of few examples is judged
like the others, not by its own few.

Symbols: N examples, K classes, S columns of evidence, A alternatives.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrobust.audit.evidence import Evidence, otsu

PRIOR = 20.0  # examples that each class's own rates are outweighed by
SAMPLE = 20_000  # examples that the mixture is fitted to, at least
MOST_CLASSES = 2000  # for tables [K, K]


class Mixture(NamedTuple):
    """Fitted parameters; see the module.

    Attributes:
      rate: float [K], rho.
      middle, slope: float [S], of the discriminant.
      fill: float [S], stands for missing evidence.
      ratio: float32 [K, K], log W / C, `[alternative, given]`; or None without alternatives.
      wrong: float [K, K], W; likewise.
    """

    rate: np.ndarray
    middle: np.ndarray
    slope: np.ndarray
    fill: np.ndarray
    ratio: np.ndarray | None
    wrong: np.ndarray | None


def fit(evidence: Evidence, labels: np.ndarray, k: int, seed: int = 0) -> Mixture:
    """Fits the mixture to a random sample of the examples."""
    n = len(labels)
    most = max(SAMPLE, 100 * k)
    rows = slice(None)
    if n > most:
        rows = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    columns, classes, belief = (None if a is None else a[rows] for a in evidence)
    labels = labels[rows]
    fill = np.nanmedian(columns, axis=0) if len(columns) else np.zeros(columns.shape[1])
    columns = np.where(np.isfinite(columns), columns, fill)
    alternatives = None if classes is None or k > MOST_CLASSES else (classes, belief)
    z = _start(columns)
    for _ in range(60):
        mixture = _maximise(z, columns, alternatives, labels, k, fill)
        before, z = z, probability(log_odds(mixture, Evidence(columns, classes, belief), labels))
        if np.abs(z - before).max() < 1e-4:
            break
    return mixture


def _start(columns: np.ndarray) -> np.ndarray:
    _, cut = otsu(columns[:, 0])
    return np.where(columns[:, 0] > cut, 0.9, 0.1)


def _maximise(z, columns, alternatives, labels, k, fill) -> Mixture:
    count = np.bincount(labels, minlength=k)
    wrong = np.bincount(labels, z, minlength=k)
    rate = (wrong + PRIOR * z.mean()) / (count + PRIOR)
    n1, n0 = z.sum() + 1e-9, (1 - z).sum() + 1e-9
    m1, m0 = z @ columns / n1, (1 - z) @ columns / n0
    from1, from0 = columns - m1, columns - m0
    spread = (from1.T @ (from1 * z[:, None]) + from0.T @ (from0 * (1 - z)[:, None])) / len(z)
    spread += np.diag(1e-3 * columns.var(0) + 1e-12)
    slope = np.linalg.solve(spread, m1 - m0)
    ratio = w = None
    if alternatives is not None:
        w, c = (_table(part, *alternatives, labels, k) for part in (z, 1 - z))
        ratio = np.log(w / c).astype(np.float32)
    return Mixture(rate, (m0 + m1) / 2, slope, fill, ratio, w)


def _table(z, classes, belief, labels, k) -> np.ndarray:
    """Returns float [K, K], the share of each class among what is named for each given class."""
    place = classes.astype(np.int64) * k + labels[:, None]
    table = np.bincount(place.ravel(), (belief * z[:, None]).ravel(), k * k).reshape(k, k)
    overall = (table.sum(1, keepdims=True) + 1) * (1 - np.eye(k))
    overall /= overall.sum(0)
    table = table + PRIOR * overall + 1e-6
    return table / table.sum(0)


def log_odds(mixture: Mixture, evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Returns float64 [N], the log-odds that each label is wrong."""
    columns = np.where(np.isfinite(evidence.columns), evidence.columns, mixture.fill)
    value = (columns - mixture.middle) @ mixture.slope
    if mixture.ratio is not None:
        ratio = mixture.ratio[evidence.classes, labels[:, None]]
        value += np.einsum("na,na->n", evidence.belief, ratio)
    return value + (np.log(mixture.rate) - np.log1p(-mixture.rate))[labels]


def probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
