"""CurveNet: from an example's loss curve to its weight (Jiang et al. 2022, arXiv 2201.00849).

The curve is the example's training loss in each epoch of a probing run, less the mean curve of
its given class. Symbols as in `base`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust import losses
from jaxrobust.errors import check
from jaxrobust.objectives.base import BaseLoss, Batch, Objective, Perceptron, _array


class CurveNet(nn.Module):
    """w [B] = factor * sigmoid(net(curve, given label)) + bias (Jiang et al. 2022).

    T -> 2h -> 2h -> h and a ReLU; plus twice the embedding of the given label (as the released
    program does); then h -> 2h -> h -> 1. Called with curves [B, T] and labels int [B].

    Source: Jiang et al. 2022, arXiv 2201.00849.

    Raises:
      UserError: curves of another length than T.
    """

    num_classes: int
    length: int
    hidden: int = 64
    factor: float = 1.0
    bias: float = 0.02

    @nn.compact
    def __call__(self, curves: jax.Array, labels: jax.Array) -> jax.Array:
        h = self.hidden
        found = curves.shape[-1]
        check(found == self.length, f"CurveNet: curves have length {found}, not {self.length}.")
        xavier = nn.initializers.xavier_uniform()
        embedding = self.param("class_embedding", xavier, (self.num_classes, h))
        features = nn.relu(Perceptron((2 * h, 2 * h, h), name="curve_net")(curves))
        features = features + 2 * embedding[labels]
        weight = Perceptron((2 * h, h, 1), 4.5, name="weight_net")(features)[:, 0]
        return self.factor * nn.sigmoid(weight) + self.bias


def curve_weighted(
    num_classes: int,
    length: int,
    hidden: int = 64,
    *,
    factor: float = 1.0,
    bias: float = 0.02,
    base_loss: BaseLoss = losses.cross_entropy,
) -> Objective:
    """Returns w(curve, label) * base_loss(z, label) (Jiang et al. 2022).

    Source: Jiang et al. 2022, arXiv 2201.00849.

    The batch holds "labels" int [B] and "curve" float [B, T]. The sum of the losses is to be
    divided by B, not by the sum of the weights.

    Args:
      num_classes: K.
      length: T, of a curve.
      hidden: h, width of the perceptrons.
      factor, bias: of weight = factor * sigmoid + bias.
      base_loss: the loss that is weighted, see `BaseLoss`.
    """
    net = CurveNet(num_classes, length, hidden, factor, bias)

    def init(key: jax.Array) -> Any:
        return net.init(key, jnp.zeros((1, length)), jnp.zeros((1,), jnp.int32))["params"]

    def weights(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        del logits
        return _array(net.apply({"params": phi}, batch["curve"], batch["labels"]))

    def loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        value = base_loss(logits, batch["labels"], where=batch.get("where"))
        return weights(phi, logits, batch) * value

    return Objective(init, loss, weights=weights)


def class_centred(curves: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns loss curves less the mean curve of their given class.

    Source: Jiang et al. 2022, arXiv 2201.00849.

    Args:
      curves: [N, T].
      labels: int [N], given.
      num_classes: K.

    Returns:
      [N, T].

    Example:
      >>> print(class_centred(jnp.array([[4.0, 2.0], [2.0, 0.0]]), jnp.array([1, 1]), 2))
      [[ 1.  1.]
       [-1. -1.]]
    """
    sums = jax.ops.segment_sum(curves, labels, num_classes)
    counts = jnp.bincount(labels, length=num_classes)
    return curves - (sums / jnp.maximum(counts, 1)[:, None])[labels]
