"""The methods: short lists of stages, made of losses, objectives and the bilevel step.

`make` turns the settings of a run into a `Method`. To add one: write a function that returns a
`Method`, a builder that hands it the settings it needs, and put the builder into `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxrobust import losses, objectives
from jaxrobust.data import batches
from jaxrobust.errors import check
from jaxrobust.methods.dynamic_loss import Sampling, dynamic_loss, dynamic_loss_steps
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.methods.supervised import make_loss, supervised
from jaxrobust.networks import Network

__all__ = ["METHODS", "Method", "Pass", "Stage", "StepInfo", "TrainState",
           "dynamic_loss", "dynamic_loss_steps", "make", "make_loss", "supervised"]


def loss_of(config: ConfigDict, class_counts: jax.Array):
    """Returns the loss that a configuration names, see `make_loss`."""
    values = config.loss.to_dict()
    name = values.pop("name")
    reweight = {key: values.pop(key) for key in ("reweight_from", "reweight_beta")}
    hyper = {key: value for key, value in values.items() if value is not None}
    return make_loss(
        name, hyper, epochs=config.train.epochs, class_counts=jnp.asarray(class_counts), **reweight
    )


def base_loss_of(config: ConfigDict, class_counts: jax.Array):
    """Returns the loss that a configuration names, for an objective: it may not change in time.

    Raises:
      UserError: a loss with a schedule or with random draws.
    """
    name, loss = config.loss.name, loss_of(config, class_counts)
    check(
        name not in losses.SCHEDULES and "key" not in losses.needs(name),
        f"Loss {name!r} changes while training; method.name={config.method.name} needs one that "
        "does not, such as ce or gce.",
    )

    def base_loss(logits, labels, where=None):
        return loss(logits, labels, epoch=0, key=None, where=where)

    return base_loss


def _supervised(config, network, make_optimizer, views, *, example, labels, class_counts):
    t, num_examples = config.train, len(labels)
    steps = batches.num_steps(num_examples, t.batch_size, t.drop_last)
    return supervised(
        network, loss_of(config, class_counts), make_optimizer(((t.epochs, steps),)), views(),
        example=example, num_examples=num_examples, batch_size=t.batch_size, epochs=t.epochs,
        drop_last=t.drop_last,
    )


def _dynamic_loss(
    config, network, make_optimizer, views, *, example, labels, class_counts
):
    m, t, num_examples = config.method, config.train, len(labels)
    chosen = Sampling(m.candidates, m.kept, m.by_loss)
    objective = objectives.dynamic_loss(
        len(class_counts), m.num_ranks, m.hidden, corrector=m.corrector, margin=m.margin,
        shared_weight=m.shared_weight, base_loss=base_loss_of(config, class_counts),
    )
    stages = dynamic_loss_steps(
        num_examples, class_counts, batch_size=t.batch_size, epochs=t.epochs,
        warmup_epochs=m.warmup_epochs, chosen=chosen, fine_tune=m.fine_tune,
    )
    return dynamic_loss(
        network, objective, make_optimizer(stages), optax.adam(m.meta_learning_rate),
        views(m.weak_view), views(), example=example, labels=labels, class_counts=class_counts,
        batch_size=t.batch_size, meta_batch_size=m.meta_batch_size or t.batch_size,
        epochs=t.epochs, warmup_epochs=m.warmup_epochs, fit_steps=m.fit_steps,
        num_ranks=m.num_ranks, chosen=chosen, fine_tune=m.fine_tune, mixup_alpha=m.mixup_alpha,
        meta_every=m.meta_every, skip=m.skip_stages, look_ahead_steps=m.look_ahead_steps,
        hypergradient=m.hypergradient, bottom_batch_norm=m.bottom_batch_norm,
    )


METHODS = {"supervised": _supervised, "dynamic_loss": _dynamic_loss}


def make(
    config: ConfigDict,
    network: Network,
    make_optimizer: Callable[..., optax.GradientTransformation],
    views: Callable[..., Any],
    *,
    example: jax.Array,
    labels: jax.Array,
    num_classes: int,
) -> Method:
    """Builds the method that a configuration names.

    Args:
      make_optimizer: `make_optimizer(stages)`, stages as `training.optimizers.make_schedule` has.
      views: `views(kind)` makes a view; `views()` the configured one.
      example: one raw batch, for its shape.
      labels: int32 [N], given labels of the training data.
      num_classes: K.
    """
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    return METHODS[config.method.name](
        config, network, make_optimizer, views, example=example, labels=labels,
        class_counts=counts,
    )
