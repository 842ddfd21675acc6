"""Every setting of a run: its default, what it means, which values it takes.

The only place where a default lives. A setting whose default is None takes the default of the
part it belongs to (a loss's own hyper-parameter, a data set's usual augmentation, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from jaxrobust.losses import LOSSES, MEMORY_LOSSES
from jaxrobust.networks import NETWORKS
from jaxrobust.runs import METHODS
from jaxrobust.training.metric_table import SELECTABLE


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
    def holds(v: Any) -> bool:
        above = v >= low if closed[0] == "[" else v > low
        return above and (v <= high if closed[1] == "]" else v < high)

    return Rule(f"in {closed[0]}{low:g}, {high:g}{closed[1]}", holds)


def at_least(low: float) -> Rule:
    return Rule(f"at least {low:g}", lambda v: v >= low)


def seeds() -> Rule:
    return Rule("at least 0 and below 2**32", lambda v: 0 <= v < 2**32)


def above(low: float) -> Rule:
    return Rule(f"greater than {low:g}", lambda v: v > low)


def increasing(low: float) -> Rule:
    def holds(v: Any) -> bool:
        if any(isinstance(a, bool) or not isinstance(a, int | float) for a in v):
            return False
        return all(a >= low for a in v) and all(a < b for a, b in pairwise(v))

    return Rule(f"increasing numbers, at least {low:g}", holds)


def several_seeds() -> Rule:
    def holds(v: Any) -> bool:
        whole = all(isinstance(a, int) and not isinstance(a, bool) for a in v)
        return whole and all(0 <= a < 2**32 for a in v) and len(set(v)) == len(v)

    return Rule("different whole numbers, at least 0 and below 2**32", holds)


def assignments() -> Rule:
    def holds(v: Any) -> bool:
        given = all(isinstance(a, str) and "=" in a[1:] for a in v)
        return given or tuple(v) == ("auto",)

    return Rule("of texts 'name=value', or auto", holds)


_NOISE = (
    "none symmetric symmetric_exclusive uniform_by_class_size asymmetric pair_flip instance matrix"
).split()
_LOSS_NAMES = (*LOSSES, *MEMORY_LOSSES)
_HYPER_PARAMETERS: dict[str, tuple[str, type, Rule | None]] = {
    "q": ("exponent q", float, None),
    "q_start": ("q in the first epoch", float, above(0)),
    "q_end": ("q at the end", float, above(0)),
    "hard": ("hard instead of soft bootstrapping", bool, None),
    "alpha": ("weight of the first term", float, at_least(0)),
    "beta": ("weight of the second term; elr: momentum of the targets", float, at_least(0)),
    "a": ("offset a", float, above(0)),
    "order": ("order of the Taylor series", int, at_least(1)),
    "pi": ("weight of the label in the mixture", float, between(0, 1, closed="()")),
    "t1": ("temperature of the logarithm", float, between(0, 1, closed="[]")),
    "t2": ("temperature of the softmax", float, at_least(1)),
    "num_iters": ("fixed-point iterations", int, at_least(1)),
    "tau": ("temperature tau", float, above(0)),
    "p": ("exponent of the norm", float, above(0)),
    "lamb": ("weight of the regularizer (ce_sr: in the first epoch)", float, at_least(0)),
    "rho": ("growth of the weight per epoch", float, above(0)),
    "num_negatives": ("complementary labels per example", int, at_least(1)),
    "max_margin": ("margin of the smallest class", float, above(0)),
    "scale": ("factor of the logits; 30 for cosine logits, 1 for plain ones", float, above(0)),
    "gamma": ("focal exponent gamma", float, at_least(0)),
    "min_prob": ("smallest probability that counts", float, between(0, 1, closed="()")),
    "m": ("weight of the one-hot vector in the softmax", float, at_least(0)),
    "eps": ("smallest probability that counts", float, between(0, 1, closed="()")),
    "momentum": ("momentum of the soft labels", float, between(0, 1, closed="[]")),
    "es": ("epochs of cross-entropy before labels are corrected", int, at_least(0)),
}
"""Meaning, type and range of the losses' hyper-parameters; one that is not here is any number."""


def _of_losses() -> dict[str, Setting]:
    """Returns a setting per hyper-parameter of the losses' tables, with the losses that take it."""
    taken: dict[str, list[str]] = {}
    for table in (LOSSES, MEMORY_LOSSES):
        for name in table:
            for key in table.settings(name):
                taken.setdefault(key, []).append(name)
    made = {}
    for key, names in taken.items():
        meaning, kind, rule = _HYPER_PARAMETERS.get(key, ("hyper-parameter", float, None))
        made[key] = Setting(None, f"{', '.join(names)}: {meaning}", kind, rule)
    return made


SCHEMA: dict[str, Any] = {
    "seed": Setting(
        0,
        "random seed of initialization, order, label noise, long tail and augmentation",
        int,
        seeds(),
    ),
    "probe_workdir": Setting(
        None,
        "curvenet: workdir of a finished run whose loss curves are used instead of a new probe",
        str,
    ),
    "data": {
        "name": Setting(
            "digits", "data set: digits, folder, npz, csv, or the name of a TFDS data set", str
        ),
        "seed": Setting(
            None,
            "random seed of label noise, long tail, splits and folds (default: seed, or the first "
            "of train.seeds)",
            int,
            seeds(),
        ),
        "path": Setting(
            None, "folder or file of the data set, for data.name folder, npz and csv", str
        ),
        "data_dir": Setting(None, "folder in which TFDS keeps its prepared data sets", str),
        "label_key": Setting(None, "column or TFDS feature that holds the given labels", str),
        "label_column": Setting(
            None, "column of a CSV file that holds the labels (default: label, or the last)", str
        ),
        "group_column": Setting(
            None,
            "column of a CSV file, or array of an .npz file, that names each example's group "
            "(patient, video): no split or fold separates a group",
            str,
        ),
        "unlabeled": Setting(
            None, "label or class folder that means 'not labeled': these examples are left out", str
        ),
        "annotators": Setting(
            None,
            "labels of several annotators: columns of a CSV file (names or patterns, separated by "
            "commas), the array [N, A] of an .npz file, or a file of labels (.csv, .npy) per "
            "annotator; their consensus is the given label, their disagreement evidence",
            str,
        ),
        "consensus": Setting(
            "dawid_skene",
            "how the labels of data.annotators are combined",
            str,
            one_of("dawid_skene", "majority"),
        ),
        "labels_file": Setting(
            None, "file of labels (.npy, .csv, noise.npz) that replace those of the data set", str
        ),
        "check_labels": Setting(
            True,
            "refuse a data.labels_file that disagrees with the data set about most labels",
            bool,
        ),
        "manifest": Setting(
            None, "noise.npz of another run, whose rows and given labels are used again", str
        ),
        "subset": Setting(
            None,
            "number of training examples to use, drawn at random within classes (default: all)",
            int,
            at_least(2),
        ),
        "test_fraction": Setting(
            None,
            "fraction of the data held out as test set, where the data set has none of "
            "its own; 0: none (default 0.2; for digits 0.3)",
            float,
            between(0, 1, closed="[)"),
        ),
        "num_classes": Setting(
            None, "number of classes to keep, the first ones (mini-WebVision: 50)", int, at_least(2)
        ),
        "image_size": Setting(
            None, "side in pixels to which the images of a folder are resized", int, at_least(4)
        ),
        "on_unreadable": Setting(
            "error",
            "what to do with an image that cannot be read: stop, or leave it out",
            str,
            one_of("error", "skip"),
        ),
        "residency": Setting(
            "auto",
            "where training data live: on the device, or streamed from the host",
            str,
            one_of("auto", "device", "stream"),
        ),
        "workers": Setting(
            2, "number of processes that read and decode images while streaming", int, at_least(0)
        ),
        "balance": Setting(
            "none",
            "sampling of the training examples: each once per epoch (none), classes equally often "
            "(class), or in proportion to the square root of their sizes (sqrt); for every "
            "method.name that trains a network",
            str,
            one_of("none", "sqrt", "class"),
        ),
        "noise": {
            "kind": Setting(
                "none",
                "kind of label noise that is planted in the given labels, for experiments",
                str,
                one_of(*_NOISE),
            ),
            "rate": Setting(
                0.0,
                "fraction of the labels that are redrawn, for every data.noise.kind but matrix",
                float,
                between(0, 1, closed="[)"),
            ),
            "map": Setting(
                None, "asymmetric noise: pairs 'from:to,from:to' of class names or numbers", str
            ),
            "matrix": Setting(
                None,
                "noise kind matrix: .npy or .csv file with T[true, given], K x K; rows sum to one",
                str,
            ),
        },
        "imbalance": {
            "kind": Setting(
                "none",
                "long tail that is cut into the training data, for experiments",
                str,
                one_of("none", "exponential", "step"),
            ),
            "factor": Setting(
                1.0,
                "size of the smallest class divided by that of the largest, after cutting",
                float,
                between(0, 1, closed="(]"),
            ),
        },
        "metadata": {
            "kind": Setting(
                "none",
                "meta set held out from the training data: clean (before the label noise), noisy "
                "(after it), or none",
                str,
                one_of("none", "clean", "noisy"),
            ),
            "per_class": Setting(10, "examples per class in the meta set", int, at_least(1)),
        },
        "validation": {
            "fraction": Setting(
                0.1,
                "fraction of the training data held out to select the epoch",
                float,
                between(0, 1, closed="[)"),
            ),
            "clean": Setting(
                False,
                "hold the validation data out before label noise is planted, so that they keep "
                "true labels",
                bool,
            ),
        },
    },
    "augment": {
        "kind": Setting(
            None,
            "augmentation of training images (default: by data set)",
            str,
            one_of("none", "crop_flip", "strong", "rand_augment", "imagenet"),
        ),
        "pad": Setting(4, "pixels of padding before a random crop", int, at_least(0)),
        "pad_mode": Setting(
            "constant",
            "how images are padded before a random crop",
            str,
            one_of("constant", "reflect"),
        ),
        "cutout": Setting(16, "side in pixels of the square that Cutout removes", int, at_least(0)),
        "cutout_kind": Setting(
            "black",
            "square of Cutout: black and clipped at every border, or gray (128) and moved inside "
            "at the upper and left border, as the dynamic loss's program has it",
            str,
            one_of("black", "gray"),
        ),
        "flip": Setting(
            None, "mirror training images at random (default: yes, except for digits)", bool
        ),
    },
    "network": {
        "name": Setting("small_cnn", "network architecture", str, one_of(*NETWORKS)),
        "pretrained": Setting(
            None,
            "weights that the network begins with: installed (of efficientnet_lite0), a "
            ".safetensors or .pth file of torchvision or timm (resnet18, resnet34, resnet50, "
            "vit_small), or hf:OWNER/REPOSITORY of the Hugging Face hub",
            str,
        ),
        "freeze": Setting(
            True,
            "pretrained networks: train a linear layer on features that are computed once and kept "
            "in the workdir; false: fine-tune the whole network",
            bool,
        ),
        "width": Setting(
            None,
            "hidden units of mlp, channels of small_cnn and others (default: the network's own)",
            int,
            at_least(1),
        ),
        "dtype": Setting(
            "float32",
            "number type of the computation; parameters stay float32",
            str,
            one_of("float32", "bfloat16"),
        ),
        "init": Setting(
            None,
            "resnet32: initialization (default: he), see networks.resnet.resnet32",
            str,
            one_of("he", "torch", "normal_0.02"),
        ),
    },
    "method": {
        "name": Setting("supervised", "how the network is trained", str, one_of(*METHODS, "blend")),
        "meta_learning_rate": Setting(
            3e-3, "learning rate of the Adam that trains the learned objective", float, at_least(0)
        ),
        "meta_weight_decay": Setting(
            0.0,
            "weight decay of the learned objective, added to the meta-gradient",
            float,
            at_least(0),
        ),
        "meta_batch_size": Setting(
            None, "examples of the meta set per step (default: train.batch_size)", int, at_least(1)
        ),
        "repeat_metadata": Setting(
            True,
            "fill a batch of the meta set by repeating its examples where it is smaller than a "
            "batch; false: such a batch is the whole meta set",
            bool,
        ),
        "meta_every": Setting(1, "epochs between two epochs with meta-steps", int, at_least(1)),
        "look_ahead_steps": Setting(
            1, "optimizer steps that the meta-gradient looks ahead", int, at_least(1)
        ),
        "hypergradient": Setting(
            "exact",
            "how the meta-gradient is computed",
            str,
            one_of("exact", "first_order", "finite_difference"),
        ),
        "skip_stages": Setting(
            0,
            "number of the network's first stages that are frozen in the look-ahead (SLMO)",
            int,
            at_least(0),
        ),
        "bottom_batch_norm": Setting(
            "eval",
            "batch norm of the frozen stages: running statistics (eval) or the batch's",
            str,
            one_of("eval", "batch"),
        ),
        "hidden": Setting(64, "hidden units of the learned objective", int, at_least(1)),
        "warmup_epochs": Setting(
            5,
            "dynamic_loss: epochs of cross-entropy before the first meta-step; agreement: epochs "
            "in which every example is trained on",
            int,
            at_least(1),
        ),
        "fit_steps": Setting(
            2000,
            "dynamic_loss: first steps of the warm-up, in which the label corrector is fitted",
            int,
            at_least(0),
        ),
        "num_ranks": Setting(
            100, "dynamic_loss: number of ranks by loss within a class", int, at_least(1)
        ),
        "corrector": Setting(True, "dynamic_loss: learn to correct labels", bool),
        "margin": Setting(True, "dynamic_loss: learn a margin per class", bool),
        "shared_weight": Setting(
            False, "dynamic_loss: one label weight per rank, the same for all classes", bool
        ),
        "candidates": Setting(
            0.5,
            "meta set from the training data: candidates per class, as a fraction of the "
            "smallest class",
            float,
            between(0, 1, closed="(]"),
        ),
        "kept": Setting(
            0.5,
            "meta set from the training data: fraction of the candidates kept, lowest loss first",
            float,
            between(0, 1, closed="(]"),
        ),
        "by_loss": Setting(
            True,
            "meta set from the training data: keep candidates of low loss; false: at random",
            bool,
        ),
        "low_loss_metadata": Setting(
            False,
            "curvenet, meta_weight_net, learning_to_reweight: choose "
            "the meta set from the noisy training data",
            bool,
        ),
        "fine_tune": Setting(
            True, "dynamic_loss: end every epoch with a pass over the meta set", bool
        ),
        "mixup_alpha": Setting(
            None, "dynamic_loss: mix images and labels, Beta(alpha, alpha)", float, above(0)
        ),
        "base": Setting(
            "loss",
            "curvenet, meta_weight_net, learning_to_reweight: the loss that is weighted",
            str,
            one_of("loss", "dynamic_loss"),
        ),
        "freeze_epoch": Setting(
            None,
            "epoch from which the per-example weights are frozen "
            "(default: curvenet: the first milestone; else never)",
            int,
            at_least(1),
        ),
        "weight_smoothing": Setting(
            1.0,
            "moving average of per-example weights: fraction of the new weight; 1: no average",
            float,
            between(0, 1, closed="(]"),
        ),
        "weight_factor": Setting(
            1.0, "curvenet: factor in weight = factor * sigmoid + bias", float, above(0)
        ),
        "weight_bias": Setting(
            0.02, "curvenet: bias in weight = factor * sigmoid + bias", float, at_least(0)
        ),
        "probe_epochs": Setting(
            300,
            "curvenet: epochs of the probe, the training that records loss curves",
            int,
            at_least(1),
        ),
        "probe_learning_rate": Setting(
            None,
            "curvenet: learning rate of the probe (default: optimizer.learning_rate)",
            float,
            above(0),
        ),
        "probe_batch_divisor": Setting(
            8,
            "curvenet: batch size is divided by this while the probe's learning rate cycles",
            int,
            at_least(1),
        ),
        "curves_file": Setting(
            None, "curvenet: .npz with curves [N, T] and index [N], used instead of a probe", str
        ),
        "curves_dtype": Setting(
            "float16",
            "curvenet: number type in which loss curves are kept",
            str,
            one_of("float16", "float32"),
        ),
        "curve_start": Setting(
            None,
            "curvenet: first epoch of a loss curve that is used (default: after the first 1/60)",
            int,
            at_least(0),
        ),
        "curve_end": Setting(
            None,
            "curvenet: epoch at which loss curves are cut (default: without the last 1/300)",
            int,
            at_least(1),
        ),
        "networks": Setting(
            1,
            "agreement: number of networks; two select for each other, the first is the result",
            int,
            between(1, 2),
        ),
        "consistency_from": Setting(
            None,
            "agreement: epoch from which examples that are not confirmed train on pseudo-labels "
            "(default: half of train.epochs)",
            int,
            at_least(1),
        ),
        "average_decay": Setting(
            0.99,
            "agreement: decay of the averaged network that judges",
            float,
            between(0, 1, closed="[)"),
        ),
        "marginal_momentum": Setting(
            0.99,
            "agreement: momentum of the mean prediction by which predictions are divided",
            float,
            between(0, 1, closed="[)"),
        ),
        "confidence": Setting(
            0.8,
            "agreement: probability from which a pseudo-label is trained on",
            float,
            between(0, 1),
        ),
        "consistency_weight": Setting(
            1.0, "agreement: weight of the loss to a pseudo-label", float, at_least(0)
        ),
        "weak_view": Setting(
            "none",
            "dynamic_loss: augmentation of the look-ahead; agreement: of the images that the "
            "averaged network judges",
            str,
            one_of("none", "crop_flip", "imagenet_eval"),
        ),
    },
    "loss": {
        "name": Setting(
            "ce",
            "loss of the network, a function of logits and labels",
            str,
            one_of(*_LOSS_NAMES),
        ),
        **_of_losses(),
        "logit_clip": Setting(
            None,
            "bound tau on the norm of the logits (default: none), around any loss",
            float,
            above(0),
        ),
        "reweight_from": Setting(
            None,
            "epoch from which classes are weighted by their effective number "
            "of examples (0: always; None: never)",
            int,
            at_least(0),
        ),
        "reweight_beta": Setting(
            0.9999,
            "beta of the effective number of examples, for loss.reweight_from",
            float,
            between(0, 1, closed="[)"),
        ),
    },
    "optimizer": {
        "name": Setting("sgd", "optimizer of the network", str, one_of("sgd", "adam", "adamw")),
        "learning_rate": Setting(
            0.1, "peak learning rate of the network's optimizer", float, above(0)
        ),
        "momentum": Setting(0.9, "momentum of sgd", float, between(0, 1, closed="[)")),
        "nesterov": Setting(False, "Nesterov momentum of sgd", bool),
        "weight_decay": Setting(
            5e-4, "weight decay, added to the gradient (adamw: decoupled)", float, at_least(0)
        ),
        "l1": Setting(
            0.0,
            "weight of an L1 penalty, added to the loss: the sum of |parameter| over all trainable "
            "parameters",
            float,
            at_least(0),
        ),
        "clip_norm": Setting(
            None,
            "largest global norm of the gradient; larger ones are scaled down (default: no limit)",
            float,
            above(0),
        ),
        "schedule": Setting(
            "cosine",
            "course of the learning rate over the epochs",
            str,
            one_of("constant", "cosine", "step", "exponential"),
        ),
        "per_step": Setting(False, "change the learning rate every step, not every epoch", bool),
        "warmup_epochs": Setting(
            0, "epochs in which the learning rate rises linearly to its peak", int, at_least(0)
        ),
        "warmup_start": Setting(
            0.01, "learning rate at the start of the warm-up", float, at_least(0)
        ),
        "warmup": Setting(
            "linear",
            "how the learning rate warms up: a linear rise by epoch, then the schedule; or the "
            "whole schedule times a factor that rises in every step",
            str,
            one_of("linear", "factor"),
        ),
        "milestones": Setting(
            (),
            "schedule step: epochs at which the learning rate is multiplied by optimizer.gamma",
            tuple,
            increasing(1),
        ),
        "gamma": Setting(
            0.1, "schedules step and exponential: multiplier of the learning rate", float, above(0)
        ),
    },
    "train": {
        "epochs": Setting(100, "passes over the training data", int, at_least(1)),
        "batch_size": Setting(128, "training examples per step", int, at_least(1)),
        "drop_last": Setting(
            False, "supervised: leave out the last, short batch of an epoch", bool
        ),
        "ema": Setting(
            None,
            "decay of an exponential moving average of the weights, which is evaluated next to the "
            "last weights, e.g. 0.997 (default: none)",
            float,
            between(0, 1, closed="[)"),
        ),
        "mixup_alpha": Setting(
            None,
            "supervised, dynamic_loss, agreement: mix images and labels, weight from "
            "Beta(alpha, alpha) (default: none)",
            float,
            above(0),
        ),
        "loop": Setting(
            "auto",
            "how an epoch runs: as one compiled call (epoch), or one call per step (step)",
            str,
            one_of("auto", "epoch", "step"),
        ),
        "devices": Setting(
            None, "number of devices that share a batch (default: all)", int, at_least(1)
        ),
        "seeds": Setting(
            (),
            "several seeds, such as (0,1,2): all are trained, on the same data, instead of seed",
            tuple,
            several_seeds(),
        ),
        "xla_options": Setting(
            ("auto",),
            "options of the XLA compiler for the training step, each 'name=value'; auto: on CPU, "
            "those of a few that are fastest for this run and compute the same",
            tuple,
            assignments(),
        ),
    },
    "eval": {
        "batch_size": Setting(500, "examples per call in evaluation", int, at_least(1)),
        "every": Setting(1, "epochs between evaluations", int, at_least(1)),
        "select": Setting(
            "balanced_accuracy",
            "metric on the validation data whose best value selects the epoch",
            str,
            one_of(*SELECTABLE),
        ),
        "label_wave": Setting(
            False,
            "report the epoch of the first minimum of prediction changes on the training data, too",
            bool,
        ),
        "many_above": Setting(
            100, "classes with more training examples count as 'many' in reports", int, at_least(1)
        ),
        "few_below": Setting(
            20, "classes with fewer training examples count as 'few' in reports", int, at_least(1)
        ),
        "bins": Setting(15, "number of confidence bins of the calibration error", int, at_least(1)),
    },
    "audit": {
        "folds": Setting(
            None,
            "folds of a cross-validation that predicts every training example "
            "out of sample, for the audit; trains once per fold (default: none)",
            int,
            at_least(2),
        ),
    },
    "checkpoint": {
        "every_seconds": Setting(
            30.0, "shortest time between two checkpoints, in seconds", float, at_least(0)
        ),
        "every_steps": Setting(
            None,
            "steps between checkpoints within an epoch, where one call is one step (default: none)",
            int,
            at_least(1),
        ),
        "keep": Setting(2, "number of newest checkpoints that are kept", int, at_least(1)),
    },
    "log": {
        "tensorboard": Setting(True, "write TensorBoard events", bool),
        "figures": Setting(True, "draw figures at the end of the run", bool),
        "figures_every": Setting(
            1, "epochs between figures of what the method has learned", int, at_least(1)
        ),
    },
}
