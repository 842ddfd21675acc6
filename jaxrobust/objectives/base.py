"""Learned objectives: the record, its compositions, and the perceptron that they are made of.

Symbols: B batch, K classes, R ranks, T length of a loss curve, h hidden width, phi the parameters
of the learned objective, z logits [B, K].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax

from jaxrobust.errors import present

Batch = dict[str, Any]
"""Arrays with leading axis B: "labels" int32 [B] as given, and what else the objective reads."""


class BaseLoss(Protocol):
    """A loss without parameters, such as those of `jaxrobust.losses`."""

    def __call__(
        self, logits: Any, labels: Any, /, *, where: Any = None, **hyper: Any
    ) -> jax.Array:
        """Returns [B], for logits [B, K] and labels int [B] or distributions [B, K].

        Args:
          logits: [B, K].
          labels: int [B], or distributions [B, K].
          where: None or bool [B]; False rows give 0.
          **hyper: what the loss reads from the batch by keyword, see `dynamic_loss`.
        """
        ...


xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")  # not truncated


class Objective(NamedTuple):
    """A loss with parameters of its own, as pure functions.

    Attributes:
      init: `init(key) -> phi`.
      loss: `loss(phi, logits, batch) -> [B]`.
      observe: `observe(key, logits, batch) -> batch`, adds what is drawn from the logits of the
        look-ahead (pseudo-labels) and takes no part in any gradient; None if nothing is.
      weights: `weights(phi, logits, batch) -> [B]`, the weight of each example's given label, to
        be looked at; None if the objective has none.
      restart: `restart(phi) -> phi`, where every look-ahead starts; None: from phi itself.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, jax.Array, Batch], jax.Array]
    observe: Callable[[jax.Array, jax.Array, Batch], Batch] | None = None
    weights: Callable[[Any, jax.Array, Batch], jax.Array] | None = None
    restart: Callable[[Any], Any] | None = None


def example_weighted(objective: Any) -> Any:
    """Returns an objective whose loss is multiplied by batch["sample_weight"], where there is one.

    Args:
      objective: an `Objective`, or a record with more fields than that.
    """

    def loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        return objective.loss(phi, logits, batch) * batch.get("sample_weight", 1.0)

    return objective._replace(loss=loss)


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

    Raises:
      UserError: the weigher has no weights.
    """

    weigh = present(weigher.weights, "weighted: the weigher has no weights.")

    def init(key: jax.Array) -> Any:
        weigher_key, base_key = jax.random.split(key)
        return {"weigher": weigher.init(weigher_key), "base": base.init(base_key)}

    def weights(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        new = weigh(phi["weigher"], logits, batch)
        if smoothing == 1 or "last_weight" not in batch:
            return new
        return smoothing * new + (1 - smoothing) * batch["last_weight"]

    def loss(phi: Any, logits: jax.Array, batch: Batch) -> jax.Array:
        return weights(phi, logits, batch) * base.loss(phi["base"], logits, batch)

    def restart(phi: Any) -> dict[str, Any]:
        return phi | {
            name: part.restart(phi[name])
            for name, part in (("weigher", weigher), ("base", base))
            if part.restart is not None
        }

    restarts = weigher.restart is not None or base.restart is not None
    return Objective(init, loss, base.observe, weights, restart if restarts else None)


def _array(output: Any) -> jax.Array:
    """Returns what a module without mutable collections gives; Flax types it as a union."""
    return output


class Perceptron(nn.Module):
    """Dense layers with ReLU between; Xavier-normal kernels [in, out], biases 0 but the last.

    Attributes:
      widths: outputs of each layer.
      last_bias: initial value of the last layer's bias.
    """

    widths: tuple[int, ...]
    last_bias: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            bias = nn.initializers.constant(self.last_bias if last else 0.0)
            x = nn.Dense(width, kernel_init=xavier_normal, bias_init=bias, name=f"dense_{i}")(x)
            x = x if last else nn.relu(x)
        return x
