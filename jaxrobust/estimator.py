"""`RobustClassifier`: a scikit-learn estimator for data whose labels are partly wrong."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from jaxrobust import compile_cache, losses
from jaxrobust import config as configuration
from jaxrobust.audit import find_label_issues, models
from jaxrobust.audit.checks import COLLAPSED
from jaxrobust.data import crowd, table, tabular, targets
from jaxrobust.data.examples import Examples, Source
from jaxrobust.data.readers import arrays as tables
from jaxrobust.errors import UserError, check, choose, present
from jaxrobust.runs import METHODS, image_features

if TYPE_CHECKING:  # JAX and Flax are imported where a network is trained: blended models need none
    import flax.linen as nn
    from ml_collections import ConfigDict

    from jaxrobust import networks
    from jaxrobust.data.prepare import Prepared
    from jaxrobust.methods import TrainState
    from jaxrobust.runs.experiment import Experiment

    NetworkLike = str | networks.Network | nn.Module | Callable[[int], Any]


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """A classifier for data whose labels are partly wrong and whose classes are unequal.

    By default (`method="auto"`) tables, embeddings and small images are learned by cross-validated
    scikit-learn models that are blended, judged and fitted again to what the labels probably
    should be (`jaxrobust.audit.models`); it needs no setting and no clean data. Any other method,
    and any setting of a network, trains a network the way `python -m jaxrobust.main` does, from
    arrays and without writing files; what is not given is then taken from the recipe for small
    data of the method (`configs/digits_*.py`).

    Args:
      method: auto; or, for a network, supervised (any robust loss), dynamic_loss, ...; see
        `jaxrobust.runs.METHODS`. auto stands for supervised where any of the network's settings
        below is given.
      loss: a name of `jaxrobust.losses.LOSSES`; default dal for supervised, ce for the others.
      network: a name of `jaxrobust.networks.NETWORKS`; or your own: a `Network` record, a linen
        module with K outputs, or a function of K that returns one of these. Default: mlp for
        tables, small_cnn for images. To pickle the estimator, what you give must be picklable.
      epochs, batch_size, learning_rate: default: the recipe's; a batch is at most a quarter of
        the data.
      augment: view of training images: none, crop_flip, strong, rand_augment, imagenet.
      settings: any other settings by their full name, e.g. `{"loss.q_end": 1.8}`; see `--help`.
        Those of data (but data.balance), evaluation and files have no meaning here and are
        refused; data.balance is sqrt where one class is more than five times as large as another.
        One of them is set by `set_params(**{"settings__loss.q_end": 1.8})`, also in a grid search.
        With `train.ema` the averaged weights predict.
      random_state: int, RandomState or None, as everywhere in scikit-learn.

    Attributes:
      classes_: [K], labels in sorted order, as `y` had them.
      n_features_in_: columns of a table; H * W * C of images.
      label_issues_: which labels are probably wrong, see `jaxrobust.audit.LabelIssues`; its
        `indices` are their rows, the most suspect first.
      sample_weight_: float64 [N], how far each given label is to be trusted.
      noise_matrix_: float64 [K, K], estimated T[true, given]; rows sum to one. None for more data
        than predictions can be kept of.
      blend_: fitted models, see `jaxrobust.audit.models.Blend`; None where a network was trained.
      params_, batch_stats_: pytrees of NumPy arrays, for `network`; None where none was trained.
      history_: a dictionary per epoch: training loss, agreement with the given labels.
      config_: every setting of the fit, nested.
      notes_: lines for the user: columns and examples left out, doubts about the labels.

    Errors: `fit` raises `UserError` for settings, data or labels that do not fit.

    Example:
      >>> from sklearn.datasets import load_iris
      >>> X, y = load_iris(return_X_y=True)
      >>> model = RobustClassifier(random_state=0).fit(X, y)
      >>> bool(model.score(X, y) > 0.9)
      True
    """

    def __init__(
        self,
        method: str = "auto",
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

    def set_params(self, **params: Any) -> RobustClassifier:
        """Sets parameters, as in scikit-learn; `settings__KEY=value` sets one entry of `settings`.

        Args:
          **params: parameters of `__init__`.

        Raises:
          ValueError: a parameter that does not exist.
        """
        own = {k: v for k, v in params.items() if not k.startswith(_SETTING)}
        super().set_params(**own)
        entries = {k.removeprefix(_SETTING): v for k, v in params.items() if k not in own}
        if entries:
            self.settings = dict(self.settings or {}) | entries
        return self

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> RobustClassifier:
        """Trains.

        Args:
          X: a table [N, D]: DataFrame with mixed columns and missing values, array or sparse
            matrix; or images [N, H, W, C] or [N, H, W] (0 to 255, or floats in [0, 1]).
          y: [N], labels: numbers or strings; examples without one (None, NaN, or -1 where the
            others count from 0) are left out, with a warning that says how many. Or [N, A], the
            labels of A annotators, NaN or None where one gave none: their Dawid-Skene consensus
            is learned and their disagreement is evidence.
          sample_weight: [N], multiplies the loss of each example; scaled to a mean of 1.
          groups: [N], patients, bursts, videos: cross-validation never parts a group.

        Raises:
          UserError (a ValueError): data or settings that cannot work, one class only.
          RunError: the loss is not finite.
        """
        X, y, rows = self._check_labels(X, y)
        x = self._check_fit(X)
        check_consistent_length(x, y)
        votes = self._encode(y)
        labels = votes
        if votes.ndim == 2:
            labels, _ = crowd.consensus(votes, len(self.classes_), "dawid_skene")
        weight = sample_weight if self._complete else _rows_of(sample_weight, rows)
        if weight is not None:
            weight = _check_sample_weight(weight, labels, ensure_non_negative=True)
            check(weight.any(), "Sample weights must contain at least one non-zero number.")
            weight = weight * (len(weight) / weight.sum())
        groups = groups if self._complete else _rows_of(groups, rows)
        if groups is not None:
            check_consistent_length(x, groups)
            groups = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
        self.params_ = self.batch_stats_ = self.blend_ = None
        if self._method() == "auto":
            self._fit_blend(x, labels, votes, weight, groups, rows)
        else:
            self._fit_network(x, labels, votes, weight, rows)
        self.sample_weight_ = self.label_issues_.weight
        self.noise_matrix_ = self.label_issues_.noise_matrix
        self.notes_ += self.label_issues_.notes
        for code, note in zip(self.label_issues_.codes, self.label_issues_.notes, strict=False):
            if code in COLLAPSED:
                warnings.warn(note, stacklevel=2)
        return self

    def _method(self) -> str:
        """Returns the method; auto only if no setting of a network is given."""
        network = (self.loss, self.network, self.epochs, self.batch_size, self.learning_rate)
        if self.method != "auto" or (not self.settings and all(v is None for v in network)):
            return self.method
        return "supervised"

    def _fit_blend(
        self,
        x: np.ndarray,
        labels: np.ndarray,
        votes: Any,
        weight: Any,
        groups: Any,
        rows: np.ndarray,
    ) -> None:
        """Fits blended models of features and judges the labels by cross-validation."""
        seed, k = self._seed(), len(self.classes_)
        features = self._features(x)
        kind = models.kind_of(*features.shape, k, self._num_numbers())
        found = models.study(
            features, labels, k, groups=groups, sample_weight=weight, seed=seed, kind=kind
        )
        self.blend_ = models.fit(
            features, found.posterior, found.weights, sample_weight=weight, seed=seed, kind=kind
        )
        self.config_, self.history_ = {"method": {"name": "auto"}, "seed": seed}, []
        self.label_issues_ = find_label_issues(
            _as_votes(votes),
            probabilities=found.probabilities,
            true_probabilities=found.true_probabilities,
            index=rows,
            seed=seed,
            crowd="dawid_skene" if votes.ndim == 2 else None,
            class_names=tuple(map(str, self.classes_)),
        )

    def _fit_network(
        self, x: np.ndarray, labels: np.ndarray, votes: Any, weight: Any, rows: np.ndarray
    ) -> None:
        """Trains a network and judges the labels by how its training went."""
        import jax

        from jaxrobust.runs.experiment import assemble
        from jaxrobust.runs.fit import fit
        from jaxrobust.training import average

        compile_cache.enable()
        x = self._features(x).astype(np.float32) if getattr(x, "ndim", 2) == 2 else x
        config = self._make_config(x, labels)
        self.config_ = config.to_dict()
        experiment = assemble(config, _prepared(config, x, labels, self.classes_), self._network())
        self._scale = experiment.scale
        if weight is not None and np.ptp(weight) > 0:
            experiment = experiment.with_arrays(sample_weight=np.float32(weight))
        state, self.history_ = fit(experiment)
        kept = state.params, state.network_state
        kept = average.weights(state) if state.average else kept
        self.params_, self.batch_stats_ = jax.device_get(kept)
        _FORWARD.pop(self, None)
        self._audit(experiment, state, votes, rows)

    def _audit(
        self, experiment: Experiment, state: TrainState, votes: np.ndarray, rows: np.ndarray
    ) -> None:
        """Sets what the training showed of the labels."""
        from jaxrobust.runs.audit import weights_source
        from jaxrobust.training.dynamics import gathered

        dynamics, method = gathered(state), self._method()
        report = experiment.method.report
        found = {} if report is None else {k: np.asarray(v) for k, v in report(state).items()}
        self.label_issues_ = find_label_issues(
            _as_votes(votes),
            curves=dynamics.curves,
            training_probabilities=dynamics.probabilities,
            index=rows,
            weights={weights_source(method): found["weights"]} if "weights" in found else None,
            crowd="dawid_skene" if votes.ndim == 2 else None,
            class_names=experiment.data.class_names,
        )

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns float64 [N, K], the probability of each of `classes_`.

        Args:
          X: as in `fit`, of the same shape but for N; columns of a DataFrame are found by name, in
            any order, others may be there as well.

        Raises:
          NotFittedError: before `fit`.
          UserError (a ValueError): examples of another shape, or columns that are missing.
        """
        x = self._check_predict(X)
        if self.blend_ is not None:
            return self.blend_.predict_proba(self._features(x))
        return softmax(self._logits(x), axis=-1)

    def predict(self, X: Any) -> np.ndarray:
        """Returns [N], the class of each example.

        Of a network the most probable one. Of blended models, the one whose probability exceeds its
        frequency most (the decision of greatest balanced accuracy), so that a rare class is not
        lost to a frequent one; `predict_proba` does not have this correction.

        Args:
          X: see `predict_proba`; so are the errors.
        """
        p = self.predict_proba(X)
        if self.blend_ is not None:
            p = p / np.maximum(self.blend_.divisor, 1e-12)
        return self.classes_[p.argmax(-1)]

    def _check_labels(self, X: Any, y: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Returns the examples with a label, their labels [N] or [N, A], and their rows."""
        check(y is not None, "RobustClassifier requires y to be passed, but the target y is None.")
        targets.check_same_order(X, y)
        self.notes_ = ()
        values = targets.as_array(y)
        absent = targets.absent_labels(values)
        missing = absent if absent.ndim == 1 else absent.all(1)
        kept = np.flatnonzero(~missing)
        check(len(missing) == 0 or len(kept) > 0, "Input y contains NaN: no example has a label.")
        self._complete = not missing.any()
        if self._complete:
            return X, values, kept
        check_consistent_length(X, values)
        text = f"{missing.sum()} of {len(missing)} examples have no label and are left out."
        warnings.warn(text, stacklevel=3)
        self.notes_ = (text,)
        return _safe_indexing(X, kept), values[kept], kept

    def _encode(self, y: np.ndarray) -> np.ndarray:
        """Sets `classes_`; returns class numbers, -1 where an annotator gave none."""
        absent = targets.absent_labels(y)
        known = y[~absent]
        if y.dtype == object and any(isinstance(v, str) for v in known):
            known = np.array([table.text(v) for v in known])
        elif y.dtype == object and y.ndim == 2:
            known = np.array(known.tolist())
        elif y.ndim == 2 and y.dtype.kind == "f" and (known == np.round(known)).all():
            known = known.astype(np.int64)
        targets.check_classes(y, known, absent)
        self.classes_, codes = np.unique(known, return_inverse=True)
        check(len(self.classes_) > 1, "RobustClassifier needs two classes; y holds one class.")
        votes = np.full(y.shape, -1, np.int64)
        votes[~absent] = codes
        return votes

    def _check_fit(self, X: Any) -> Any:
        """Returns the examples, uint8 [N, H, W, C], float32 [N, D] or a `Table`; sets the
        encoder of tables."""
        self._encoder = None
        check(
            not isinstance(X, Mapping) or hasattr(X, "shape"),  # a sparse DOK matrix is a dict too
            "X is a dictionary: pass a table, such as pandas.DataFrame(X).",
        )
        X = _without_mask(X)
        if _is_images(X):
            x = np.asarray(X)
            top = x.max(initial=0) if x.dtype.kind in "fb" else 255
            self._unit_range = x.dtype.kind in "fb" and top <= _JUST_ABOVE
            x = tables.as_examples(self._clipped(x), "X", "RobustClassifier")
            self.n_features_in_ = int(np.prod(x.shape[1:]))
            self._shape = x.shape[1:]
            return x
        mixed = _is_mixed(X)
        if mixed:
            table.check_names([str(n) for n in getattr(X, "columns", ())], "X")
            _validate(self, X, skip_check_array=True)
            rows = len(X) if hasattr(X, "columns") else X.shape[0]
            check(rows > 1, f"Found array with {rows} sample(s): a minimum of 2 is required.")
        else:
            X = _validate(
                self,
                X,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                accept_sparse=("csr", "csc"),
                ensure_min_samples=2,
            )
        self._shape = (self.n_features_in_,)
        plain = isinstance(X, np.ndarray) and tables.fits_float32(X)
        if not mixed and self._method() != "auto" and plain:
            return np.asarray(X, np.float32)
        x = table.from_frame(X)
        wide = not mixed and x.shape[1] >= models.WIDE
        self._encoder = tabular.fit(x, scaling="standard" if wide else "robust")
        self.notes_ += self._encoder.notes
        return x

    def _check_predict(self, X: Any) -> Any:
        check_is_fitted(self)
        X = _without_mask(X)
        if len(self._shape) == 1:
            if _is_mixed(X):
                return table.from_frame(X)
            X = _validate(
                self,
                X,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                reset=False,
                accept_sparse=("csr", "csc"),
            )
            if self._encoder is None:
                return np.asarray(X, np.float32)
            return table.from_array(_dense(X), names=self._encoder.inputs)
        x = np.asarray(X)
        if x.dtype.kind == "f" and not self._unit_range:
            x = np.round(x)  # A dark batch of 0 to 255 is not one of 0 to 1.
            x = x.astype(np.uint8) if x.size and 0 <= x.min() and x.max() <= 255 else x
        x = tables.as_examples(self._clipped(x), "X", "RobustClassifier")
        check(
            x.shape[1:] == self._shape,
            f"X has examples of shape {list(x.shape[1:])}, but RobustClassifier was fitted on "
            f"{list(self._shape)}.",
        )
        return x

    def _clipped(self, x: np.ndarray) -> np.ndarray:
        """Returns images of [0, 1] whose resizing has gone a little beyond, within it."""
        near = self._unit_range and x.dtype.kind == "f" and x.size > 0
        near = near and x.min() >= 1 - _JUST_ABOVE and x.max() <= _JUST_ABOVE
        return np.clip(x, 0, 1) if near else x

    def _num_numbers(self) -> int | None:
        """Returns how many of the features are numbers of a table; None of images."""
        return None if self._encoder is None else len(self._encoder.series)

    def _features(self, x: Any) -> np.ndarray:
        """Returns features [N, F] of checked examples."""
        if isinstance(x, table.Table):
            return present(self._encoder, "The estimator was not fitted on a table.").transform(x)
        if x.ndim == 2:
            return x
        return image_features.of(x)

    def _seed(self) -> int:
        try:
            state = check_random_state(self.random_state)
        except ValueError as error:
            kind = type(self.random_state).__name__
            given = self.random_state if isinstance(self.random_state, int) else f"a {kind}"
            raise UserError(
                f"random_state is {given}: pass an integer from 0 to 2**32 - 1, a "
                "numpy.random.RandomState, or None."
            ) from error
        return int(state.randint(2**31 - 1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def _make_config(self, x: np.ndarray, labels: np.ndarray) -> ConfigDict:
        """Returns the recipe of the method with the parameters of this estimator put over it."""
        method = choose("method", self._method(), METHODS)
        loss = self.loss or ("dal" if method == "supervised" else "ce")
        if not isinstance(loss, str):
            named = [name for name in losses.LOSSES if losses.get(name) is loss]
            hint = f" Pass its name, {named[0]!r}." if named else " Pass a name of losses.LOSSES."
            raise UserError(f"loss={getattr(loss, '__name__', loss)!r:.60} is no name.{hint}")
        config = _recipe(method, loss, _number(self.epochs))
        quarter = 2 ** int(np.log2(max(len(x) // 4, 1)))
        given = {
            "seed": self._seed(),
            "data.name": "arrays",
            "network.name": "mlp" if x.ndim == 2 else "small_cnn",
            "augment.kind": self.augment,
            "train.batch_size": min(config.train.batch_size, quarter),
            "train.devices": 1,
            "train.xla_options": (),
        }
        counts = np.bincount(labels)
        counts = counts[counts > 0]
        if counts.max() > LONG_TAIL * counts.min() and "data.balance" not in (self.settings or {}):
            given["data.balance"] = "sqrt"
            self.notes_ += (
                f"The largest class has {counts.max()} examples, the smallest {counts.min()}: they "
                "are met in proportion to the square root of these (data.balance=sqrt).",
            )
        if isinstance(self.network, str):
            given["network.name"] = self.network
        if self.batch_size is not None:
            given["train.batch_size"] = min(_number(self.batch_size), len(x))
        if self.learning_rate is not None:
            given["optimizer.learning_rate"] = _number(self.learning_rate)
        check(
            isinstance(self.settings or {}, Mapping),
            f"settings={self.settings!r:.60}: pass a dictionary, such as "
            '{"optimizer.weight_decay": 1e-4}.',
        )
        for key in self.settings or {}:
            group = key.partition(".")[0]
            refused = group in _NO_MEANING and key != "data.balance"
            check(not refused, f"{key!r} has no meaning for an estimator.")
        given.update({key: _number(value) for key, value in (self.settings or {}).items()})
        return configuration.validate(configuration.override(config, given))

    def _network(self) -> networks.Network:
        """Returns the network that was asked for, with as many outputs as there are classes."""
        import flax.linen as nn

        from jaxrobust import networks
        from jaxrobust.runs.experiment import make_network

        network, classes = self.network, len(self.classes_)
        if network is None or isinstance(network, str):
            return make_network(configuration.from_mapping(self.config_), classes)
        kinds = (networks.Network, nn.Module)
        if callable(network) and not isinstance(network, kinds):
            network = network(classes)
        check(
            isinstance(network, kinds),
            f"network={network!r:.60}: pass a name ({', '.join(networks.NETWORKS)}), a linen "
            "module, a Network, or a function of the number of classes that returns one.",
        )
        return networks.from_linen(network) if isinstance(network, nn.Module) else network

    def _logits(self, x: Any) -> np.ndarray:
        """Returns float64 [N, K]; in batches of one size, so that few programs are compiled."""
        import jax

        from jaxrobust.runs.experiment import evaluation_view
        from jaxrobust.training.programs import shared_jit

        x = self._features(x) if not _is_images(x) else x
        if self not in _FORWARD:
            compile_cache.enable()
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


LONG_TAIL = 5  # largest class / smallest: beyond, a network is trained with data.balance=sqrt
_SETTING = "settings__"
_JUST_ABOVE = 1.05  # of images in [0, 1] that were resized by an interpolation that overshoots
_NO_MEANING = ("seed", "data", "eval", "audit", "checkpoint", "log", "probe_workdir")
_validate: Callable[..., Any] = validate_data


def _is_images(X: Any) -> bool:
    return getattr(X, "ndim", None) in (3, 4)


def _is_mixed(X: Any) -> bool:
    """Whether X is a table whose columns have types of their own."""
    return hasattr(X, "columns") or str(getattr(X, "dtype", "")) == "object"


def _dense(X: Any) -> np.ndarray:
    return X.toarray() if hasattr(X, "toarray") else X


def _number(value: Any) -> Any:
    """Returns a number of NumPy or JAX as Python's."""
    scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    return value.item() if scalar else value


def _rows_of(values: Any, rows: np.ndarray) -> Any:
    """Returns the values of those examples that have a label."""
    if values is None or np.ndim(values) == 0:
        return values
    return _safe_indexing(values, rows)


def _without_mask(X: Any) -> Any:
    """Returns a masked array as floats, NaN where masked."""
    if not isinstance(X, np.ma.MaskedArray) or X.dtype.kind not in "biuf":
        return X
    return np.where(np.ma.getmaskarray(X), np.nan, X.data.astype(np.float64))


def _as_votes(votes: np.ndarray) -> np.ndarray:
    """Returns class numbers as `find_label_issues` takes them: NaN where an annotator gave none."""
    return np.where(votes < 0, np.nan, votes) if votes.ndim == 2 else votes


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

        def shrink(number: Any) -> int:
            return max(1, number * epochs // usual)

        config.method.warmup_epochs = shrink(config.method.warmup_epochs)
        config.method.probe_epochs = shrink(config.method.probe_epochs)
        config.optimizer.milestones = tuple(sorted(set(map(shrink, config.optimizer.milestones))))
    return config


def _prepared(
    config: ConfigDict, x: np.ndarray, labels: np.ndarray, classes: np.ndarray
) -> Prepared:
    """Returns what a run works on, from arrays; nothing is held out."""
    from jaxrobust.data.prepare import prepare

    examples = Examples(x, labels.astype(np.int32))
    source = Source("arrays", examples, None, None, tuple(map(str, classes)))
    return prepare(source, seed=config.seed, validation_fraction=0.0)
