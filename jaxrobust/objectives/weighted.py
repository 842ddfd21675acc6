"""Composition: the weights that one objective gives, on the losses of another.

Symbols as in `objective`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxrobust.objectives.objective import Batch, Objective


def fixed(loss: Callable[[jax.Array, Batch], jax.Array]) -> Objective:
    """Returns `loss(logits, batch) -> [B]` as an objective with nothing to learn: phi is {}.

    Example:
      >>> from jaxrobust import losses
      >>> objective = fixed(lambda logits, batch: losses.cross_entropy(logits, batch["labels"]))
      >>> float(objective.loss({}, jax.numpy.zeros((1, 2)), {"labels": jax.numpy.array([0])})[0])
      0.6931471824645996
    """
    return Objective(lambda key: {}, lambda phi, logits, batch: loss(logits, batch))


def weighted(weigher: Objective, base: Objective, smoothing: float = 1.0) -> Objective:
    """Returns w * loss, w the weights of `weigher` and the loss that of `base`.

    phi is {"weigher": ..., "base": ...}; the batch holds what both read. Where it also holds
    "last_weight" [B], the weight that an example had before, the weight is
    a * w + (1 - a) * last_weight.

    Args:
      weigher: an objective with weights; its loss is not used.
      base: any objective: a loss (see `fixed`) or one that learns, as the dynamic loss.
      smoothing: a, in (0, 1]; smaller is smoother.
    """

    def init(key):
        weigher_key, base_key = jax.random.split(key)
        return {"weigher": weigher.init(weigher_key), "base": base.init(base_key)}

    def weights(phi, logits, batch):
        new = weigher.weights(phi["weigher"], logits, batch)
        if smoothing == 1 or "last_weight" not in batch:
            return new
        return smoothing * new + (1 - smoothing) * batch["last_weight"]

    def loss(phi, logits, batch):
        return weights(phi, logits, batch) * base.loss(phi["base"], logits, batch)

    def restart(phi):
        return phi | {
            name: part.restart(phi[name])
            for name, part in (("weigher", weigher), ("base", base)) if part.restart is not None
        }

    restarts = weigher.restart is not None or base.restart is not None
    return Objective(init, loss, base.observe, weights, restart if restarts else None)
