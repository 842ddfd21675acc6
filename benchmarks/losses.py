"""Cost of each loss with its gradient, as a ratio to optax's cross-entropy of integer labels.

    python -m benchmarks.losses [--sizes 4096x10 1024x1000] [--only ce bi_tempered] [--rounds 30]
        [--traced] [--json out.json] [--tiny]

Value and gradient of the mean over a batch, float32, integer labels, default hyper-parameters,
compiled. All rows take turns; a ratio is the median over the rounds of the loss's time over
optax's in the same round. FLOPs, transcendental functions and bytes are the compiler's count,
each divided by optax's: they do not depend on what else the machine does. `--traced` passes the
hyper-parameters as arguments of the compiled function, as a schedule does.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import losses

BASE = "optax"
_COUNTS = {"flops": "flops", "transcendentals": "transcendentals", "bytes": "bytes accessed"}


def program(name: str, batch: int, classes: int, traced: bool) -> tuple[Any, tuple]:
    """Returns the compiled value and gradient of a loss, and arguments for it."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(3 * rng.normal(size=(batch, classes)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, classes, batch), jnp.int32)
    hyper = {}
    if name == BASE:

        def values(logits, labels, key, hyper):
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    else:
        loss, needs = losses.get(name), losses.needs(name)
        counts = {"class_counts": np.arange(1.0, classes + 1)} if "class_counts" in needs else {}
        if traced:
            parameters = inspect.signature(loss).parameters.values()
            hyper = {p.name: p.default for p in parameters if type(p.default) is float}

        def values(logits, labels, key, hyper):
            extra = {"key": key} if "key" in needs else {}
            return loss(logits, labels, **hyper, **extra, **counts)

    @jax.value_and_grad
    def mean(logits, *rest):
        return values(logits, *rest).mean()

    args = (logits, labels, jax.random.key(0), hyper)
    return jax.jit(mean).lower(*args).compile(), args


def measure(names: list[str], batch: int, classes: int, rounds: int, traced: bool) -> dict:
    """Returns the numbers of each loss, by name, as ratios to those of `BASE`."""
    programs = {name: program(name, batch, classes, traced) for name in [BASE, *names]}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    repeats = max(1, 2_000_000 // (batch * classes))
    for turn in range(rounds + 1):  # The first warms up.
        for name, (compiled, args) in programs.items():
            begin = time.perf_counter()
            for _ in range(repeats):
                out = compiled(*args)
            jax.block_until_ready(out)
            if turn:
                seconds[name].append((time.perf_counter() - begin) / repeats)
    counts = {name: compiled.cost_analysis() for name, (compiled, _) in programs.items()}
    found = {}
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds[BASE], strict=True)]
        found[name] = {"time": statistics.median(ratios), "ms": 1e3 * min(seconds[name])}
        for key, theirs in _COUNTS.items():
            found[name][key] = counts[name].get(theirs, 0.0) / max(counts[BASE].get(theirs, 0), 1)
    return found


def main(arguments: list[str] | None = None) -> dict[str, dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["4096x10", "1024x1000"])
    parser.add_argument("--only", nargs="+", default=list(losses.LOSSES))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--traced", action="store_true", help="hyper-parameters as arguments")
    parser.add_argument("--json")
    parser.add_argument("--tiny", action="store_true", help="a small batch, to see that it runs")
    args = parser.parse_args(arguments)
    found = {}
    for size in ["32x5"] if args.tiny else args.sizes:
        batch, classes = map(int, size.split("x"))
        found[size] = measure(args.only, batch, classes, args.rounds, args.traced)
        print(
            f"\n{size + ', optax = 1':24}{'time':>8}{'FLOPs':>9}{'transc.':>9}{'bytes':>8}{'ms':>9}"
        )
        for name, row in found[size].items():
            print(
                f"{name:24}{row['time']:9.2f}{row['flops']:9.1f}{row['transcendentals']:9.1f}"
                f"{row['bytes']:9.1f}{row['ms']:9.3f}",
                flush=True,
            )
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
