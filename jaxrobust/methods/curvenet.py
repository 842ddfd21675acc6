"""CurveNet: probe, allocate, train on.

A first training records every example's loss curve; a second, of a fresh network, learns to turn
the curve into the example's weight, until the learning rate first drops; then the weights stay.
Source: Jiang et al. 2022 (AAAI), arXiv 2201.00849; defaults are those of the released program.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust.methods.allocate import Allocation
from jaxrobust.methods.method import Method, TrainState
from jaxrobust.methods.probe import Probe, class_means, empty_curves, probe_stages
from jaxrobust.networks import Network


def curve_slice(length: int, start: int | None = None, end: int | None = None) -> tuple[int, int]:
    """Returns the epochs [start, end) of a curve that CurveNet reads.

    Those of the released program, 5 to 298 of 300, in proportion, where not given.
    """
    return length // 60 if start is None else start, length - length // 300 if end is None else end


def curves_of(start: int, end: int) -> Callable[..., dict]:
    """Returns `attributes(memory, batch) -> batch` that adds "curve" [B, end - start].

    Less the mean curve of the given class: what `objectives.class_centred` does to all at once.
    """

    def attributes(memory, batch):
        curve = jnp.take(memory["curves"], batch["index"], axis=0).astype(jnp.float32)
        curve = curve - jnp.take(memory["class_means"], batch["labels"], axis=0)
        return batch | {"curve": curve[:, start:end]}

    return attributes


def mean_of_curves(num_examples: int, start: int, end: int) -> Callable[..., jax.Array]:
    """Returns `scores(memory) -> float32 [N]`, the mean loss over a curve; low where clean."""

    def scores(memory):
        return jnp.mean(memory["curves"][:num_examples, start:end], 1, dtype=jnp.float32)

    return scores


def curvenet(
    network: Network,
    allocate: Allocation,
    view: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    labels: jax.Array,
    num_classes: int,
    epochs: int,
    learn_epochs: int,
    probe: Probe | None = None,
    probe_optimizer: optax.GradientTransformation | None = None,
    curves: np.ndarray | None = None,
    curves_dtype: str = "float16",
) -> Method:
    """Returns probing, allocation, and training with the weights found.

    Source: Jiang et al. 2022, arXiv 2201.00849.

    Args:
      allocate: whose `first_epoch` is the number of epochs of the probe, with `curves_of`.
      view: of the training examples.
      labels: int32 [N], given.
      epochs: of the second training; `learn_epochs` of them learn the weights.
      probe, probe_optimizer: of the first training; the latter's state must be of the same
        structure as the allocation's. None: there are `curves`.
      curves: [N, T], of another training.
      curves_dtype: float16 or float32.
    """
    n, length = len(labels), probe.epochs if curves is None else curves.shape[1]

    def init(key):
        state = allocate.init(key)
        memory = state.memory | {
            "curves": empty_curves(n, length, curves_dtype),
            "class_means": jnp.zeros((num_classes, length), jnp.float32),
        }
        return state._replace(memory=memory)

    def begin(state, key):
        """The fresh network, optimiser and objective; the curves and their mean by class."""
        fresh, found = allocate.init(key), state.memory["curves"]
        if curves is not None:
            external = jnp.asarray(curves)
            largest = jnp.finfo(found.dtype).max.astype(external.dtype)
            found = found.at[:n].set(jnp.minimum(external, largest).astype(found.dtype))
        memory = fresh.memory | {
            "curves": found, "class_means": class_means(found, labels, num_classes)
        }
        return fresh._replace(step=state.step, memory=memory)

    def report(state: TrainState):
        return allocate.report(state) | {"curves": state.memory["curves"]}  # Uncut: no copy.

    stages = allocate.stages(epochs, learn_epochs, start=begin)
    if curves is None:
        stages = probe_stages(network, probe_optimizer, view, probe, n) + stages
    return Method(init, stages, report, spread=("curves",))
