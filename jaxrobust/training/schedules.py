"""Optimizers and learning-rate schedules of the three papers, from optax's parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax


def epoch_of(count: Any, stages: Sequence[tuple[int, int]]) -> jax.Array:
    """Returns the epoch, with its fraction, after `count` steps; see `make_schedule`."""
    count = jnp.asarray(count)
    t, start = jnp.zeros((), jnp.float32), 0
    for index, (epochs, steps) in enumerate(stages):
        last = index == len(stages) - 1
        within = jnp.clip(count - start, 0, None if last else epochs * steps)
        # Whole epochs by integer division: a quotient of floats may fall short of one.
        t += within // steps + (within % steps) / steps
        start += epochs * steps
    return t


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    stages: Sequence[tuple[int, int]],
    per_step: bool = False,
    warmup_epochs: int = 0,
    warmup_start: float = 0.0,
    warmup: str = "linear",
    milestones: tuple[float, ...] = (),
    gamma: float = 0.1,
    cycle: tuple[int, int] = (0, 1),
) -> optax.Schedule:
    """Returns the learning rate as a function of the number of steps taken.

    With t the epoch (whole, unless `per_step`) and E all epochs:
    `cosine` lr/2 (1 + cos(pi t/E)); `step` lr * gamma^(milestones reached); `exponential`
    lr * gamma^t; `constant` lr; `cyclic` lr up to an epoch, then lr * gamma and lr * gamma^2 in
    turn, a period of epochs each. During the first W = `warmup_epochs` epochs, with `warmup`
    `linear`, the rate rises linearly from `warmup_start` to `learning_rate` instead, and the
    cosine spans the remaining epochs; with `factor`, the schedule over all E epochs is multiplied
    by a factor that rises in every step from `warmup_start` / `learning_rate` to 1 (the program of
    Jiang et al. 2023).

    Args:
      name: constant, cosine, step, exponential or cyclic.
      learning_rate: the peak.
      stages: pairs (epochs, steps an epoch), in order; their epochs sum to E. An epoch may take
        more steps in one stage than in another.
      per_step: t is a fraction within an epoch.
      warmup_epochs, warmup_start, warmup: see above.
      milestones: epochs at which `step` multiplies the rate by `gamma`.
      cycle: of `cyclic`, the epoch at which the cycles begin and their period.
    """

    epochs = sum(n for n, _ in stages)

    def schedule(count: Any) -> jax.Array:
        fractional = epoch_of(count, stages)
        t = fractional if per_step else jnp.floor(fractional)
        if name == "cosine":
            first = warmup_epochs if warmup == "linear" else 0
            span = max(epochs - first, 1)
            rate = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((t - first) / span, 0, 1)))
        elif name == "step":
            reached = sum((t >= m).astype(jnp.float32) for m in milestones)
            rate = jnp.asarray(gamma, jnp.float32) ** reached
        elif name == "exponential":
            rate = jnp.asarray(gamma, jnp.float32) ** t
        elif name == "cyclic":
            first, period = cycle
            second = jnp.floor((t - first) / period) % 2
            rate = jnp.where(t < first, 1.0, jnp.asarray(gamma, jnp.float32) ** (1 + second))
        else:
            rate = jnp.ones_like(t)
        rate = learning_rate * rate
        if warmup_epochs and warmup == "factor":
            low = warmup_start / learning_rate
            rate = rate * jnp.minimum(low + (1 - low) * fractional / warmup_epochs, 1.0)
        elif warmup_epochs:
            rising = warmup_start + (learning_rate - warmup_start) * t / warmup_epochs
            rate = jnp.where(t < warmup_epochs, rising, rate)
        return rate

    return schedule


def add_l1(weight: float) -> optax.GradientTransformation:
    """Adds the gradient of `weight` * sum |parameter| over all parameters; 0 at 0."""

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda g, x: g + weight * jnp.sign(x), updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(
    name: str,
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    l1: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the optimizer of the network.

    `sgd` and `adam` add weight decay to the gradient, as PyTorch does; `adamw` decouples it.
    An L1 penalty l1 * sum |parameter| is part of the loss: its gradient comes first. Then the
    gradient is clipped by its global norm.
    """
    parts = [] if l1 == 0 else [add_l1(l1)]
    if clip_norm is not None:
        parts.append(optax.clip_by_global_norm(clip_norm))
    if weight_decay and name != "adamw":
        parts.append(optax.add_decayed_weights(weight_decay))
    if name == "sgd":
        parts.append(optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov))
    elif name == "adam":
        parts.append(optax.adam(schedule))
    else:
        parts.append(optax.adamw(schedule, weight_decay=weight_decay))
    return optax.chain(*parts)
