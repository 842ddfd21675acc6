"""Every setting of a run: its default, what it means, which values it takes.

The only place where a default lives. A setting whose default is None takes the default of the
part it belongs to (a loss's own hyper-parameter, a data set's usual augmentation, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from jaxrobust.runs import METHODS


class Setting(NamedTuple):
    """One setting: `default`, `doc`, `kind` (its type) and `rule` (what values it takes)."""

    default: Any
    doc: str
    kind: type
    rule: Rule | None = None


class Rule(NamedTuple):
    """A condition on a value, and how to say it."""

    text: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def one_of(*choices: str) -> Rule:
    return Rule("one of " + ", ".join(choices), lambda v: v in choices, choices)


def between(low: float, high: float, *, closed: str = "[]") -> Rule:
    def holds(v):
        above = v >= low if closed[0] == "[" else v > low
        return above and (v <= high if closed[1] == "]" else v < high)

    return Rule(f"in {closed[0]}{low:g}, {high:g}{closed[1]}", holds)


def at_least(low: float) -> Rule:
    return Rule(f"at least {low:g}", lambda v: v >= low)


def above(low: float) -> Rule:
    return Rule(f"greater than {low:g}", lambda v: v > low)


def increasing(low: float) -> Rule:
    def holds(v):
        if any(isinstance(a, bool) or not isinstance(a, int | float) for a in v):
            return False
        return all(a >= low for a in v) and all(a < b for a, b in pairwise(v))

    return Rule(f"increasing numbers, at least {low:g}", holds)


def assignments() -> Rule:
    def holds(v):
        return all(isinstance(a, str) and "=" in a[1:] for a in v)

    return Rule("of texts 'name=value'", holds)


_NOISE = (
    "none symmetric symmetric_exclusive uniform_by_class_size asymmetric pair_flip instance matrix"
).split()
_NETWORKS = (
    "mlp small_cnn resnet32 resnet18 wrn28_10 resnet50 vgg19_bn inception_resnet_v2"
).split()
_LOSSES = (
    "ce mae rce nce gce sce tce agce nce_rce nce_agce js bi_tempered ce_sr nlnl dal "
    "ldam logit_adjusted balanced_softmax focal"
).split()

_METHODS = (
    "supervised dynamic_loss curvenet meta_weight_net learning_to_reweight"
).split()

SCHEMA: dict[str, Any] = {
    "seed": Setting(0, "fixes initialisation, order, noise, imbalance, augmentation", int,
                    at_least(0)),
    "probe_workdir": Setting(None, "curvenet: the workdir of a run whose probe is used", str),
    "data": {
        "name": Setting("digits", "digits, folder, npz, csv, or the name of a TFDS builder", str),
        "path": Setting(None, "the folder or file of a folder, npz or csv data set", str),
        "data_dir": Setting(None, "where TFDS keeps its prepared data sets", str),
        "label_key": Setting(None, "label column or TFDS feature that is given to training", str),
        "labels_file": Setting(None, "labels (.npy, .csv, noise.npz) that replace the given", str),
        "check_labels": Setting(True, "refuse a labels file that contradicts the labels", bool),
        "manifest": Setting(None, "noise.npz of another run: same rows, same labels", str),
        "subset": Setting(None, "use this many training examples only (stratified)", int,
                          at_least(2)),
        "test_fraction": Setting(None, "held out for the test where the data brings none "
                                 "(default 0.2; of digits 0.3)", float, between(0, 1, closed="()")),
        "num_classes": Setting(None, "keep the first classes only (mini-WebVision: 50)", int,
                               at_least(2)),
        "image_size": Setting(None, "side to which a folder's images are resized", int,
                              at_least(4)),
        "on_unreadable": Setting("error", "what to do about an image that cannot be read", str,
                                 one_of("error", "skip")),
        "residency": Setting("auto", "data on the device, or streamed from the host", str,
                             one_of("auto", "device", "stream")),
        "workers": Setting(2, "processes that read and decode while streaming", int, at_least(0)),
        "noise": {
            "kind": Setting("none", "how labels are made wrong", str, one_of(*_NOISE)),
            "rate": Setting(0.0, "share of labels that are redrawn", float,
                            between(0, 1, closed="[)")),
            "map": Setting(None, "asymmetric noise: 'from:to,from:to', by name or number", str),
            "matrix": Setting(None, "K x K matrix T[true, given] in a .npy or .csv file", str),
        },
        "imbalance": {
            "kind": Setting("none", "profile of the class sizes", str,
                            one_of("none", "exponential", "step")),
            "factor": Setting(1.0, "smallest class / largest class", float,
                              between(0, 1, closed="(]")),
        },
        "metadata": {
            "kind": Setting("none", "clean and balanced, held out first; or from the noisy data",
                            str, one_of("none", "clean", "noisy")),
            "per_class": Setting(10, "examples a class", int, at_least(1)),
        },
        "validation": {
            "fraction": Setting(0.1, "share of the training data held out for selection", float,
                                between(0, 1, closed="[)")),
            "clean": Setting(False, "held out before the noise, with true labels", bool),
        },
    },
    "augment": {
        "kind": Setting(None, "view of a training image (default: by data set)", str,
                        one_of("none", "crop_flip", "strong", "rand_augment", "imagenet")),
        "pad": Setting(4, "pixels of padding before a random crop", int, at_least(0)),
        "pad_mode": Setting("constant", "padding before a random crop", str,
                            one_of("constant", "reflect")),
        "cutout": Setting(16, "side of the square that Cutout removes", int, at_least(0)),
        "flip": Setting(None, "mirror images (default: yes but for digits)", bool),
    },
    "network": {
        "name": Setting("small_cnn", "network", str, one_of(*_NETWORKS)),
        "width": Setting(None, "hidden units of mlp, channels of small_cnn", int, at_least(1)),
        "dtype": Setting("float32", "compute type; parameters stay float32", str,
                         one_of("float32", "bfloat16")),
    },
    "method": {
        "name": Setting("supervised", "how the network is trained", str, one_of(*METHODS)),
        "meta_learning_rate": Setting(3e-3, "of the learned objective's Adam", float, at_least(0)),
        "meta_weight_decay": Setting(0.0, "added to the meta-gradient", float, at_least(0)),
        "meta_batch_size": Setting(None, "metadata a step (default: train.batch_size)", int,
                                   at_least(1)),
        "meta_every": Setting(1, "epochs between meta-steps", int, at_least(1)),
        "look_ahead_steps": Setting(1, "optimiser steps that the meta-gradient looks ahead", int,
                                    at_least(1)),
        "hypergradient": Setting("exact", "how the meta-gradient is computed", str,
                                 one_of("exact", "first_order", "finite_difference")),
        "skip_stages": Setting(0, "first stages of the network left out of the look-ahead (SLMO)",
                               int, at_least(0)),
        "bottom_batch_norm": Setting("eval", "batch norm of the skipped stages", str,
                                     one_of("eval", "batch")),
        "hidden": Setting(64, "width of the learned objective", int, at_least(1)),
        "warmup_epochs": Setting(5, "dynamic_loss: epochs of cross-entropy first", int,
                                 at_least(1)),
        "fit_steps": Setting(2000, "dynamic_loss: steps in which the corrector is fitted", int,
                             at_least(0)),
        "num_ranks": Setting(100, "dynamic_loss: ranks R", int, at_least(1)),
        "corrector": Setting(True, "dynamic_loss: correct labels", bool),
        "margin": Setting(True, "dynamic_loss: add a margin per class", bool),
        "shared_weight": Setting(False, "dynamic_loss: one weight per rank for all classes", bool),
        "candidates": Setting(0.5, "metadata from the training data: share of the smallest class "
                              "drawn", float, between(0, 1, closed="(]")),
        "kept": Setting(0.5, "and of these the share kept", float, between(0, 1, closed="(]")),
        "by_loss": Setting(True, "keep those of low loss, not any", bool),
        "low_loss_metadata": Setting(False, "curvenet, meta_weight_net, learning_to_reweight: "
                                     "metadata from the training data", bool),
        "fine_tune": Setting(True, "dynamic_loss: end an epoch with a pass over metadata", bool),
        "mixup_alpha": Setting(None, "dynamic_loss: mix images and labels, Beta(alpha, alpha)",
                               float, above(0)),
        "base": Setting("loss", "curvenet, meta_weight_net, learning_to_reweight: what is weighted",
                        str, one_of("loss", "dynamic_loss")),
        "freeze_epoch": Setting(None, "epoch from which weights stay (default: of curvenet the "
                                "first milestone; else never)", int, at_least(1)),
        "weight_smoothing": Setting(1.0, "share of the new weight in an example's weight", float,
                                    between(0, 1, closed="(]")),
        "weight_factor": Setting(1.0, "curvenet: weight = factor * sigmoid + bias", float,
                                 above(0)),
        "weight_bias": Setting(0.02, "curvenet: the bias", float, at_least(0)),
        "probe_epochs": Setting(300, "curvenet: epochs of the probe", int, at_least(1)),
        "probe_learning_rate": Setting(None, "curvenet: of the probe (default: the optimizer's)",
                                       float, above(0)),
        "probe_batch_divisor": Setting(8, "curvenet: batches are smaller by this while the "
                                       "probe's learning rate cycles", int, at_least(1)),
        "curves_file": Setting(None, "curvenet: .npz with curves [N, T] and index [N], instead of "
                               "a probe", str),
        "curves_dtype": Setting("float16", "curvenet: type in which curves are kept", str,
                                one_of("float16", "float32")),
        "curve_start": Setting(None, "curvenet: first epoch of a curve that is read (default: "
                               "after 1/60)", int, at_least(0)),
        "curve_end": Setting(None, "curvenet: the epoch after the last (default: less 1/300)", int,
                             at_least(1)),
        "weak_view": Setting("none", "dynamic_loss: view of the look-ahead", str,
                             one_of("none", "crop_flip", "imagenet_eval")),
    },
    "loss": {
        "name": Setting("ce", "loss of logits and labels", str, one_of(*_LOSSES)),
        "q": Setting(None, "gce, agce, nce_agce", float),
        "q_start": Setting(None, "dal: q in the first epoch", float, above(0)),
        "q_end": Setting(None, "dal: q at the end", float, above(0)),
        "hard": Setting(None, "dal: hard instead of soft bootstrapping", bool),
        "alpha": Setting(None, "sce, nce_rce, nce_agce", float, at_least(0)),
        "beta": Setting(None, "sce, nce_rce, nce_agce", float, at_least(0)),
        "a": Setting(None, "agce, nce_agce", float, above(0)),
        "order": Setting(None, "tce", int, at_least(1)),
        "pi": Setting(None, "js", float, between(0, 1, closed="()")),
        "t1": Setting(None, "bi_tempered", float, between(0, 1, closed="[]")),
        "t2": Setting(None, "bi_tempered", float, at_least(1)),
        "num_iters": Setting(None, "bi_tempered: fixed-point iterations", int, at_least(1)),
        "tau": Setting(None, "ce_sr, logit_adjusted", float, above(0)),
        "p": Setting(None, "ce_sr", float, above(0)),
        "lamb": Setting(None, "ce_sr: weight in the first epoch", float, at_least(0)),
        "rho": Setting(None, "ce_sr: growth of the weight an epoch", float, above(0)),
        "num_negatives": Setting(None, "nlnl: complementary labels an example", int, at_least(1)),
        "max_margin": Setting(None, "ldam", float, above(0)),
        "scale": Setting(None, "ldam: 30 is for logits that are cosines; 1 for plain ones", float,
                         above(0)),
        "gamma": Setting(None, "focal", float, at_least(0)),
        "reweight_from": Setting(None, "epoch from which classes are weighted by effective number "
                                 "(0: always; None: never)", int, at_least(0)),
        "reweight_beta": Setting(0.9999, "beta of the effective number", float,
                                 between(0, 1, closed="[)")),
    },
    "optimizer": {
        "name": Setting("sgd", "optimiser of the network", str, one_of("sgd", "adam", "adamw")),
        "learning_rate": Setting(0.1, "peak learning rate", float, above(0)),
        "momentum": Setting(0.9, "sgd", float, between(0, 1, closed="[)")),
        "nesterov": Setting(False, "sgd", bool),
        "weight_decay": Setting(5e-4, "added to the gradient (adamw: decoupled)", float,
                                at_least(0)),
        "clip_norm": Setting(None, "largest global norm of the gradient", float, above(0)),
        "schedule": Setting("cosine", "learning rate over the epochs", str,
                            one_of("constant", "cosine", "step", "exponential")),
        "per_step": Setting(False, "change the rate every step, not every epoch", bool),
        "warmup_epochs": Setting(0, "epochs of linear warm-up", int, at_least(0)),
        "warmup_start": Setting(0.01, "learning rate at the start of the warm-up", float,
                                at_least(0)),
        "milestones": Setting((), "step: epochs at which the rate is multiplied", tuple,
                              increasing(1)),
        "gamma": Setting(0.1, "step, exponential: the multiplier", float, above(0)),
    },
    "train": {
        "epochs": Setting(100, "passes over the training data", int, at_least(1)),
        "batch_size": Setting(128, "examples a step", int, at_least(1)),
        "drop_last": Setting(False, "supervised: leave out the short batch at the end of an epoch",
                             bool),
        "loop": Setting("auto", "epoch: one compiled call; step: one call a step", str,
                        one_of("auto", "epoch", "step")),
        "devices": Setting(None, "devices that share a batch (default: all)", int, at_least(1)),
        "xla_options": Setting((), "compiler options of the step, 'name=value' each", tuple,
                               assignments()),
    },
    "eval": {
        "batch_size": Setting(500, "examples a call", int, at_least(1)),
        "every": Setting(1, "epochs between evaluations", int, at_least(1)),
        "select": Setting("balanced_accuracy", "validation metric that selects the epoch", str,
                          one_of("accuracy", "balanced_accuracy", "negative_log_likelihood")),
        "many_above": Setting(100, "classes with more training examples are 'many'", int,
                              at_least(1)),
        "few_below": Setting(20, "classes with fewer are 'few'", int, at_least(1)),
        "bins": Setting(15, "of the calibration error", int, at_least(1)),
    },
    "audit": {
        "folds": Setting(None, "parts of a cross-validation that predicts every training example "
                         "out of sample, for the audit; trains as many times (default: none)",
                         int, at_least(2)),
    },
    "checkpoint": {
        "every_seconds": Setting(30.0, "least time between two checkpoints", float, at_least(0)),
        "every_steps": Setting(None, "also within an epoch, where one call is one step", int,
                               at_least(1)),
        "keep": Setting(2, "checkpoints kept", int, at_least(1)),
    },
    "log": {
        "tensorboard": Setting(True, "write TensorBoard events", bool),
        "figures": Setting(True, "draw figures at the end", bool),
        "figures_every": Setting(1, "epochs between pictures of what is learned", int,
                                 at_least(1)),
    },
}
