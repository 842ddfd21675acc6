"""Detection of models whose predictions must not condemn a class: collapsed, not yet trained.

A label is flagged because a model names another class. A model that never names the class of the
label, or that agrees with the labels no better than chance, would flag most of that class without
knowing anything of it. All is found from predictions and given labels.

Symbols: N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WHOLESALE, FEW = 0.9, 10  # fraction of a class, of so many examples at least
MOST = 0.5  # fraction of a class that is not flagged on the word of a collapsed model
ERRORS = 2.0  # standard errors by which a model must be better than chance
BELOW = 0.5  # times chance: a model that agrees less is not ignorant, its labels are wrong
POWER = 0.5  # of the way from chance to certainty: error above which nothing is said
INFORMED = 2.0  # standard errors by which predictions that rank examples well must do so
RANKED = 4000  # examples that are ranked
NAMED = 5  # classes in a note
_CHUNK = 1 << 20  # entries of a block


class Collapse(NamedTuple):
    """What is wrong with a model.

    Attributes:
      codes: of checks, see `checks.CHECKS`, with what was measured, in words.
      silent: bool [K], classes that have examples and are never predicted.
      unnamed: bool [K], classes that are nowhere the most probable one.
      ignorant: whether the model knows nothing of any class, so that nothing is known of the
        number of wrong labels either.
    """

    codes: dict[str, str]
    silent: np.ndarray
    unnamed: np.ndarray
    ignorant: bool = False


def find(
    predictions: Sequence[np.ndarray],
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    seen: bool = False,
) -> Collapse:
    """Returns what predictions show of the model that made them.

    Args:
      predictions: arrays [N, K] of the same model, each a reason to think that it knows a class;
        rows of NaN are left out.
      labels: int [N], given.
      class_names: K names.
      seen: whether the model was trained on these very examples.
    """
    k = len(class_names)
    counts = np.bincount(labels, minlength=k)
    named, plainly, agreement, balanced = np.zeros(k, bool), np.zeros(k, bool), 0.0, 0.0
    for p in predictions:
        plain, corrected, own = _decisions(p, labels, k)
        if len(own) == 0:
            continue
        named[plain] = named[corrected] = plainly[plain] = True
        agreement = max(agreement, float((plain == own).mean()))
        balanced = max(balanced, _recall(corrected, own, k), _recall(plain, own, k))
    codes: dict[str, str] = {}
    there = counts > 0
    n, most, chance = len(labels), counts.max() / len(labels), 1 / there.sum()
    error = ERRORS * _error(counts)
    poor = BELOW * chance < balanced <= chance + error and error < POWER * (1 - chance)
    if poor and not seen:
        poor = max(ranking(p, labels) for p in predictions) < INFORMED
    if poor and agreement < most - ERRORS * np.sqrt(most * (1 - most) / n):
        codes["below_majority"] = (
            f"It agrees with {100 * agreement:.0f} % of the labels; the most frequent class alone "
            f"has {100 * most:.0f} %."
        )
    elif poor:
        codes["not_learned"] = (
            f"Mean agreement over the classes: {100 * balanced:.0f} %"
            f"{' on its own training data' if seen else ''}, by chance "
            f"{100 * chance:.0f} %."
        )
    silent = there & ~named
    if silent.any():
        codes["never_predicted"] = f"Classes: {_listed(class_names, silent)}."
    return Collapse(codes, silent, there & ~plainly, poor)


def ranking(p: np.ndarray, labels: np.ndarray) -> float:
    """Returns by how many standard errors predictions rank the examples of a class above others.

    A model may name one class only and yet know a lot: where classes are unequal and many labels
    are wrong, the most probable label is everywhere the same, but not equally probable.
    Mann-Whitney statistics of every class's probability, combined as if all but one were
    independent; about standard normal for a model that knows nothing of examples which it was not
    trained on.

    Args:
      p: [N, K], out-of-sample predictions; rows of NaN are left out.
      labels: int [N], given.
    """
    from scipy.stats import rankdata  # half a second, where it is needed

    rows = np.flatnonzero(np.isfinite(p[:, 0]))
    if len(rows) > RANKED:
        rows = np.random.default_rng(0).choice(rows, RANKED, replace=False)
    own = labels[rows]
    counts = np.bincount(own, minlength=p.shape[1])
    found = np.flatnonzero((counts > 0) & (counts < len(own)))
    total = 0.0
    for c in found:
        inside, outside = counts[c], len(own) - counts[c]
        ranks = rankdata(p[rows, c])
        excess = ranks[own == c].sum() - inside * (len(own) + 1) / 2
        total += excess / np.sqrt(inside * outside * (len(own) + 1) / 12)
    return float(total * np.sqrt(max(len(found) - 1, 0)) / max(len(found), 1))


def _decisions(p: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Returns the most probable classes, those that a division by the class frequencies makes most
    probable, and the labels, of all rows that are known."""
    known = np.flatnonzero(np.isfinite(p[:, 0]))
    own = labels[known]
    share = np.bincount(own, minlength=k) / max(len(own), 1)
    share = np.where(share > 0, share, 1)
    plain, corrected = np.empty(len(own), np.int64), np.empty(len(own), np.int64)
    rows = max(1, _CHUNK // k)
    for start in range(0, len(own), rows):
        block = p[known[start : start + rows]]
        plain[start : start + rows] = block.argmax(1)
        corrected[start : start + rows] = (block / share.astype(np.float32)).argmax(1)
    return plain, corrected, own


def _recall(predicted: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Returns the mean over the classes of the fraction of their labels that is predicted."""
    counts = np.bincount(labels, minlength=k)
    hits = np.bincount(labels[predicted == labels], minlength=k)
    return float(np.mean(hits[counts > 0] / counts[counts > 0]))


def _error(counts: np.ndarray) -> float:
    """Returns the standard error of the mean recall of guesses."""
    sizes = counts[counts > 0].astype(float)
    p = 1 / len(sizes)
    return float(np.sqrt((p * (1 - p) / sizes).sum()) / len(sizes))


def withheld(
    flagged: np.ndarray, labels: np.ndarray, rank: np.ndarray, found: Collapse
) -> np.ndarray:
    """Returns bool [N], flags that are withheld.

    Of a class that is never predicted, and of which most is flagged, all; likewise where nearly
    all of a class is flagged that is nowhere the most probable one. Where the model knows nothing
    of any class, those beyond half of a class, the least suspect first.

    Args:
      flagged: bool [N].
      labels: int [N], given.
      rank: int [N], 1 for the most suspect label.
      found: what is wrong with the model.
    """
    k = len(found.silent)
    counts, flags = np.bincount(labels, minlength=k), np.bincount(labels, flagged, k)
    most = flags > MOST * counts
    nearly_all = found.unnamed & (counts >= FEW) & (flags > WHOLESALE * counts)
    kept_back = flagged & (nearly_all | (found.silent & most))[labels]
    for c in np.flatnonzero(most) if found.ignorant else ():
        rows = np.flatnonzero(flagged & (labels == c))
        kept_back[rows[np.argsort(rank[rows])[int(MOST * counts[c]) :]]] = True
    return kept_back


def _listed(class_names: Sequence[str], chosen: np.ndarray) -> str:
    names = [class_names[c] for c in np.flatnonzero(chosen).tolist()]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
