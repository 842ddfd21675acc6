"""Trial of compiler options on a run's own step: the fastest that computes the same.

XLA's options for the CPU are quicker on one processor and slower on another, so they are tried
where the run is: a few steps of each, from the run's first state. One that is not known to this
version of XLA, or whose step gives other numbers than the default's, is left out: an option that
miscomputes is known (`xla_cpu_use_fusion_emitters=false`, color jitter), so none is trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Options = tuple[str, ...]
"""Compiler options, each "name=value"; none is the default."""

CANDIDATES: tuple[Options, ...] = (("xla_cpu_experimental_ynn_fusion_type=",),)
"""Options that were faster than the default on some CPU: XLA's own convolutions, not YNN's."""

LEAST_GAIN = 1.03  # below it the default stays
TOLERANCE = 1e-3  # of a step's change of the state, relative to its norm


class Trial(NamedTuple):
    """What options were chosen, and the seconds per step of all that were tried and right."""

    chosen: Options
    seconds: dict[Options, float]
    wrong: tuple[Options, ...] = ()


def as_dictionary(options: Options) -> dict[str, str] | None:
    """Returns options as `compile` takes them."""
    return dict(item.split("=", 1) for item in options) or None


def choose(
    step_with: Callable[[Options], Callable[[Any], Any]],
    start: Any,
    candidates: Sequence[Options] = CANDIDATES,
    rounds: int = 3,
) -> Trial:
    """Times one step with the default and with each candidate, in turns.

    Args:
      step_with: `step_with(options)` returns the compiled step, `state -> state`; it may raise
        for options that are not known. A step may use its argument's memory again.
      start: state that the steps start from; it is copied, and left as it is.
      candidates: options to try.
      rounds: steps of each that are timed.
    """
    steps = {(): step_with(())}
    right = steps[()](_copy(start))
    wrong = []
    for options in candidates:
        try:
            step = step_with(options)
            after = step(_copy(start))
        except (jax.errors.JaxRuntimeError, ValueError, RuntimeError):
            continue  # An option of another version of XLA.
        if same(start, right, after):
            steps[options] = step
        else:
            wrong.append(options)
    seconds: dict[Options, list[float]] = {options: [] for options in steps}
    for _ in range(rounds):
        for options, step in steps.items():
            state = jax.block_until_ready(_copy(start))
            begin = time.perf_counter()
            jax.block_until_ready(step(state))
            seconds[options].append(time.perf_counter() - begin)
    least = {options: min(values) for options, values in seconds.items()}
    best = min(least, key=lambda options: least[options])
    chosen = best if least[()] > LEAST_GAIN * least[best] else ()
    return Trial(chosen, least, tuple(wrong))


def same(start: Any, right: Any, other: Any) -> bool:
    """Whether two steps from `start` change each array alike but for rounding.

    An array's error may be `TOLERANCE` of its change, and 1e-5 of the change of all arrays of its
    entry of the state: a gradient that is zero but for rounding is no evidence.
    """
    entries: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    trees = (jax.tree_util.tree_leaves_with_path(tree) for tree in (start, right, other))
    for (path, before), (_, a), (_, b) in zip(*trees, strict=True):
        if jnp.issubdtype(before.dtype, jnp.number):
            arrays = tuple(np.asarray(v, np.float64) for v in (before, a, b))
            entries.setdefault(str(path[:1]), []).append(arrays)
    return all(_all_close(triples) for triples in entries.values())


def _all_close(triples: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> bool:
    if not all(np.array_equal(np.isfinite(a), np.isfinite(b)) for _, a, b in triples):
        return False
    norm = np.linalg.norm
    changes = [norm(np.nan_to_num(a - before)) for before, a, _ in triples]
    errors = [norm(np.nan_to_num(a - b)) for _, a, b in triples]
    sizes = [norm(np.nan_to_num(a)) for _, a, _ in triples]
    whole = 1e-5 * norm(changes)
    return all(
        error <= TOLERANCE * change + 1e-6 * size + whole
        for error, change, size in zip(errors, changes, sizes, strict=True)
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
