"""Checks with codes: what may be wrong with an audit's evidence, its cause and its remedy.

Each has a section in docs/codes.md, which says how it is measured.
"""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """A check: what was found and why, and what to do about it, a sentence each."""

    cause: str
    remedy: str


CHECKS: dict[str, Check] = {
    "no_issues": Check("No label is found to be wrong.", ""),
    "no_predictions": Check("No predictions were given: no other label is suggested.", ""),
    "weak_model": Check(
        "The predictions contradict most of the given labels: the model is weak, or most labels "
        "are wrong.",
        "Use a better model, or trust the ranking only.",
    ),
    "column_order": Check(
        "Nearly every label seems wrong, but most would agree with another order of the columns.",
        "Check that column k of the predictions is class k.",
    ),
    "overconfident": Check(
        "The predictions are far more confident than they are right: the model has memorized its "
        "training data or is not calibrated.",
        "Calibrate it, regularize it more or train it for fewer epochs.",
    ),
    "collapsed": Check(
        "The prediction, or the features, are the same for every example: they say nothing about "
        "the labels.",
        "Train the model before its predictions are audited.",
    ),
    "not_learned": Check(
        "The model has not begun to learn: it agrees with the labels no better than chance.",
        "Look at the inputs and the column of labels; train a network longer or with another "
        "learning rate. Until then no class is flagged wholesale on its word.",
    ),
    "below_majority": Check(
        "The model is worse than always naming the most frequent class.",
        "Check that labels and examples are in the same order; train a network longer or with "
        "another learning rate. Until then no class is flagged wholesale on its word.",
    ),
    "never_predicted": Check(
        "Some classes are never predicted, so that every label of theirs would look wrong: such a "
        "class is not flagged wholesale.",
        "Review these classes by hand, give them more examples, or train a network with "
        "--config.data.balance=class.",
    ),
    "withheld": Check(
        "Flags are withheld, because the model knows nothing about their class.",
        "Review these classes by hand.",
    ),
    "underfitted": Check(
        "Labels that the network was not trained on look worse than its own, but it has learned "
        "neither well: it has not been trained enough to tell which labels are wrong.",
        "Train it longer, with another learning rate or with a larger network, or use predictions "
        "out of sample: --mode=audit --config.audit.folds=5.",
    ),
    "two_fits_differ": Check(
        "Wrong labels and classes that overlap explain the predictions about equally well: the "
        "number of wrong labels is uncertain, the interval holds both.",
        "Look at some of the flagged examples, or add evidence such as training dynamics.",
    ),
    "few_examples": Check(
        "A class has fewer than 10 examples: what is said of its labels is uncertain.",
        "Review its examples by hand.",
    ),
    "similar_names": Check(
        "Some class names differ in case or white space only.",
        "Give them one name if they are one class.",
    ),
    "long_tail": Check(
        "The largest class has more than 20 times the examples of the smallest: rare classes are "
        "learned late, and their labels look wrong rather than rare.",
        "Train with --config.data.balance=class or a loss for long tails, and look at the flags of "
        "rare classes first.",
    ),
    "duplicates_in_conflict": Check(
        "Some examples are the same, or nearly, and have different labels: one of each pair is "
        "certainly wrong.",
        "See `duplicates`; decide which label is right, and keep one of the two.",
    ),
    "test_in_train": Check(
        "Some test examples are, nearly, training examples too: accuracy on them is no test.",
        "Leave them out of the test data or of the training data.",
    ),
    "sampled_neighbors": Check(
        "There are more than 50,000 examples: neighbors were sought in a random sample of so many.",
        "Near duplicates may be missed; exact ones are not.",
    ),
    "memorizing": Check(
        "The network finds fewer wrong labels the longer it is trained: it comes to agree with "
        "them, and those that it learned before they were seen do not show.",
        "Use out-of-sample predictions, train for fewer epochs, or take a robust loss.",
    ),
    "memorized": Check(
        "The network names nearly every given label from the beginning of its training, as one "
        "does that has memorized them: wrong labels would not show.",
        "Use out-of-sample predictions.",
    ),
}


COLLAPSED = ("collapsed", "not_learned", "below_majority", "never_predicted", "memorized")
"""Codes of models that must not be relied on."""


def line(code: str, detail: str = "") -> str:
    """Returns a check as one line: cause, what was measured, remedy, code."""
    check = CHECKS[code]
    return " ".join(filter(None, (check.cause, detail, check.remedy, f"[{code}]")))
