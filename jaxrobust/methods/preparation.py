"""What is found anew before every epoch: ranks, predictions, metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrobust import losses
from jaxrobust.methods.metadata import Metadata
from jaxrobust.objectives import ranks_by_class


def preparation(
    labels: jax.Array,
    num_classes: int,
    *,
    num_ranks: int | None = None,
    predict: bool = False,
    metadata: Metadata | None = None,
    scores: Callable[[dict[str, Any]], jax.Array] | None = None,
) -> dict[str, Any]:
    """Returns `prepare` and `reads_logits` of a `Pass`; {} if there is nothing to prepare.

    Args:
      labels: int32 [N], given.
      num_ranks: R, if memory["rank"] [N] is wanted: ranks of the losses within the given class.
      predict: whether memory["prediction"] [N] is wanted.
      metadata: chosen anew, if it is one that chooses.
      scores: `scores(memory) -> [N]`, what it is chosen by, the lower the better; None: by
        cross-entropy, as the ranks are.
    """
    choose = None if metadata is None else metadata.choose
    ranks = num_ranks is not None
    reads_logits = ranks or predict or (choose is not None and scores is None)
    if not reads_logits and choose is None:
        return {}

    def prepare(state, logits, key, epoch):
        del epoch
        memory, loss = dict(state.memory), None
        if reads_logits:
            logits = logits[: len(labels)]
            loss = losses.cross_entropy(logits, labels)
        if ranks:
            memory["rank"] = ranks_by_class(loss, labels, num_classes, num_ranks)
        if predict:
            memory["prediction"] = jnp.argmax(logits, -1).astype(jnp.int32)
        if choose is not None:
            memory = choose(memory, loss if scores is None else scores(memory), key)
        return state._replace(memory=memory)

    return {"prepare": prepare, "reads_logits": reads_logits}
