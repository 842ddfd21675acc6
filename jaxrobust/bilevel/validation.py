"""Trace-time validation of the inputs of a bilevel step: one line, no error from within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxrobust.errors import UserError, check
from jaxrobust.objectives import Objective

_WRONG_USE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def check_objective(objective: Any) -> None:
    """Raises `UserError` unless `objective` is an `Objective` or a record with its fields."""
    check(
        all(hasattr(objective, name) for name in Objective._fields),
        "make_bilevel: the objective must be an Objective, as jaxrobust.objectives.dynamic_loss(10)"
        f" makes one, not {type(objective).__name__!r}.",
    )


def check_batch(batch: Any) -> None:
    """Raises `UserError` unless the batch is a dictionary with "x", and without "real_step"."""
    entries = f" of {', '.join(sorted(batch))}" if isinstance(batch, dict) else ""
    check(
        isinstance(batch, dict) and "x" in batch and bool(jax.tree.leaves(batch["x"])),
        "step: a batch must be a dictionary with 'x', 'labels' and what the objective reads, not a "
        f"{type(batch).__name__}{entries}.",
    )
    check(
        "real_step" not in batch,
        "step: batch['real_step'] is from version 0.1.0; now the batch is what the real step sees, "
        "and what the look-ahead sees is step(..., look_ahead=...).",
    )


def check_step(apply: Callable, objective: Objective, observe: Callable, state: Any, batch: Any):
    """Traces the network and the objective once by themselves.

    Args:
      apply: `apply(params, state, x, train) -> (logits, state)`.
      observe: `observe(logits, batch) -> batch`, what is drawn from the logits.

    Raises:
      UserError: the batch lacks what the objective reads; the network is called or answers
        otherwise; the loss cannot be computed from logits and batch.
    """
    found = _traced(
        "make_bilevel: the network must be apply(params, state, x, train) -> (logits, state), such "
        "as lambda params, state, x, train: (module.apply({'params': params}, x), state)",
        lambda: apply(state.params, state.network_state, batch["x"], True),
    )
    size = jax.numpy.shape(jax.tree.leaves(batch["x"])[0])[:1]
    check(
        isinstance(found, tuple)
        and len(found) == 2
        and getattr(found[0], "ndim", 0) == 2
        and found[0].shape[:1] == size,
        "make_bilevel: the network must return (logits [B, K], state), not "
        f"{jax.tree.map(lambda leaf: list(leaf.shape), found)} for x "
        f"{jax.tree.map(lambda leaf: list(jax.numpy.shape(leaf)), batch['x'])}.",
    )
    logits = found[0]
    labels = f" and labels {list(jax.numpy.shape(batch['labels']))}" if "labels" in batch else ""
    loss = _traced(
        f"step: the objective's loss of logits {list(logits.shape)}{labels}",
        lambda z: objective.loss(state.meta_params, z, observe(z, batch)),
        logits,
    )
    check(
        loss.shape == size,
        f"step: the objective's loss must be one value an example, {list(size)}, not "
        f"{list(loss.shape)}.",
    )


def _traced(what: str, function: Callable, *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{what} needs {error}, which is not there.") from error
    except _WRONG_USE as error:
        raise UserError(f"{what}: {str(error).splitlines()[0]}") from error
