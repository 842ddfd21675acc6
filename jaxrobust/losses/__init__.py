"""Losses that bear wrong labels and unequal classes: logits and labels in, loss per example out.

Every loss is a pure function `loss(logits, labels, *, ..., where=None)`:

- `logits`: `[..., K]` floating and finite; half precision is computed in float32.
- `labels`: integers `[...]`, or distributions `[..., K]`; an index is computed as its one-hot row.
  An index outside 0…K-1 gives NaN: mask such rows.
- `where`: bool `[...]`; rows with False give 0 and no gradient, even if they hold NaN.
- It returns `[...]`, never reduced: see `mean`.

Hyper-parameters are keyword-only scalars, default to the values of the released programs and may
be traced (differentiated, scheduled inside jit), but for counts of iterations and draws. Two
more keywords come from whoever trains (`needs`): `key`, a PRNG key for the step, and
`class_counts` `[K]`.

>>> import jax.numpy as jnp
>>> loss = get("gce")
>>> print(loss(jnp.zeros((2, 4)), jnp.array([0, 3]), q=1.0))
[0.75 0.75]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from jaxrobust.errors import choose
from jaxrobust.losses.cross_entropies import (
    asymmetric_generalized_cross_entropy,
    cross_entropy,
    focal,
    generalized_cross_entropy,
    mean_absolute_error,
    normalized_and_asymmetric_cross_entropy,
    normalized_and_reverse_cross_entropy,
    normalized_cross_entropy,
    reverse_cross_entropy,
    symmetric_cross_entropy,
    taylor_cross_entropy,
)
from jaxrobust.losses.dal import ce_sr_schedule, dal_schedule, dynamics_aware
from jaxrobust.losses.divergences import (
    bi_tempered_logistic,
    jensen_shannon,
    sparse_regularized_cross_entropy,
)
from jaxrobust.losses.long_tail import (
    balanced_softmax,
    deferred_weights,
    effective_number_weights,
    label_distribution_aware_margin,
    logit_adjusted,
)
from jaxrobust.losses.negative import negative_learning
from jaxrobust.losses.validation import mean

_SUPPLIED = ("key", "class_counts")
_NOT_SET = (*_SUPPLIED, "complementary_labels", "where")


def get(name: str) -> Callable:
    """Returns the loss of this short name; `UserError` with the nearest name if there is none."""
    return LOSSES[choose("loss", name, LOSSES)]


def needs(name: str) -> tuple[str, ...]:
    """Returns what the trainer passes to this loss by keyword: of "key", "class_counts".

    Errors: as `get`.

    >>> needs("nlnl")
    ('key', 'class_counts')
    """
    parameters = inspect.signature(get(name)).parameters
    return tuple(keyword for keyword in _SUPPLIED if keyword in parameters)


def settings(name: str) -> dict[str, float]:
    """Returns what a user may set for this loss, with the defaults.

    Its hyper-parameters; where a schedule moves them, the schedule's own. Errors: as `get`.

    >>> settings("dal")
    {'q_start': 0.6, 'q_end': 1.5, 'hard': False}
    >>> settings("gce")
    {'q': 0.7}
    """
    loss = get(name)
    parameters = inspect.signature(SCHEDULES.get(name, loss)).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _NOT_SET]
    return {p.name: p.default for p in keywords}


def at_epoch(name: str, values: Mapping[str, float], epoch, epochs) -> dict:
    """Returns the keyword arguments of this loss in an epoch, from the `values` of `settings`.

    `epoch` may be traced; `epochs` is the length of the training.

    Raises:
      UserError: no such loss, or a value that it does not take.

    >>> at_epoch("gce", {"q": 0.5}, 3, 10)
    {'q': 0.5}
    >>> at_epoch("ce_sr", {"tau": 0.5, "p": 0.1, "lamb": 2.0, "rho": 3.0}, 1, 10)
    {'tau': 0.5, 'p': 0.1, 'lamb': 6.0}
    """
    for key in values:
        choose(f"setting of loss {name}", key, settings(name))
    return SCHEDULES[name](epoch, epochs, **values) if name in SCHEDULES else dict(values)


def _dal(epoch, epochs, *, q_start=0.6, q_end=1.5, hard=False):
    q, lamb = dal_schedule(epoch, epochs, q_start=q_start, q_end=q_end)
    return {"q": q, "lamb": lamb, "hard": hard}


def _ce_sr(epoch, epochs, *, tau=0.5, p=0.01, lamb=8.0, rho=1.02):
    return {"tau": tau, "p": p, "lamb": ce_sr_schedule(epoch, lamb=lamb, rho=rho)}


SCHEDULES = {"dal": _dal, "ce_sr": _ce_sr}
"""Of losses whose hyper-parameters change: `(epoch, epochs, **settings) -> keyword arguments`."""

LOSSES = {
    "ce": cross_entropy,
    "mae": mean_absolute_error,
    "rce": reverse_cross_entropy,
    "nce": normalized_cross_entropy,
    "gce": generalized_cross_entropy,
    "sce": symmetric_cross_entropy,
    "tce": taylor_cross_entropy,
    "agce": asymmetric_generalized_cross_entropy,
    "nce_rce": normalized_and_reverse_cross_entropy,
    "nce_agce": normalized_and_asymmetric_cross_entropy,
    "js": jensen_shannon,
    "bi_tempered": bi_tempered_logistic,
    "ce_sr": sparse_regularized_cross_entropy,
    "nlnl": negative_learning,
    "dal": dynamics_aware,
    "ldam": label_distribution_aware_margin,
    "logit_adjusted": logit_adjusted,
    "balanced_softmax": balanced_softmax,
    "focal": focal,
}
"""Every loss by its short name, which `--config.loss.name` and `get` take."""

__all__ = [
    "LOSSES",
    "SCHEDULES",
    "asymmetric_generalized_cross_entropy",
    "at_epoch",
    "balanced_softmax",
    "bi_tempered_logistic",
    "ce_sr_schedule",
    "cross_entropy",
    "dal_schedule",
    "deferred_weights",
    "dynamics_aware",
    "effective_number_weights",
    "focal",
    "generalized_cross_entropy",
    "get",
    "jensen_shannon",
    "label_distribution_aware_margin",
    "logit_adjusted",
    "mean",
    "mean_absolute_error",
    "needs",
    "negative_learning",
    "normalized_and_asymmetric_cross_entropy",
    "normalized_and_reverse_cross_entropy",
    "normalized_cross_entropy",
    "reverse_cross_entropy",
    "settings",
    "sparse_regularized_cross_entropy",
    "symmetric_cross_entropy",
    "taylor_cross_entropy",
]
