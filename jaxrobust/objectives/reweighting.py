"""Two learned weightings of examples that the field compares with. Symbols as in `base`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.objectives.base import BaseLoss, Batch, Objective, Perceptron


def meta_weight_net(hidden: int = 100, *, base_loss: BaseLoss = losses.cross_entropy) -> Objective:
    """Returns w(l) * l with l the base loss and w a perceptron 1 -> hidden -> 1 and a sigmoid.

    The weight depends on the network through the loss, but no gradient flows that way. The method
    `meta_weight_net` takes these weights with l the cross-entropy, whatever loss it puts them on
    (see `weighted`): the weight is then a function of the cross-entropy. The batch holds "labels"
    int [B].

    Source: Shu et al. 2019, Meta-Weight-Net, arXiv 1902.07379, equations 1 and 6.

    Args:
      hidden: units of the perceptron.
      base_loss: l, see `BaseLoss`.
    """
    net = Perceptron((hidden, 1))

    def weigh(phi: Any, value: jax.Array) -> jax.Array:
        value = jax.lax.stop_gradient(value)
        return jax.nn.sigmoid(net.apply({"params": phi}, value[:, None]))[:, 0]

    def init(key: jax.Array) -> Any:
        return net.init(key, jnp.zeros((1, 1)))["params"]

    def weights(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        return weigh(phi, base_loss(logits, batch["labels"], where=batch.get("where")))

    def loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        value = base_loss(logits, batch["labels"], where=batch.get("where"))
        return weigh(phi, value) * value

    return Objective(init, loss, weights=weights)


def learning_to_reweight(
    batch_size: int, *, base_loss: BaseLoss = losses.cross_entropy
) -> tuple[Objective, optax.GradientTransformation]:
    """Returns an objective whose phi are the batch's own weights, and its meta-optimizer.

    Every look-ahead starts from weights 0, phi [B]; the meta-optimizer then sets them to
    max(0, -gradient), normalized to the sum B (to 0 where no gradient is negative), and the
    real step uses these. Nothing is carried from batch to batch. Of a batch that is filled up
    ("where"), the weights sum to the number of examples that count.

    Source: Ren et al. 2018, arXiv 1803.09050, algorithm 1.

    Args:
      batch_size: B, examples per batch, padding rows included.
      base_loss: the loss that is weighted, see `BaseLoss`.
    """

    def weights(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        del logits
        where = batch.get("where")
        return phi if where is None else phi * jnp.mean(where)

    def loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        value = base_loss(logits, batch["labels"], where=batch.get("where"))
        return weights(phi, logits, batch) * value

    def to_weights(grad: jax.Array, phi: Any) -> jax.Array:
        positive = jnp.maximum(-grad, 0)
        total = jnp.sum(positive)
        return batch_size * positive / jnp.where(total > 0, total, 1) - phi

    def update(grads: Any, state: Any, phi: Any) -> tuple[Any, Any]:
        return jax.tree.map(to_weights, grads, phi), state  # A tree: `optax.partition` masks it.

    objective = Objective(
        init=lambda key: jnp.zeros((batch_size,)),
        loss=loss,
        weights=weights,
        restart=jnp.zeros_like,
    )
    return objective, optax.GradientTransformation(lambda phi: optax.EmptyState(), update)
