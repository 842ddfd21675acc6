r"""Right or wrong as a hidden variable: a mixture of two kinds of examples, fitted by EM.

With z = 1 where the given label g of an example is wrong, the log-odds of z are

    log rho_g / (1 - rho_g)                      how often labels of class g are wrong
    + (m_1 - m_0) / s^2 * (e - (m_0 + m_1) / 2)  evidence e: normal in both kinds, of one spread
    + sum_a b_a log W[a, g] / R[a, g]            which classes a are named in the label's place

The common spread keeps the odds monotone in e. W and R, the classes named in place of wrong and of
right labels, tell noise, which goes certain ways, from classes that are merely alike. rho, W and R
are drawn towards what is common to the classes, so that a class of few examples is judged as the
others are, and not flagged wholesale; rho may be held to one number for all classes, so that one
which is learned badly is not either. Fitting begins at the evidence's own zero and is held by
anchors: a few pseudo-examples with what it would be had every label been right, or wrong. Data
without a wrong label, or without a right one, therefore stay in one piece.

Symbols: N examples, K classes, A alternatives.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrobust.audit.evidence import Evidence

ANCHORED = 0.02  # pseudo-examples of each kind, as a share of the examples
PRIOR = 20.0  # examples by which what is common outweighs a class's own
NO_GAIN = 0.01  # nats per example
GREAT_GAIN = 0.05  # above which most labels may be wrong though the network learned them all
RESAMPLES, RESAMPLED = 20, 4000  # of the bootstrap, and examples in each at most
SAMPLE = 20_000  # examples to fit to; 100 a class if that is more
MOST_CLASSES = 2000  # for tables [K, K]
STEPS, SETTLE = 100, 6  # of EM: at most; before the named classes count


class Mixture(NamedTuple):
    """Fitted parameters; see the module.

    Attributes:
      rate: float [K], rho.
      wrong, right: m_1 and m_0; variance: s^2.
      named: float [K, K], W, `[named, given]`; ratio: log W / R; None where nothing is named.
      gain: how much better, in nats an example, two kinds explain the evidence than one.
    """

    rate: np.ndarray
    wrong: float
    right: float
    variance: float
    named: np.ndarray | None
    ratio: np.ndarray | None
    gain: float

    @property
    def distance(self) -> float:
        """How far the two kinds stand apart, in standard deviations."""
        return float((self.wrong - self.right) / np.sqrt(self.variance))


def fit(
    evidence: Evidence,
    labels: np.ndarray,
    k: int,
    *,
    start: np.ndarray | None = None,
    steps: int = STEPS,
    common: bool = False,
) -> Mixture:
    """Fits the mixture.

    Args:
      start: [N], where to begin, instead of at the evidence's own zero.
      common: whether rho is one number for all classes.
    """
    z = np.where(evidence.value > 0, 0.9, 0.1) if start is None else start
    for step in range(steps):
        mixture = _maximise(z, evidence, labels, k, tables=step >= SETTLE or start is not None)
        if common:
            mixture = mixture._replace(rate=np.full(k, np.clip(z.mean(), 1e-6, 1 - 1e-6)))
        before, z = z, probability(log_odds(mixture, evidence, labels))
        if step > SETTLE and np.abs(z - before).max() < 1e-4:
            break
    return mixture._replace(gain=_gain(mixture, evidence, labels))


def sample(n: int, k: int, seed: int) -> np.ndarray:
    """Returns the rows to fit to: all, or a random choice of them."""
    most = max(SAMPLE, 100 * k)
    return (
        np.arange(n)
        if n <= most
        else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    )


def _maximise(z, evidence: Evidence, labels, k: int, *, tables: bool) -> Mixture:
    x, known = evidence.value, np.isfinite(evidence.value)
    (a0, v0), (a1, v1) = evidence.right, evidence.wrong
    extra = max(ANCHORED * len(x), 1.0)
    x1, z1 = (x, z) if known.all() else (x[known], z[known])
    n1 = z1.sum()
    n0 = len(z1) - n1
    m1 = (z1 @ x1 + extra * a1) / (n1 + extra)
    m0 = ((1 - z1) @ x1 + extra * a0) / (n0 + extra)
    total = z1 @ (x1 - m1) ** 2 + (1 - z1) @ (x1 - m0) ** 2
    total += extra * (v1 + (a1 - m1) ** 2 + v0 + (a0 - m0) ** 2)
    variance = total / (len(x1) + 2 * extra) + 1e-9
    mean = z.mean()
    rate = (np.bincount(labels, z, k) + PRIOR * mean) / (np.bincount(labels, minlength=k) + PRIOR)
    rate = np.clip(rate, 1e-6, 1 - 1e-6)
    named = ratio = None
    if evidence.classes is not None and k <= MOST_CLASSES:
        named, among_right = _tables(z, evidence, labels, k)
        if tables:
            ratio = np.log(named / among_right)
    return Mixture(rate, m1, m0, variance, named, ratio, 0.0)


def _tables(z, evidence: Evidence, labels, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns W and R: shares of the classes named for each given class, [named, given]."""
    assert evidence.classes is not None and evidence.belief is not None
    place = (evidence.classes.astype(np.int64) * k + labels[:, None]).ravel()
    belief = evidence.belief.astype(np.float64)
    w = np.bincount(place, (belief * z[:, None]).ravel(), k * k).reshape(k, k)
    both = np.bincount(place, belief.ravel(), k * k).reshape(k, k)
    common = (both.sum(1, keepdims=True) + 1) * (1 - np.eye(k))
    common = _drawn(both, common / common.sum(0))
    return _drawn(w, common), _drawn(both - w, common)


def _drawn(counts: np.ndarray, towards: np.ndarray) -> np.ndarray:
    return (counts + PRIOR * towards + 1e-9) / (counts.sum(0) + PRIOR + 1e-9)


def log_odds(mixture: Mixture, evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Returns float64 [N], the log-odds that each label is wrong."""
    m = mixture
    value = (evidence.value - (m.wrong + m.right) / 2) * ((m.wrong - m.right) / m.variance)
    value = np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)
    if m.ratio is not None:
        ratio = m.ratio[evidence.classes, labels[:, None]]
        value += np.einsum("na,na->n", evidence.belief, ratio)
    return value + (np.log(m.rate) - np.log1p(-m.rate))[labels]


def _gain(m: Mixture, evidence: Evidence, labels: np.ndarray) -> float:
    """Compares with one kind that differs from class to class: classes that are learned late are
    no wrong labels."""
    known = np.isfinite(evidence.value)
    x, labels = evidence.value[known], labels[known]
    if len(x) == 0 or x.var() == 0:
        return 0.0
    k = len(m.rate)
    count = np.bincount(labels, minlength=k)
    mean = (np.bincount(labels, x, k) + PRIOR * x.mean()) / (count + PRIOR)
    one = -0.5 * np.log(np.mean((x - mean[labels]) ** 2) + 1e-12) - 0.5
    rate = m.rate[labels]
    wrong = np.log(rate) - (x - m.wrong) ** 2 / (2 * m.variance)
    right = np.log1p(-rate) - (x - m.right) ** 2 / (2 * m.variance)
    two = np.logaddexp(wrong, right).mean() - 0.5 * np.log(m.variance)
    return max(float(two - one), 0.0)


def probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))


def choose(candidates: list[Evidence], labels: np.ndarray, k: int, seed: int) -> int:
    """Returns which candidate to take: that whose two-component fit gains most over a single
    component; if none gains, the best-separated one, preferring earlier candidates.

    An earlier candidate than the last is better only once wrong labels are being learned: when more
    given labels are named than are right. One in which most labels look wrong, but few in the end,
    was too early: the network had learned nothing yet.
    """
    rows = sample(len(labels), k, seed)
    fits = [fit(found.take(rows), labels[rows], k) for found in candidates]
    rates = [f.rate[labels[rows]].mean() for f in fits]
    begun = [i for i, f in enumerate(fits) if f.gain > GREAT_GAIN or not rates[i] > 0.5 > rates[-1]]
    gains = [f.gain if f.gain > NO_GAIN else 0.0 for f in fits]
    apart = [f.distance * 0.9**i for i, f in enumerate(fits)]
    best, last = max(begun, key=lambda i: (gains[i], apart[i])), len(fits) - 1
    odds = odds_of(candidates[best], labels, k, seed)
    known = candidates[-1].value[np.isfinite(candidates[-1].value)]
    learned = (known < 0).mean() if len(known) else 1.0
    return last if best < last and learned + probability(odds).mean() < 1 else best


def odds_of(evidence: Evidence, labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Returns the log-odds [N] that each label is wrong, with one rate for all classes: with a rate
    for each, classes that are learned badly pass for mislabeled ones."""
    rows = sample(len(labels), k, seed)
    return log_odds(fit(evidence.take(rows), labels[rows], k, common=True), evidence, labels)


def interval(
    evidence: Evidence, odds: np.ndarray, labels: np.ndarray, k: int, seed: int
) -> tuple[float, float]:
    """Returns a 95 % interval of the rate: bootstrap over the examples, fitted anew, and the
    uncertainty of each label. Errors of the model itself are not in it."""
    rng, n = np.random.default_rng(seed), len(labels)
    size, rates = min(n, RESAMPLED), []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, n, size)
        found, start = evidence.take(rows), probability(odds[rows])
        fitted = fit(found, labels[rows], k, start=start, steps=3, common=True)
        rates.append(probability(log_odds(fitted, found, labels[rows])).mean())
    p = probability(odds)
    variance = np.var(rates, ddof=1) * size / n + (p * (1 - p)).sum() / n**2
    low, high = p.mean() + 1.96 * np.sqrt(variance) * np.array([-1, 1])
    return float(max(low, 0)), float(min(high, 1))
