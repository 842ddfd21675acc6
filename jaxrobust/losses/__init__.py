"""Losses for noisy labels and long-tailed classes: logits and labels in, loss per example out.

Every loss is a pure function `loss(logits, labels, *, ..., where=None)`:

- `logits`: `[..., K]` floating; half precision is computed in float32. A logit of -inf (or below
  -1e15) rules its class out: the loss and its gradient are finite for every other label.
- `labels`: integers `[...]` of any width, or distributions `[..., K]`. An index outside 0…K-1, or a
  distribution that does not sum to one, is an error where the labels are concrete values; inside
  `jit` the index gives NaN. Mask such rows.
- `where`: bool `[...]`; rows with False give 0 and no gradient, even if they hold NaN.
- It returns `[...]`, never reduced: see `mean`.

`LOSSES` holds them by short name. `MEMORY_LOSSES` (`elr`, `selc`) need a state per example as well,
`VIEW_LOSSES` (`gjs`) the logits of several views. `clip_logits` bounds the logits of any loss.

Hyper-parameters are keyword-only scalars, default to the values of the released programs and may
be traced (differentiated, scheduled inside jit), except counts of iterations and draws. Two
more keywords come from the training loop (`needs`): `key`, a PRNG key for the step, and
`class_counts` `[K]`.

>>> import jax.numpy as jnp
>>> loss = get("gce")
>>> print(loss(jnp.zeros((2, 4)), jnp.array([0, 3]), q=1.0))
[0.75 0.75]
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxrobust.errors import check, choose
from jaxrobust.losses.table import Table

if TYPE_CHECKING:  # for type checkers and the API reference; imported when first used
    from jaxrobust.losses.active_negative import (
        normalized_and_negative_cross_entropy,
        normalized_and_negative_focal,
    )
    from jaxrobust.losses.asymmetric import (
        asymmetric_mean_error,
        joint_asymmetric,
        joint_asymmetric_focal,
    )
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
        generalized_jensen_shannon,
        jensen_shannon,
        sparse_regularized_cross_entropy,
    )
    from jaxrobust.losses.eps_softmax import (
        eps_softmax_cross_entropy,
        eps_softmax_focal,
    )
    from jaxrobust.losses.logit_clip import clip_logits
    from jaxrobust.losses.long_tail import (
        balanced_softmax,
        deferred_weights,
        effective_number_weights,
        label_distribution_aware_margin,
        logit_adjusted,
    )
    from jaxrobust.losses.memory import Memory, elr, elr_update, selc, selc_update
    from jaxrobust.losses.negative import negative_learning
    from jaxrobust.losses.validation import mean

LOSSES = Table(
    __name__,
    {
        "ce": "cross_entropies:cross_entropy",
        "mae": "cross_entropies:mean_absolute_error",
        "rce": "cross_entropies:reverse_cross_entropy",
        "nce": "cross_entropies:normalized_cross_entropy",
        "gce": "cross_entropies:generalized_cross_entropy q",
        "sce": "cross_entropies:symmetric_cross_entropy alpha beta",
        "tce": "cross_entropies:taylor_cross_entropy order",
        "agce": "cross_entropies:asymmetric_generalized_cross_entropy a q",
        "nce_rce": "cross_entropies:normalized_and_reverse_cross_entropy alpha beta",
        "nce_agce": "cross_entropies:normalized_and_asymmetric_cross_entropy alpha beta a q",
        "js": "divergences:jensen_shannon pi",
        "bi_tempered": "divergences:bi_tempered_logistic t1 t2 num_iters",
        "ce_sr": "divergences:sparse_regularized_cross_entropy tau p lamb rho",
        "nlnl": "negative:negative_learning num_negatives",
        "dal": "dal:dynamics_aware q_start q_end hard",
        "ldam": "long_tail:label_distribution_aware_margin max_margin scale",
        "logit_adjusted": "long_tail:logit_adjusted tau",
        "balanced_softmax": "long_tail:balanced_softmax",
        "focal": "cross_entropies:focal gamma",
        "ame": "asymmetric:asymmetric_mean_error a q",
        "jal_ce": "asymmetric:joint_asymmetric alpha beta a",
        "jal_fl": "asymmetric:joint_asymmetric_focal alpha beta a gamma",
        "anl_ce": "active_negative:normalized_and_negative_cross_entropy alpha beta min_prob",
        "anl_fl": "active_negative:normalized_and_negative_focal alpha beta gamma min_prob",
        "eps_softmax_ce_mae": "eps_softmax:eps_softmax_cross_entropy m alpha beta eps",
        "eps_softmax_fl_mae": "eps_softmax:eps_softmax_focal m alpha beta gamma eps",
    },
)
"""Every loss by its short name, which `--config.loss.name` and `get` take: where the function is,
and the hyper-parameters that a configuration may set (of its schedule, where it has one)."""

MEMORY_LOSSES = Table(
    __name__,
    {
        "elr": "memory:ELR lamb beta",
        "selc": "memory:SELC momentum es",
    },
)
"""Losses with a state per example, as `Memory` records: `--config.loss.name` takes them as well."""

VIEW_LOSSES = Table(__name__, {"gjs": "divergences:generalized_jensen_shannon weights scaled"})
"""Losses of several views of each example: `loss(logits [M, ..., K], labels [...])`."""

SCHEDULES = Table(__name__, {"dal": "dal:dal_keywords", "ce_sr": "dal:ce_sr_keywords"})
"""Of losses whose hyper-parameters change: `(epoch, epochs, **settings) -> keyword arguments`."""

_SUPPLIED = ("key", "class_counts")
_NOT_SET = (*_SUPPLIED, "complementary_labels", "where")
_CLIPPED = "logit_clip_"


def get(name: str) -> Callable[..., Any]:
    """Returns the loss of this name.

    Args:
      name: short, as in `LOSSES` and `VIEW_LOSSES`, or the function's own ("cross_entropy"); with
        "logit_clip_" before a short name the loss takes `tau`, `p` and `threshold` of `clip_logits`
        as well.

    Raises:
      UserError: there is none; the message gives the nearest name.
    """
    check(isinstance(name, str), f"A loss is named by a text, such as 'gce', not {name!r:.60}.")
    if name.startswith(_CLIPPED) and name[len(_CLIPPED) :] in LOSSES:
        return _clipped(name[len(_CLIPPED) :])
    for table in (LOSSES, VIEW_LOSSES):
        for short in table:
            if name in (short, table.function(short)):
                return table[short]
    return LOSSES[choose("loss", name, LOSSES)]


@functools.cache
def _clipped(name: str) -> Callable[..., Any]:
    base = LOSSES[name]
    taken = {"p", "tau"} & set(inspect.signature(base).parameters)
    check(
        not taken,
        f"{_CLIPPED}{name}: {name} has a {min(taken, default='')} of its own;"
        " use losses.clip_logits.",
    )
    return importlib.import_module(f"{__name__}.logit_clip").clipped_loss(base)


def needs(name: str) -> tuple[str, ...]:
    """Returns what the training loop passes to this loss by keyword: of "key", "class_counts".

    Args:
      name: short name of a loss.

    Raises:
      UserError: as `get`.

    >>> needs("nlnl")
    ('key', 'class_counts')
    """
    parameters = inspect.signature(get(name)).parameters
    return tuple(keyword for keyword in _SUPPLIED if keyword in parameters)


def settings(name: str) -> dict[str, Any]:
    """Returns what a user may set for this loss, with the defaults.

    Its hyper-parameters; where a schedule moves them, the schedule's own.

    Args:
      name: short name of a loss.

    Raises:
      UserError: as `get`.

    >>> settings("dal")
    {'q_start': 0.6, 'q_end': 1.5, 'hard': False}
    >>> settings("gce")
    {'q': 0.7}
    """
    if name in MEMORY_LOSSES:
        return dict(MEMORY_LOSSES[name].defaults)
    loss = SCHEDULES[name] if name in SCHEDULES else get(name)
    keywords = [
        p
        for p in inspect.signature(loss).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in _NOT_SET
    ]
    return {p.name: p.default for p in keywords}


def at_epoch(name: str, values: Mapping[str, Any], epoch: Any, epochs: Any) -> dict[str, Any]:
    """Returns the keyword arguments of this loss in an epoch, from the `values` of `settings`.

    Args:
      name: see `get`.
      values: settings by name; those left out keep their defaults.
      epoch: counted from 0, shape `[]`; may be traced.
      epochs: length of the training.

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


_ELSEWHERE = {
    "Memory": "memory",
    "ce_sr_schedule": "dal",
    "clip_logits": "logit_clip",
    "dal_schedule": "dal",
    "deferred_weights": "long_tail",
    "effective_number_weights": "long_tail",
    "elr": "memory",
    "elr_update": "memory",
    "mean": "validation",
    "selc": "memory",
    "selc_update": "memory",
}


def __getattr__(name: str) -> Any:
    for table in (LOSSES, VIEW_LOSSES):
        for short in table:
            if name == table.function(short):
                return table[short]
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "LOSSES",
    "MEMORY_LOSSES",
    "Memory",
    "SCHEDULES",
    "VIEW_LOSSES",
    "asymmetric_generalized_cross_entropy",
    "asymmetric_mean_error",
    "at_epoch",
    "balanced_softmax",
    "bi_tempered_logistic",
    "ce_sr_schedule",
    "clip_logits",
    "cross_entropy",
    "dal_schedule",
    "deferred_weights",
    "dynamics_aware",
    "effective_number_weights",
    "elr",
    "elr_update",
    "eps_softmax_cross_entropy",
    "eps_softmax_focal",
    "focal",
    "generalized_cross_entropy",
    "generalized_jensen_shannon",
    "get",
    "jensen_shannon",
    "joint_asymmetric",
    "joint_asymmetric_focal",
    "label_distribution_aware_margin",
    "logit_adjusted",
    "mean",
    "mean_absolute_error",
    "needs",
    "negative_learning",
    "normalized_and_asymmetric_cross_entropy",
    "normalized_and_negative_cross_entropy",
    "normalized_and_negative_focal",
    "normalized_and_reverse_cross_entropy",
    "normalized_cross_entropy",
    "reverse_cross_entropy",
    "selc",
    "selc_update",
    "settings",
    "sparse_regularized_cross_entropy",
    "symmetric_cross_entropy",
    "taylor_cross_entropy",
]
