"""Trace-time validation of the inputs of a bilevel step: one line, no error from within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

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


def check_optimizer(what: str, optimizer: Any) -> None:
    """Raises `UserError` unless `optimizer` is one of optax.

    Args:
      what: name of the argument, for the message.
      optimizer: what was given for it.
    """
    name = getattr(optimizer, "__name__", repr(optimizer))
    check(
        callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)),
        f"{what} must be an optimizer of optax, such as optax.sgd(0.1), not {name:.60}.",
    )


def init_optimizer(what: str, optimizer: Any, params: Any) -> Any:
    """Returns the optimizer's state for `params`; `UserError` if it takes no such parameters."""
    return explained(f"{what}: init(params)", lambda: optimizer.init(params))


def check_batch(batch: Any, what: str = "batch") -> None:
    """Raises `UserError` unless the batch is a dictionary with "x", and without "real_step".

    Args:
      batch: what the step was given.
      what: "batch", "metadata batch" or "look-ahead batch", for the message.
    """
    entries = f" of {', '.join(sorted(map(str, batch)))}" if isinstance(batch, dict) else ""
    check(
        isinstance(batch, dict) and "x" in batch and bool(jax.tree.leaves(batch["x"])),
        f"step: a {what} must be a dictionary with 'x', 'labels' and what the objective reads, not "
        f"a {type(batch).__name__}{entries}.",
    )
    check(
        "real_step" not in batch,
        "step: batch['real_step'] is from version 0.1.0; now the batch is what the real step sees, "
        "and what the look-ahead sees is step(..., look_ahead=...).",
    )
    labels = batch.get("labels")
    if labels is None:
        return
    first = jnp.shape(jax.tree.leaves(batch["x"])[0])[:1]
    check(
        jnp.shape(labels)[:1] == first,
        f"step: the {what} has 'labels' {list(jnp.shape(labels))} for {first[0] if first else 1} "
        "examples in 'x'.",
    )
    dtype = jnp.result_type(labels)
    check(
        jnp.ndim(labels) < 2 or jnp.issubdtype(dtype, jnp.floating),
        f"step: the {what} has 'labels' {list(jnp.shape(labels))} of {dtype}: pass int [B], or "
        "distributions over the classes as floats [B, K].",
    )


def losses_of(
    what: str, loss: Callable[..., jax.Array], logits: jax.Array, batch: dict[str, Any]
) -> jax.Array:
    """Returns the losses [B] of a batch: `loss(logits, batch)`, checked.

    An integer label outside 0 ... K-1, in a row that counts, makes that row's loss NaN: within a
    compiled step no row can be named, and an index beyond the end would give another row's value.

    Args:
      what: "objective's loss" or "meta-loss", for messages.
      loss: `(logits, batch) -> [B]`.
      logits: [B, K].
      batch: its "labels", if int [B], say which rows are NaN; "where" bool [B], which count.

    Raises:
      UserError: the batch lacks what the loss reads; shapes that do not fit.
    """
    labels = batch.get("labels")
    shape = "" if labels is None else f" and labels {list(jnp.shape(labels))}"
    values = explained(
        f"step: the {what} of logits {list(logits.shape)}{shape}", lambda: loss(logits, batch)
    )
    check(
        jnp.shape(values) == logits.shape[:1],
        f"step: the {what} must be one value per example, {list(logits.shape[:1])}, not "
        f"{list(jnp.shape(values))}.",
    )
    if labels is None or jnp.ndim(labels) != 1:
        return values
    inside = (labels >= 0) & (labels < logits.shape[1])
    if "where" in batch:
        inside |= ~jnp.asarray(batch["where"], bool)  # Padding rows may hold anything.
    return values * jnp.where(inside, 1, jnp.nan).astype(values.dtype)


def check_step(
    apply: Callable, objective: Objective, observe: Callable, state: Any, batch: Any
) -> None:
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
    size = jnp.shape(jax.tree.leaves(batch["x"])[0])[:1]
    check(
        isinstance(found, tuple)
        and len(found) == 2
        and getattr(found[0], "ndim", 0) == 2
        and found[0].shape[:1] == size,
        "make_bilevel: the network must return (logits [B, K], state), not "
        f"{jax.tree.map(lambda leaf: list(leaf.shape), found)} for x "
        f"{jax.tree.map(lambda leaf: list(jnp.shape(leaf)), batch['x'])}.",
    )
    logits = found[0]
    labels = f" and labels {list(jnp.shape(batch['labels']))}" if "labels" in batch else ""
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
    return explained(what, lambda: jax.eval_shape(function, *args))


def explained(
    what: str,
    function: Callable[[], Any],
    errors: tuple[type[Exception], ...] = _WRONG_USE,
) -> Any:
    """Returns `function()`; errors of a wrong use become a `UserError` of one line.

    Args:
      what: what is computed, the beginning of the line.
      function: computes it.
      errors: those that a wrong use raises; of a network, whose framework has its own, all.
    """
    try:
        return function()
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{what} needs {error}, which is not there.") from error
    except errors as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: {line}") from error
