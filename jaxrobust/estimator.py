"""`RobustClassifier`: the methods of this library as a scikit-learn estimator, in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from jaxrobust import config as configuration
from jaxrobust import networks
from jaxrobust.audit import find_label_issues
from jaxrobust.data.examples import Examples, Source
from jaxrobust.data.prepare import prepare
from jaxrobust.data.readers import arrays as tables
from jaxrobust.errors import check, choose
from jaxrobust.methods import TrainState
from jaxrobust.runs import METHODS
from jaxrobust.runs.audit import weights_source
from jaxrobust.runs.experiment import Experiment, assemble, evaluation_view, make_network
from jaxrobust.runs.fit import fit
from jaxrobust.training.dynamics import gathered
from jaxrobust.training.programs import shared_jit

NetworkLike = str | networks.Network | nn.Module | Callable[[int], Any]


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """A classifier for data whose labels are partly wrong and whose classes are unequal.

    Trains the way `python -m jaxrobust.main` does, from arrays and without writing files. What is
    not given here is taken from the recipe for small data of the method (`configs/digits_*.py`).
    The parameters of the last epoch are kept: robust methods need no clean data to stop early.

    Args:
      method: supervised (any robust loss), dynamic_loss, ...; see `jaxrobust.runs.METHODS`.
      loss: a name of `jaxrobust.losses.LOSSES`; default dal for supervised, ce for the others.
      network: a name of `jaxrobust.networks.NETWORKS`; or your own: a `Network` record, a linen
        module with K outputs, or a function of K that returns one of these. Default: mlp for
        tables, small_cnn for images. To pickle the estimator, what you give must be picklable.
      epochs, batch_size, learning_rate: default: the recipe's; a batch is at most a quarter of
        the data.
      augment: view of training images: none, crop_flip, strong, rand_augment, imagenet.
      settings: any other settings by their full name, e.g. `{"loss.q_end": 1.8}`; see `--help`.
        Those of data, evaluation and files have no meaning here and are refused.
      random_state: int, RandomState or None, as everywhere in scikit-learn.

    Attributes:
      classes_: [K], labels in sorted order, as `y` had them.
      n_features_in_: columns of a table; H * W * C of images.
      params_, batch_stats_: pytrees of NumPy arrays, for `network`.
      label_issues_: which labels are probably wrong, see `jaxrobust.audit.LabelIssues`; its
        `indices` are their rows, the most suspect first. Found from how the training went.
      sample_weight_: float64 [N], how far each given label is to be trusted.
      noise_matrix_: float64 [K, K], estimated T[true, given]; rows sum to one. None for more data
        than predictions can be kept of.
      history_: a dictionary an epoch: training loss, accuracy to the given labels.
      config_: every setting of the fit, nested.

    Errors: `fit` raises `UserError` for settings, data or labels that do not fit.

    Example:
      >>> from sklearn.datasets import load_iris
      >>> X, y = load_iris(return_X_y=True)
      >>> model = RobustClassifier(epochs=10, random_state=0).fit(X, y)
      >>> bool(model.score(X, y) > 0.8)
      True
    """

    def __init__(
        self,
        method: str = "supervised",
        *,
        loss: str | None = None,
        network: NetworkLike | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        augment: str = "none",
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ):
        self.method = method
        self.loss = loss
        self.network = network
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.augment = augment
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RobustClassifier:
        """Trains.

        Args:
          X: images [N, H, W, C] or [N, H, W] (0 to 255, or floats in [0, 1]), or a table [N, D].
          y: [N], labels: numbers or strings.
          sample_weight: [N], multiplies the loss of each example; scaled to a mean of 1.

        Raises:
          UserError (a ValueError): data or settings that cannot work, one class only.
          RunError: the loss is not finite.
        """
        x, y = self._check_fit(X, y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        check(len(self.classes_) > 1, "RobustClassifier needs two classes; y holds one class.")
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, ensure_non_negative=True)
            check(weight.any(), "Sample weights must contain at least one non-zero number.")
        config = self._make_config(x)
        self.config_ = config.to_dict()
        experiment = assemble(config, _prepared(config, x, labels, self.classes_), self._network())
        self._scale = experiment.scale
        if weight is not None and np.ptp(weight) > 0:
            scaled = np.float32(weight * (len(weight) / weight.sum()))
            experiment = experiment.with_arrays(sample_weight=scaled)
        state, self.history_ = fit(experiment)
        self.params_, self.batch_stats_ = jax.device_get((state.params, state.network_state))
        _FORWARD.pop(self, None)
        self._audit(experiment, state, labels)
        return self

    def _audit(self, experiment: Experiment, state: TrainState, labels: np.ndarray) -> None:
        """Sets what the training showed of the labels."""
        dynamics = gathered(state)
        report = experiment.method.report
        found = {} if report is None else {k: np.asarray(v) for k, v in report(state).items()}
        self.label_issues_ = find_label_issues(
            labels, curves=dynamics.curves, training_probabilities=dynamics.probabilities,
            weights={weights_source(self.method): found["weights"]} if "weights" in found else None,
            class_names=experiment.data.class_names,
        )
        self.sample_weight_ = self.label_issues_.weight
        self.noise_matrix_ = self.label_issues_.noise_matrix

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns float64 [N, K], the probability of each of `classes_`.

        Args:
          X: as in `fit`, of the same shape but for N.

        Raises:
          NotFittedError: before `fit`.
          UserError (a ValueError): examples of another shape.
        """
        return softmax(self._logits(X), axis=-1)

    def predict(self, X: Any) -> np.ndarray:
        """Returns [N], the most probable class of each example; see `predict_proba`."""
        best = self._logits(X).argmax(-1)
        return self.classes_[best]

    def _check_fit(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples, uint8 [N, H, W, C] or float32 [N, D], and the labels [N]."""
        if _is_images(X):
            x, y = np.asarray(X), column_or_1d(y, warn=True)
            check_consistent_length(x, y)
            self._unit_range = x.dtype.kind in "fb" and x.max(initial=0) <= 1
            x = tables.as_examples(x, "X", "RobustClassifier")
            self.n_features_in_ = int(np.prod(x.shape[1:]))
        else:
            x, y = _validate(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        self._shape = x.shape[1:]
        return x, y

    def _check_predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        if len(self._shape) == 1:
            return _validate(self, X, dtype=np.float32, reset=False)
        x = np.asarray(X)
        if x.dtype.kind == "f" and not self._unit_range:
            x = np.round(x)  # A dark batch of 0 to 255 is not one of 0 to 1.
            x = x.astype(np.uint8) if x.size and 0 <= x.min() and x.max() <= 255 else x
        x = tables.as_examples(x, "X", "RobustClassifier")
        check(
            x.shape[1:] == self._shape,
            f"X has examples of shape {list(x.shape[1:])}, but RobustClassifier was fitted on "
            f"{list(self._shape)}.",
        )
        return x

    def _make_config(self, x: np.ndarray) -> ConfigDict:
        """Returns the recipe of the method with the parameters of this estimator put over it."""
        method = choose("method", self.method, METHODS)
        loss = self.loss or ("dal" if method == "supervised" else "ce")
        config = _recipe(method, loss, self.epochs)
        quarter = 2 ** int(np.log2(max(len(x) // 4, 1)))
        given = {
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "data.name": "arrays",
            "network.name": "mlp" if x.ndim == 2 else "small_cnn",
            "augment.kind": self.augment,
            "train.batch_size": min(config.train.batch_size, quarter),
            "train.devices": 1,
        }
        if isinstance(self.network, str):
            given["network.name"] = self.network
        if self.batch_size is not None:
            given["train.batch_size"] = min(self.batch_size, len(x))
        if self.learning_rate is not None:
            given["optimizer.learning_rate"] = self.learning_rate
        for key in self.settings or {}:
            group = key.partition(".")[0]
            check(group not in _NO_MEANING, f"{key!r} has no meaning for an estimator.")
        given.update(self.settings or {})
        return configuration.validate(configuration.override(config, given))

    def _network(self) -> networks.Network:
        """Returns the network that was asked for, with as many outputs as there are classes."""
        network, classes = self.network, len(self.classes_)
        if network is None or isinstance(network, str):
            return make_network(configuration.from_mapping(self.config_), classes)
        if not isinstance(network, (networks.Network, nn.Module)):
            network = network(classes)
        return networks.from_linen(network) if isinstance(network, nn.Module) else network

    def _logits(self, X: Any) -> np.ndarray:
        """Returns float64 [N, K]; in batches of one size, so that few programs are compiled."""
        x = self._check_predict(X)
        if self not in _FORWARD:
            network, view = self._network(), evaluation_view(self._shape, *self._scale)
            key = jax.random.key(0)
            _FORWARD[self] = shared_jit(
                lambda params, stats, x: network.apply(params, stats, view(key, x), False)[0]
            )
        size = min(500, 1 << (len(x) - 1).bit_length())
        parts = []
        for start in range(0, len(x), size):
            rows = np.minimum(np.arange(start, start + size), len(x) - 1)
            parts.append(np.asarray(_FORWARD[self](self.params_, self.batch_stats_, x[rows])))
        return np.concatenate(parts)[: len(x)].astype(np.float64)


_FORWARD: weakref.WeakKeyDictionary[RobustClassifier, Callable] = weakref.WeakKeyDictionary()
"""Compiled predictions of fitted estimators, apart from them: they cannot be pickled."""


_NO_MEANING = ("seed", "data", "eval", "audit", "checkpoint", "log", "probe_workdir")
_validate: Callable[..., Any] = validate_data


def _is_images(X: Any) -> bool:
    return getattr(X, "ndim", None) in (3, 4)


def _recipe(method: str, loss: str, epochs: int | None) -> ConfigDict:
    """Returns the recipe of a method for small data; other epochs change its stages in proportion.

    Methods that need metadata choose them from the training data: there are no others.
    """
    config = configuration.load(f"digits_losses:{loss}")
    if f"digits_{method}" in configuration.recipes():
        hyper_parameters, config = config.loss, configuration.load(f"digits_{method}")
        config.loss = hyper_parameters
    config.method.name = method
    config.method.low_loss_metadata = True
    config.data.metadata.kind = "none"
    if epochs is not None:
        epochs = configuration.cast("train.epochs", epochs)
        usual, config.train.epochs = config.train.epochs, epochs

        def shrink(number):
            return max(1, number * epochs // usual)

        config.method.warmup_epochs = shrink(config.method.warmup_epochs)
        config.method.probe_epochs = shrink(config.method.probe_epochs)
        config.optimizer.milestones = tuple(sorted(set(map(shrink, config.optimizer.milestones))))
    return config


def _prepared(config: ConfigDict, x: np.ndarray, labels: np.ndarray, classes: np.ndarray):
    """Returns what a run works on, from arrays; nothing is held out."""
    examples = Examples(x, labels.astype(np.int32))
    source = Source("arrays", examples, None, None, tuple(map(str, classes)))
    return prepare(source, seed=config.seed, validation_fraction=0.0)
