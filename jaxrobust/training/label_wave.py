"""Label Wave: the epoch to stop at, found in the training predictions alone.

While a network learns what the classes have in common, its predictions on the training examples
settle; when it begins to fit wrong labels, they change more again. The first minimum of the changes
from epoch to epoch is the epoch to take. No held-out data and no clean labels are needed.

Source: Yuan, Feng & Liu 2024, arXiv 2502.07551 (ICLR 2024). As in their released program the
predictions are those that the training steps make, each example's as it is met; the program logs
the counts and does not choose. The moving average and the patience are this library's.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.data.batches import Batch
from jaxrobust.methods.method import StepInfo

WINDOW = 3  # epochs of the moving average
PATIENCE = 3  # epochs without a lower value after which the minimum stands


def smooth(changes: Sequence[float], window: int = WINDOW) -> np.ndarray:
    """Returns the mean of each value and up to `window` - 1 before it, float [E]."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(changes, np.float64))])
    end = np.arange(1, len(sums))
    begin = np.maximum(end - window, 0)
    return (sums[end] - sums[begin]) / (end - begin)


def first_minimum(
    changes: Sequence[float], window: int = WINDOW, patience: int = PATIENCE
) -> int | None:
    """Returns the position of the first minimum of the smoothed changes, or None of no changes.

    The minimum stands once `patience` epochs have brought no lower value; later ones, however low,
    are not looked at: a network that has fitted the wrong labels is calm too.

    Args:
      changes: fraction of the training examples whose prediction changed, an epoch each.
      window: epochs of the moving average.
      patience: see above.

    Example:
      >>> first_minimum([0.5, 0.3, 0.2, 0.3, 0.4, 0.4, 0.1, 0.0], window=1)
      2
    """
    values, best = smooth(changes, window), None
    for position, value in enumerate(values):
        if best is None or value < values[best]:
            best = position
        elif position - best >= patience:
            break
    return best


def with_changes(predicted: jax.Array, batch: Batch, info: StepInfo) -> StepInfo:
    """Adds "prediction_changes" to a step's numbers: the fraction of the batch that changed.

    Args:
      predicted: int32 [N], each example's class when it was last met, -1 before the first time,
        which counts as a change.
      batch: see `data.batches.Batch`.
      info: of the step.
    """
    changed = jnp.argmax(info.logits, -1) != predicted[batch["index"]]
    count = jnp.maximum(jnp.sum(batch["where"]), 1)
    fraction = jnp.sum(changed & batch["where"]) / count
    return info._replace(scalars=info.scalars | {"prediction_changes": fraction})
