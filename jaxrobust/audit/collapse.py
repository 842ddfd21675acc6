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

MOST = 0.5  # fraction of a class that is not flagged on the word of a collapsed model
ERRORS = 2.0  # standard errors by which a model must be better than chance
BELOW = 0.5  # times chance: a model that agrees less is not ignorant, its labels are wrong
POWER = 0.5  # of the way from chance to certainty: error above which nothing is said
NAMED = 5  # classes in a note
_CHUNK = 1 << 20  # entries of a block


class Collapse(NamedTuple):
    """What is wrong with a model.

    Attributes:
      codes: of checks, see `checks.CHECKS`, with what was measured, in words.
      mute: bool [K], classes about which the model says nothing.
      ignorant: whether these are all classes, so that nothing is known of the number of wrong
        labels either.
    """

    codes: dict[str, str]
    mute: np.ndarray
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
    named, agreement, balanced = np.zeros(k, bool), 0.0, 0.0
    for p in predictions:
        plain, corrected, own = _decisions(p, labels, k)
        if len(own) == 0:
            continue
        named[plain] = named[corrected] = True
        agreement = max(agreement, float((plain == own).mean()))
        balanced = max(balanced, _recall(corrected, own, k), _recall(plain, own, k))
    codes: dict[str, str] = {}
    there = counts > 0
    n, most, chance = len(labels), counts.max() / len(labels), 1 / there.sum()
    error = ERRORS * _error(counts)
    poor = BELOW * chance < balanced <= chance + error and error < POWER * (1 - chance)
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
    return Collapse(codes, there if poor else silent, poor)


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


def withheld(flagged: np.ndarray, labels: np.ndarray, mute: np.ndarray) -> np.ndarray:
    """Returns bool [N], flags that are withheld: those of mute classes of which most is flagged.

    Args:
      flagged: bool [N].
      labels: int [N], given.
      mute: bool [K], see `Collapse`.
    """
    k = len(mute)
    counts = np.bincount(labels, minlength=k)
    wholesale = mute & (np.bincount(labels, flagged, k) > MOST * counts)
    return flagged & wholesale[labels]


def _listed(class_names: Sequence[str], chosen: np.ndarray) -> str:
    names = [class_names[c] for c in np.flatnonzero(chosen)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
