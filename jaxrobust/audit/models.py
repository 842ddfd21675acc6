"""Blended scikit-learn models of features: cross-validated predictions and robust classifiers.

Evidence: out-of-sample predictions of a linear model and two kinds of trees (of embeddings: of
linear models of two strengths, and of trees where there are few numbers), blended in log space
with the weights that explain the given labels best. Classifier: the same models, fitted to the
posterior of the true label instead of the given one.

Slow models are bounded: each is fitted to at most `MAX_ROWS` rows; trees are left out beyond
`MAX_TREE_CLASSES` classes, and on embeddings (`WIDE` numbers or more) beyond `MAX_TREE_ENTRIES`.

Symbols: N examples, F features, K classes, M members of the blend; r [N, K]: soft labels.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from jaxrobust.audit import decision, noise_model
from jaxrobust.errors import check

FOLDS = 5
MAX_ROWS = 20_000  # rows that a member is fitted to
MAX_TREE_CLASSES = 60
WIDE = 256  # numbers: from here they are taken for an embedding
MAX_TREE_ENTRIES = 1_000_000  # rows x features x classes of an embedding for which trees are fitted
ONE_THREAD = 2_000_000  # numbers: less are fitted by one thread
FLOOR = 1e-3  # of probabilities that are blended
SPREAD = 1e-3  # pull of the blend's log-weights to equal ones
UNEQUAL = 1.2  # largest class / smallest: up to here classes count as equal
SOFT = 0.02  # of a soft label: smaller parts are dropped

Maker = Callable[[int], Any]


def _linear(strength: float) -> Maker:
    def make(seed: int) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=strength, max_iter=300, random_state=seed)

    return make


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=120,
        max_leaf_nodes=8,
        l2_regularization=5.0,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )


def _extra_trees(seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(200, min_samples_leaf=5, max_features=0.4, random_state=seed)


class Kind(NamedTuple):
    """What decides which models are blended.

    Attributes:
      embedded: whether the features are taken for an embedding: strongly regularized linear models.
      trees: whether trees are fitted.
    """

    embedded: bool
    trees: bool


def kind_of(
    num_rows: int, num_features: int, num_classes: int, num_numbers: int | None = None
) -> Kind:
    """Returns which models fit data of this size.

    Args:
      num_rows, num_features, num_classes: N, F and K.
      num_numbers: how many of the features of a table are numbers and not one of the levels of a
        category; None for features that a network made.
    """
    numbers = num_features if num_numbers is None else num_numbers
    embedded = numbers >= WIDE
    small = num_rows * num_features * num_classes <= MAX_TREE_ENTRIES and num_numbers is not None
    return Kind(embedded, num_classes <= MAX_TREE_CLASSES and (small or not embedded))


def members(kind: Kind) -> dict[str, Maker]:
    """Returns the makers, of a seed, of the models that are blended for data of this kind."""
    found: dict[str, Maker] = {"linear": _linear(1.0)}
    if kind.embedded:
        found = {"linear_0.01": _linear(0.01), "linear_0.0003": _linear(0.0003)}
    if kind.trees:
        found |= {"boosting": _boosting, "extra_trees": _extra_trees}
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blend:
    """Fitted models and how their predictions are blended.

    Attributes:
      models: by name, scikit-learn classifiers of classes among 0 ... K-1.
      weights: float64 [M], powers of their predictions.
      prior: float64 [K], class frequencies of the labels that they were fitted to.
    """

    models: dict[str, Any]
    weights: np.ndarray
    prior: np.ndarray

    @property
    def divisor(self) -> np.ndarray:
        """Float64 [K], what probabilities are divided by to decide for a class with the greatest
        balanced accuracy: the prior, or ones where classes are about equal."""
        return (
            self.prior
            if self.prior.max() > UNEQUAL * self.prior.min()
            else np.ones_like(self.prior)
        )

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Returns float64 [N, K], blended probabilities of features x [N, F]."""
        k = len(self.prior)
        return blended([_predict(m, x, k) for m in self.models.values()], self.weights)


def blended(predictions: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Returns the normalized product of predictions [N, K], each to the power of its weight."""
    pairs = zip(weights, predictions, strict=True)
    logits = np.sum([w * np.log(np.maximum(p, FLOOR)) for w, p in pairs], axis=0)
    logits = np.exp(logits - logits.max(1, keepdims=True))
    return logits / logits.sum(1, keepdims=True)


def blend_weights(
    predictions: list[np.ndarray], target: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Returns float64 [M], the positive powers that minimize the cross-entropy to r [N, K]."""
    from scipy.optimize import minimize

    z = np.stack([np.log(np.maximum(p, FLOOR)) for p in predictions])
    own = np.einsum("mnk,nk->mn", z, target)
    mass = np.ones(len(target)) if sample_weight is None else sample_weight
    mass = mass / mass.sum()
    start = np.full(len(z), -np.log(len(z)))

    def loss(log_weights):
        w = np.exp(np.clip(log_weights, -8, 3))
        logits = np.tensordot(w, z, 1)
        top = logits.max(1, keepdims=True)
        q = np.exp(logits - top)
        total = q.sum(1, keepdims=True)
        value = mass @ (top[:, 0] + np.log(total[:, 0]) - w @ own)
        slope = w * ((np.einsum("mnk,nk->mn", z, q / total) - own) @ mass)
        away = log_weights - start
        return value + SPREAD * away @ away, slope + 2 * SPREAD * away

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-8, 3)] * len(z))
    return np.exp(found.x)


def cross_validated(
    x: np.ndarray,
    r: np.ndarray,
    *,
    strata: np.ndarray,
    groups: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    seed: int = 0,
    folds: int = FOLDS,
    kind: Kind | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns each member's predictions of the examples it was not fitted to.

    Args:
      x: float [N, F], finite and scaled.
      r: float [N, K], labels, one-hot or soft.
      strata: int [N], given labels, spread evenly over the folds.
      groups: int [N]; no fold parts a group; or None.
      sample_weight: float [N], not negative, or None.
      seed: of folds, models and, beyond `MAX_ROWS`, of the rows they are fitted to.
      folds: number of folds.
      kind: see `kind_of`, or None for features that a network made.

    Returns:
      M arrays [N, K], and the weights [M] with which they explain r best.

    Raises:
      UserError: fewer groups than two; no class has two examples.
    """
    k = r.shape[1]
    makers = members(kind or kind_of(*x.shape, k))
    found = [np.zeros(r.shape) for _ in makers]
    for train, held in splits(strata, groups, folds, seed):
        models = _fit_members(makers, x, r, train, sample_weight, seed)
        for p, model in zip(found, models.values(), strict=True):
            p[held] = _predict(model, x[held], k)
    return found, blend_weights(found, r, sample_weight)


def fit(
    x: np.ndarray,
    r: np.ndarray,
    weights: np.ndarray,
    *,
    sample_weight: np.ndarray | None = None,
    seed: int = 0,
    kind: Kind | None = None,
) -> Blend:
    """Returns the blend fitted to all examples; arguments as in `cross_validated`."""
    makers = members(kind or kind_of(*x.shape, r.shape[1]))
    models = _fit_members(makers, x, r, np.arange(len(x)), sample_weight, seed)
    mass = np.ones(len(r)) if sample_weight is None else sample_weight
    prior = mass @ r
    return Blend(models=models, weights=weights, prior=prior / prior.sum())


def splits(
    strata: np.ndarray, groups: np.ndarray | None, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (training rows, held-out rows) of stratified folds that part no group."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = len(strata) if groups is None else len(np.unique(groups))
    folds = min(folds, count, max(2, int(np.bincount(strata).max())))
    check(
        int(np.bincount(strata).max()) > 1,
        "No class has two examples: labels cannot be judged by cross-validation.",
    )
    check(folds > 1, "All examples belong to one group: predictions need two groups or more.")
    check(
        groups is not None or int(np.bincount(strata).max()) > 1,
        "No class has two examples: labels cannot be judged by examples of the same class.",
    )
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from kind(folds, shuffle=True, random_state=seed).split(strata, strata, groups)


def _fit_members(makers, x, r, rows, sample_weight, seed) -> dict[str, Any]:
    """Fits each member to `rows`, an example once per class with the weight of its soft label."""
    if len(rows) > MAX_ROWS:
        rows = np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False)
    mass = r[rows] if sample_weight is None else r[rows] * sample_weight[rows, None]
    row, label = np.nonzero((r[rows] > SOFT) & (mass > 0))
    x, mass = x[rows[row]], mass[row, label]
    fitted = {}
    threads = 1 if x.size < ONE_THREAD else None  # threads that wait for each other cost more
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.filterwarnings("ignore", message=".*failed to converge.*")
        for name, make in makers.items():
            fitted[name] = _fit_one(make(seed), x, label, mass)
    return fitted


def _fit_one(model: Any, x: np.ndarray, label: np.ndarray, mass: np.ndarray) -> Any:
    if len(np.unique(label)) < 2:
        from sklearn.dummy import DummyClassifier

        model = DummyClassifier()
    return model.fit(x, label, sample_weight=mass)


def _predict(model: Any, x: np.ndarray, k: int) -> np.ndarray:
    p = np.zeros((len(x), k))
    p[:, model.classes_] = model.predict_proba(x)
    return p


class Study(NamedTuple):
    """What cross-validated models say of labels.

    Attributes:
      probabilities: float64 [N, K], out-of-sample predictions of the given labels and
      true_probabilities: float64 [N, K], of the true ones: evidence for `find_label_issues`.
      posterior: float64 [N, K], probability that each class is the true label.
      weights: float64 [M], of the blend that is fitted to the posterior, see `fit`.
    """

    probabilities: np.ndarray
    true_probabilities: np.ndarray
    posterior: np.ndarray
    weights: np.ndarray


def study(
    x: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    groups: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    seed: int = 0,
    folds: int = FOLDS,
    kind: Kind | None = None,
) -> Study:
    """Judges labels by models that have not seen them, twice.

    The first round is fitted to the given labels; the posterior of its noise model (see
    `noise_model`) gives soft labels, to which the second round is fitted. Where labels are wrong,
    the second round says more surely what is right; where they are right, the two agree.

    Args:
      x: float [N, F], finite and scaled; see `tabular.Encoder.transform`.
      labels: int [N], given.
      num_classes: K.
      groups, sample_weight, seed, folds, kind: see `cross_validated`.

    Raises:
      UserError: see `cross_validated`.
    """
    shared = {
        "strata": labels,
        "groups": groups,
        "sample_weight": sample_weight,
        "seed": seed,
        "folds": folds,
        "kind": kind,
    }
    given = np.eye(num_classes)[labels]
    first = blended(*cross_validated(x, given, **shared))
    members_p, weights = cross_validated(x, posterior(first, labels), **shared)
    second = blended(members_p, weights)
    return Study(first, second, posterior(second, labels), weights)


def posterior(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns r float64 [N, K], the posterior of the true label, of out-of-sample predictions p
    [N, K], with the noise matrix held at the confident joint; see `decision`."""
    fitted = decision.fit(p, labels)
    z = noise_model.log_predictions(p, fitted.inverse)
    return noise_model.posterior(fitted.held, z, labels)[0].astype(np.float64)
