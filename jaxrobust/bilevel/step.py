"""One training step of a network together with the objective it is trained on.

    look-ahead    theta' = U(grad_theta L(theta, phi), theta)    on the batch
    meta-step     phi <- meta-optimizer, on d M(theta') / d phi    on the metadata batch
    real step     theta <- U(grad_theta L(theta, phi), theta)    on the batch, with the new phi

Keep all three in one `jax.jit`: XLA then runs once what look-ahead and real step have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxrobust import losses
from jaxrobust.bilevel._hypergradient import hypergradient, update
from jaxrobust.bilevel.skip_layers import Parts, split
from jaxrobust.bilevel.validation import (
    check_batch,
    check_objective,
    check_optimizer,
    check_step,
    explained,
    init_optimizer,
    losses_of,
)
from jaxrobust.errors import check
from jaxrobust.objectives import Objective


class State(NamedTuple):
    """State of a bilevel step.

    A step takes any other NamedTuple with these entries too, and returns one of its type.

    Attributes:
      step: int32 [], real steps taken.
      params: theta, of the network.
      network_state: its other state, batch norm's running statistics; {} if none.
      opt_state: of theta's optimizer.
      meta_params: phi, of the objective.
      meta_opt_state: of phi's optimizer.
    """

    step: jax.Array
    params: Any
    network_state: Any
    opt_state: Any
    meta_params: Any
    meta_opt_state: Any


class Info(NamedTuple):
    """Diagnostics of a bilevel step; everything stays on the device until it is read.

    Attributes:
      loss: of the real step, before it.
      inner_loss: of the look-ahead, before it; 0 without meta-step.
      meta_loss: after the look-ahead; 0 without meta-step.
      meta_grad_norm: norm of the meta-gradient; 0 without meta-step.
      met: bool, whether there was a meta-step.
      effective_sample_size: of the objective's weights, in [1/B, 1]; 1 if it has none.
      weights: [B], those weights, with the new phi; None if it has none.
      logits: [B, K] of the real step.
    """

    loss: jax.Array
    inner_loss: jax.Array
    meta_loss: jax.Array
    meta_grad_norm: jax.Array
    met: jax.Array
    effective_sample_size: jax.Array
    weights: jax.Array | None
    logits: jax.Array


Batch = dict[str, Any]
"""Arrays by name, with leading axis B: "x", "labels", and what the objective reads."""


class Apply(Protocol):
    """A network as a pure function."""

    def __call__(
        self, params: Any, state: Any, x: jax.Array, train: bool, /
    ) -> tuple[jax.Array, Any]:
        """Returns (logits [B, K], state).

        Args:
          params: theta, any pytree.
          state: batch norm's running statistics, {} if there are none.
          x: [B, ...].
          train: whether batch norm uses the batch's statistics and updates the running ones.
        """
        ...


class MetaLoss(Protocol):
    """The loss by which the objective's parameters are judged."""

    def __call__(self, logits: jax.Array, batch: Batch, /, *phi: Any) -> jax.Array:
        """Returns [B], for logits [B, K] and a batch of the meta set.

        With `direct_term` it is also given phi, the objective's parameters.
        """
        ...


class Init(Protocol):
    """The start of a bilevel training."""

    def __call__(self, key: jax.Array, params: Any, network_state: Any = None) -> State:
        """Returns the state before the first step; `key` draws the objective's parameters."""
        ...


class Step(Protocol):
    """A bilevel step; pure, to be compiled by the caller."""

    def __call__(
        self,
        state: Any,
        batch: Batch,
        meta_batch: Batch | None = None,
        key: jax.Array | None = None,
        due: bool | jax.Array = True,
        look_ahead: Batch | None = None,
    ) -> tuple[Any, Info]:
        """Returns the next state, of the type of `state`, and the step's diagnostics.

        Args:
          state: a `State`, or a NamedTuple with its entries.
          batch: what the real step trains on, with "where" bool [B] if not all examples count.
          meta_batch: of the meta set; None: no meta-step.
          key: PRNG key, for objectives that draw.
          due: whether there is a meta-step; may be traced.
          look_ahead: the same examples in the view that the look-ahead sees; None: `batch`.
        """
        ...


class Bilevel(NamedTuple):
    """The two functions of a bilevel training: see `Init` and `Step`."""

    init: Init
    step: Step


def cross_entropy_to_labels(logits: jax.Array, batch: Batch) -> jax.Array:
    """The default meta-loss: cross-entropy [B] to the metadata's labels."""
    return losses.cross_entropy(logits, batch["labels"], where=batch.get("where"))


def make_bilevel(
    network: Any,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
    *,
    steps: int = 1,
    mode: str = "exact",
    skip: int | Callable[[str], bool] = 0,
    bottom_batch_norm: str = "eval",
    meta_every: int = 1,
    meta_loss: MetaLoss = cross_entropy_to_labels,
    direct_term: bool = False,
    axis_name: str | None = None,
) -> Bilevel:
    """Returns `Bilevel(init, step)` that trains a network and its objective together.

    `init(key, params, network_state={}) -> State`.

    `step(state, batch, meta_batch=None, key=None, due=True, look_ahead=None) -> (State, Info)`. A
    batch is a dictionary: "x", "labels", what the objective reads, and optionally "where" bool
    [B], the examples that count. The real step trains on `batch`; the look-ahead sees
    `look_ahead`, the same examples otherwise viewed, where it is given, and else the batch too:
    the dynamic loss looks ahead on a weak view and then trains on a strong one.
    What `objective.observe` draws for the real step comes from the look-ahead's logits at theta.
    Without `meta_batch`, or where `due`, which may be traced, is False, phi stays as it is. `key`
    is needed by objectives that draw.

    An integer label outside 0 ... K-1, in a row that counts, makes the loss and what follows from
    it NaN: within a compiled step no row can be named.

    Batch norm runs in train mode in look-ahead, meta-loss and real step; kept are the running
    statistics of the real step alone, as in the papers' programs.

    Args:
      network: a `Network` record, or any `Apply`: `(params, state, x, train) -> (logits, state)`.
      objective: see `jaxrobust.objectives`.
      optimizer: of theta, any of optax; the look-ahead uses it too.
      meta_optimizer: of phi.
      steps, mode: see `hypergradient`.
      skip, bottom_batch_norm: layers left out of the look-ahead, see `bilevel.skip_layers.split`.
      meta_every: a meta-step every so many steps (of `State.step`).
      meta_loss: `(logits, meta_batch) -> [B]`; with `direct_term`
        `(logits, meta_batch, meta_params) -> [B]`.
      direct_term: whether the meta-loss reads phi itself, besides through the look-ahead.
      axis_name: of a `pmap` whose devices hold shards of the batches and copies of the rest; the
        network must then normalize over the same axis. Under `jit` with sharded batches: None.

    Raises:
      UserError: see `hypergradient` and `split`; when a step is traced, see
        `bilevel.validation.check_step`.
    """
    _check_options(objective, optimizer, meta_optimizer, meta_every, axis_name)
    parts = split(network, skip, bottom_batch_norm)
    inner_loss, outer_loss = _two_losses(parts, objective, meta_loss, axis_name)
    compute = hypergradient(
        inner_loss,
        outer_loss,
        optimizer,
        steps=steps,
        mode=mode,
        frozen=parts.frozen,
        has_aux=True,
        axis_name=axis_name,
        direct_term=direct_term,
    )
    meta_step, no_meta_step = _make_meta_step(parts, objective, compute, meta_optimizer)
    apply = getattr(network, "apply", network)
    real_step = _make_real_step(apply, objective, optimizer, axis_name)

    def step(
        state: Any,
        batch: Batch,
        meta_batch: Batch | None = None,
        key: jax.Array | None = None,
        due: bool | jax.Array = True,
        look_ahead: Batch | None = None,
    ) -> tuple[Any, Info]:
        look_key, real_key = (None, None) if key is None else jax.random.split(key)
        look = batch if look_ahead is None else look_ahead
        check_batch(batch)
        check_batch(look, "look-ahead batch")
        if meta_batch is not None:
            check_batch(meta_batch, "metadata batch")
        check_step(apply, objective, partial(_observe, objective, look_key), state, look)
        met = jnp.asarray(meta_batch is not None) & due & (state.step % meta_every == 0)
        inputs = (
            State(*(getattr(state, name) for name in State._fields)),
            look,
            meta_batch,
            look_key,
        )
        if meta_batch is None:
            learned, logits, numbers = no_meta_step(*inputs)
        elif meta_every == 1 and due is True:
            learned, logits, numbers = meta_step(*inputs)
        else:
            learned, logits, numbers = jax.lax.cond(met, meta_step, no_meta_step, *inputs)
        state = state._replace(meta_params=learned[0], meta_opt_state=learned[1])
        real = _observe(objective, real_key, logits, batch)
        state, loss, logits = real_step(state, real)
        weights, size = _weights(objective, state.meta_params, logits, real, axis_name)
        return state, Info(loss, *numbers, met, size, weights, logits)

    return Bilevel(_make_init(objective, optimizer, meta_optimizer), step)


def _check_options(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
    meta_every: int,
    axis_name: str | None,
) -> None:
    """Raises `UserError` for options of `make_bilevel` that cannot work."""
    check(
        isinstance(meta_every, int) and meta_every >= 1,
        f"make_bilevel: meta_every must be a whole number of at least 1, not {meta_every}.",
    )
    check_objective(objective)
    check_optimizer("make_bilevel: optimizer", optimizer)
    check_optimizer("make_bilevel: meta_optimizer", meta_optimizer)
    check(
        axis_name is None or objective.restart is None,
        "make_bilevel: weights that belong to the batch cannot be learned over an axis_name; "
        "shard the batch under jax.jit instead.",
    )


def _make_init(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
) -> Init:
    """Returns `init(key, params, network_state) -> State`."""

    def init(key: jax.Array | None, params: Any, network_state: Any = None) -> State:
        meta_params = objective.init(key)
        return State(
            jnp.zeros((), jnp.int32),
            params,
            {} if network_state is None else network_state,
            init_optimizer("make_bilevel: optimizer", optimizer, params),
            meta_params,
            init_optimizer("make_bilevel: meta_optimizer", meta_optimizer, meta_params),
        )

    return init


def _weights(
    objective: Objective, meta_params: Any, logits: jax.Array, batch: Batch, axis_name: str | None
) -> tuple[jax.Array | None, jax.Array]:
    """Returns the objective's weights [B] or None, and their effective sample size."""
    if objective.weights is None:
        return None, jnp.ones((), logits.dtype)
    weights = objective.weights(meta_params, jax.lax.stop_gradient(logits), batch)
    return weights, effective_sample_size(weights, batch.get("where"), axis_name)


def _observe(objective: Objective, key: jax.Array | None, logits: jax.Array, batch: Batch) -> Batch:
    if objective.observe is None:
        return batch
    check(key is not None, "step: this objective draws pseudo-labels; give the step a key.")
    return objective.observe(key, jax.lax.stop_gradient(logits), batch)


def _mean_loss(
    objective: Objective, meta_params: Any, logits: jax.Array, batch: Batch, axis_name: str | None
) -> jax.Array:
    values = losses_of(
        "objective's loss", lambda z, b: objective.loss(meta_params, z, b), logits, batch
    )
    return share_of_mean(values, batch.get("where"), axis_name)


def _two_losses(
    parts: Parts, objective: Objective, meta_loss: Any, axis_name: str | None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the inner loss (with the logits as aux) and the meta-loss, of prepared features."""

    def inner_loss(params: Any, meta_params: Any, inputs: Any) -> tuple[jax.Array, jax.Array]:
        network_state, features, batch, key = inputs
        logits = parts.top(params, network_state, features)
        batch = _observe(objective, key, logits, batch)
        return _mean_loss(objective, meta_params, logits, batch, axis_name), logits

    def outer_loss(params: Any, inputs: Any, *phi: Any) -> jax.Array:
        network_state, features, batch = inputs
        logits = explained(
            "step: the network, on the metadata batch's 'x'",
            lambda: parts.top(params, network_state, features),
            (Exception,),
        )
        values = losses_of("meta-loss", lambda z, b: meta_loss(z, b, *phi), logits, batch)
        return share_of_mean(values, batch.get("where"), axis_name)

    return inner_loss, outer_loss


def _make_meta_step(
    parts: Parts, objective: Objective, compute: Any, meta_optimizer: optax.GradientTransformation
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns two functions `(state, batch, meta_batch, key) -> learned, logits, numbers`.

    Of the first, `learned` is phi after a meta-step and the state of its optimizer; the second
    leaves both as they are. Of both, the
    logits are the look-ahead's at theta (None if nothing is drawn from them), the numbers are
    inner loss, meta-loss and norm of the meta-gradient.
    """

    def meta_step(state: Any, batch: Batch, meta_batch: Batch, key: jax.Array | None) -> Any:
        params, network_state, phi = state.params, state.network_state, state.meta_params
        if objective.restart is not None:
            phi = objective.restart(phi)
        features = parts.bottom(params, network_state, batch["x"])
        meta_features = explained(
            "step: the network, on the metadata batch's 'x'",
            lambda: parts.bottom(params, network_state, meta_batch["x"]),
            (Exception,),
        )
        found = compute(
            phi,
            params,
            state.opt_state,
            (network_state, features, batch, key),
            (network_state, meta_features, meta_batch),
        )
        updates, meta_opt_state = update(
            meta_optimizer, found.grads, state.meta_opt_state, phi, found.meta_loss, None
        )
        phi = optax.apply_updates(phi, updates)
        numbers = (found.inner_loss, found.meta_loss, optax.tree.norm(found.grads))
        numbers = tuple(v.astype(found.aux.dtype) for v in numbers)
        logits = None if objective.observe is None else found.aux
        return (phi, meta_opt_state), logits, numbers

    def no_meta_step(state: Any, batch: Batch, meta_batch: Batch, key: jax.Array | None) -> Any:
        del meta_batch, key

        def forward(params: Any, network_state: Any, x: jax.Array) -> jax.Array:
            return parts.top(params, network_state, parts.bottom(params, network_state, x))

        inputs = (state.params, state.network_state, batch["x"])
        zero = jnp.zeros((), jax.eval_shape(forward, *inputs).dtype)
        logits = None if objective.observe is None else forward(*inputs)
        return (state.meta_params, state.meta_opt_state), logits, (zero, zero, zero)

    return meta_step, no_meta_step


def _make_real_step(
    apply: Apply,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    axis_name: str | None,
) -> Callable[..., Any]:
    """Returns `(state, batch) -> state, loss, logits`."""

    def real_step(state: Any, batch: Batch) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, network_state = apply(params, state.network_state, batch["x"], True)
            value = _mean_loss(objective, state.meta_params, logits, batch, axis_name)
            return value, (logits, network_state)

        found, grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        value, (logits, network_state) = found
        if axis_name is not None:
            value, grads = jax.lax.psum((value, grads), axis_name)

        def value_fn(params: Any) -> jax.Array:
            other = loss(params)[0]
            return other if axis_name is None else jax.lax.psum(other, axis_name)

        updates, opt_state = update(
            optimizer, grads, state.opt_state, state.params, value, value_fn
        )
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            network_state=network_state,
            opt_state=opt_state,
        )
        return state, value, logits

    return real_step


def share_of_mean(
    values: jax.Array, where: jax.Array | None = None, axis_name: str | None = None
) -> jax.Array:
    """Returns the sum of `values` [B] divided by how many count on all devices together.

    On one device this is the mean. On several the shares add up to it, and so do their
    gradients: differentiate the share, then sum the gradients (`psum`).
    """
    return losses.mean(values, where=where, divisor=_count(values, where, axis_name))


def effective_sample_size(
    weights: jax.Array, where: jax.Array | None = None, axis_name: str | None = None
) -> jax.Array:
    """Returns (sum w)^2 / (sum w^2) / B, in [1/B, 1]: 1 if all weights [B] are equal."""
    shares = [share_of_mean(w, where, axis_name) for w in (weights, weights**2)]
    mean, mean_of_squares = shares if axis_name is None else jax.lax.psum(shares, axis_name)
    return mean**2 / jnp.where(mean_of_squares > 0, mean_of_squares, 1)


def _count(values: jax.Array, where: jax.Array | None, axis_name: str | None) -> jax.Array:
    here = jnp.asarray(values.size) if where is None else jnp.sum(where)
    total = here if axis_name is None else jax.lax.psum(here, axis_name)
    return jnp.maximum(total, 1).astype(values.dtype)
