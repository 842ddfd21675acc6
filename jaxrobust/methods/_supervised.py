"""Supervised training with any loss: one stage, one pass, one gradient a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.data import batches
from jaxrobust.errors import check
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, View
from jaxrobust.methods.updates import mean_loss, plain_start, plain_update
from jaxrobust.networks import Network

LossOfEpoch = Callable[..., jax.Array]
"""`loss(logits, labels, *, epoch, key, where) -> [B]`."""


def make_loss(
    name: str,
    hyper: dict[str, Any],
    *,
    epochs: int,
    class_counts: jax.Array,
    reweight_from: int | None = None,
    reweight_beta: float = 0.9999,
) -> LossOfEpoch:
    """Binds a loss to its hyper-parameters, to the class sizes, and to its schedule.

    A loss asks by keyword for what training supplies: `key`, `class_counts`. With
    `reweight_from` the loss of an example is multiplied, from that epoch on, by its given
    class's effective-number weight (Cui et al. 2019; deferred as in Cao et al. 2019).

    Args:
      name: short name of the loss.
      hyper: the user's hyper-parameters; those left out take the loss's own defaults.
      epochs: for the schedule of losses that change while training.
      class_counts: int [K], given labels in the training data.

    Raises:
      UserError: a hyper-parameter that the loss does not take.

    Example:
      >>> loss = make_loss("gce", {"q": 1.0}, epochs=10, class_counts=jnp.array([5, 5]))
      >>> print(loss(jnp.zeros((1, 2)), jnp.array([0]), epoch=0, key=None))
      [0.5]
    """
    function, takes, needs = losses.get(name), losses.settings(name), losses.needs(name)
    for key in hyper:
        check(key in takes, f"Loss {name!r} has no {key!r}; it has: {', '.join(takes) or 'none'}.")
    fixed = {"class_counts": class_counts} if "class_counts" in needs else {}
    class_weights = losses.effective_number_weights(class_counts, beta=reweight_beta)

    def loss(logits, labels, *, epoch, key, where=None):
        drawn = {"key": key} if "key" in needs else {}
        now = losses.at_epoch(name, hyper, epoch, epochs)
        value = function(logits, labels, **now, **fixed, **drawn, where=where)
        if reweight_from is not None:
            weights = losses.deferred_weights(epoch, reweight_from, class_weights)
            hard = labels.ndim < logits.ndim
            value = value * (jnp.take(weights, labels) if hard else labels @ weights)
        return value

    return loss


def supervised(
    network: Network,
    loss: LossOfEpoch,
    optimizer: optax.GradientTransformation,
    view: View,
    *,
    example: jax.Array,
    num_examples: int,
    batch_size: int,
    epochs: int,
    drop_last: bool = False,
) -> Method:
    """Returns plain training: every epoch meets every example once.

    Args:
      network: see `jaxrobust.networks`.
      loss: see `make_loss`.
      optimizer: any optax optimiser.
      view: `view(key, x) -> x`, augmentation and normalisation.
      example: one batch of raw examples [B, ...], for its shape.
      num_examples: rows 0 ... num_examples-1 of the data are trained on.

    Raises:
      UserError: the batch is larger than the data.
    """
    check(
        batch_size <= num_examples, f"batch_size={batch_size} exceeds {num_examples} examples."
    )

    def init(key):
        return plain_start(network, optimizer, view, example, key)

    def step(state, batch, meta_batch, key, epoch):
        del meta_batch
        view_key, loss_key = jax.random.split(key)
        x = view(view_key, batch["x"])

        def objective(logits):
            value = loss(logits, batch["labels"], epoch=epoch, key=loss_key, where=batch["where"])
            return mean_loss(value, batch)

        state, value, logits = plain_update(network, optimizer, state, x, objective)
        return state, StepInfo(logits, {"loss": value})

    def order(state, key, epoch):
        del state, epoch
        rows = jnp.arange(num_examples, dtype=jnp.int32)
        return batches.shuffled(key, rows, batch_size, drop_last)

    return Method(init, (Stage("train", epochs, (Pass("train", step, order),)),))
