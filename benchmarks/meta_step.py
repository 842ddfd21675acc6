"""Cost of a bilevel step relative to a plain one: FLOPs and memory from the compiler, and time.

    python -m benchmarks.meta_step --json out.json [--network resnet32] [--batch 128] [--quick]

Every variant is one compiled function; times are medians over rounds in which every variant takes
its turn, so that a busy machine slows all alike. Use the ratios. Where torch and higher are
installed, the same steps in PyTorch take their turns too. The learned objective is CurveNet, which
looks ahead and trains on the same batch; "dynamic_loss" looks ahead on a weak view of it. "skip2"
holds the first two stages in the look-ahead (SLMO, s = 2). "recording" is the plain step that also
writes the batch's losses into the curves of 50,000 examples over 300 epochs, as a probe does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import losses, networks, process
from jaxrobust.bilevel import make_bilevel
from jaxrobust.methods._curvenet import empty_curves, record
from jaxrobust.objectives import curve_weighted, dynamic_loss

SHAPES = {"mlp": (64,), "small_cnn": (8, 8, 1), "resnet50": (64, 64, 3)}
CURVE_LENGTH = 294
CURVES = (50_000, 300)  # N, T


def variants(network: networks.Network, quick: bool) -> dict[str, dict[str, Any]]:
    """Returns name -> options of `make_bilevel`; "plain" and "recording" take no meta-step."""
    found = {"plain": {}, "recording": {}, "exact": {}}
    if not quick:
        found |= {"first_order": {"mode": "first_order"}}
        found |= {"finite_difference": {"mode": "finite_difference"}}
        found |= {"two_steps": {"steps": 2}, "dynamic_loss": {}}
    top = len(network.stages)
    for skip in range(2 if quick else 1, 3 if quick else top):
        for statistics_of in ("eval", "batch") if top > 3 else ("eval",):
            found[f"skip{skip}_{statistics_of}"] = {
                "skip": skip,
                "bottom_batch_norm": statistics_of,
            }
    return found


def make_data(shape: tuple[int, ...], batch_size: int, seed: int) -> dict[str, np.ndarray]:
    """Returns random examples with all that the two objectives read."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(batch_size, *shape)).astype(np.float32),
        "labels": rng.integers(0, 10, batch_size),
        "curve": rng.normal(size=(batch_size, CURVE_LENGTH)).astype(np.float32),
        "rank": rng.integers(0, 100, batch_size),
        "index": np.arange(batch_size),
    }


def recording(step: Callable) -> Callable:
    """Returns a step whose state also carries curves, written as `methods.probe` does."""

    def recorded(state, batch, meta_batch, key):
        (state, curves), epoch = state, state[0].step % CURVES[1]
        state, info = step(state, batch, meta_batch, key)
        loss = losses.cross_entropy(info.logits, batch["labels"])
        batch = batch | {"where": jnp.ones(loss.shape, bool)}
        return (state, record(curves, batch, loss, epoch)), info

    return recorded


def on_two_views(step: Callable) -> Callable:
    """Returns a step whose look-ahead sees the examples in another order than the real step."""
    return lambda state, batch, meta_batch, key: step(
        state, batch | {"x": batch["x"][::-1]}, meta_batch, key, look_ahead=batch
    )


def record_seconds(batch: dict[str, np.ndarray], times: int = 300) -> float:
    """Returns the mean time of writing a batch's losses into the curves, by itself."""
    rows = {"index": jnp.asarray(batch["index"]), "where": jnp.ones(len(batch["index"]), bool)}
    step, curves = jax.jit(record, donate_argnums=0), empty_curves(*CURVES, "float16")
    loss, column = jnp.ones(len(batch["index"])), jnp.int32(7)
    curves = jax.block_until_ready(step(curves, rows, loss, column))
    start = time.perf_counter()
    for _ in range(times):
        curves = step(curves, rows, loss, column)
    jax.block_until_ready(curves)
    return (time.perf_counter() - start) / times


class Variant:
    """A compiled step with its state, and what the compiler says of it."""

    def __init__(
        self,
        name: str,
        network: networks.Network,
        options: dict,
        data: dict,
        meta: dict,
        xla_options: dict[str, str] | None = None,
    ):
        objective = curve_weighted(10, CURVE_LENGTH)
        if name == "dynamic_loss":
            objective = dynamic_loss(10)
        optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
        bilevel = make_bilevel(network, objective, optimizer, optax.adam(1e-3), **options)
        key = jax.random.key(0)
        plain = name in ("plain", "recording")
        self.data = jax.tree.map(jnp.asarray, (data, None if plain else meta))
        self.state = jax.jit(lambda: bilevel.init(key, *network.init(key, data["x"])))()
        step, self.key = bilevel.step, key
        if name == "dynamic_loss":
            step = on_two_views(step)
        if name == "recording":
            self.state, step = (self.state, empty_curves(*CURVES, "float16")), recording(step)
        lowered = jax.jit(step, donate_argnums=0).lower(self.state, *self.data, key)
        start = time.perf_counter()
        self.compiled = lowered.compile(compiler_options=xla_options)
        costs = self.compiled.cost_analysis()
        costs = costs[0] if isinstance(costs, list) else costs
        self.report = {
            "flops": costs["flops"],
            "temp_bytes": self.compiled.memory_analysis().temp_size_in_bytes,
            "compile_seconds": time.perf_counter() - start,
        }

    def seconds(self, times: int) -> float:
        """Returns the mean time of a step, without waiting for the host in between."""
        start = time.perf_counter()
        for _ in range(times):
            self.state, info = self.compiled(self.state, *self.data, self.key)
        jax.block_until_ready((self.state, info))
        return (time.perf_counter() - start) / times


def torch_steps(
    name: str, data: dict, meta: dict, skips: list[int]
) -> dict[str, Callable[[int], float]]:
    """Returns variant -> `seconds(times)`; nothing where torch or higher is not installed."""
    if any(importlib.util.find_spec(m) is None for m in ("torch", "higher")):
        return {}
    from benchmarks import torch_meta_step as peer

    if name not in peer.NETWORKS:
        return {}
    steps = peer.make_steps(name, data, meta, skips)
    return {k: (lambda times, s=s: peer.seconds(s, times)) for k, s in steps.items()}


def measure(
    timers: dict[str, Callable[[int], float]], rounds: int, span: float
) -> dict[str, float]:
    """Returns the median time of a step of each, in seconds, taking turns.

    Args:
      timers: `seconds(times)` by name.
      rounds: turns each takes.
      span: about how many seconds a turn lasts; at least one step.
    """
    times = {}
    for name, timer in timers.items():
        timer(1)
        times[name] = max(1, round(span / timer(1)))
    seen = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            seen[name].append(timer(times[name]))
    return {name: statistics.median(values) for name, values in seen.items()}


def run(
    name: str,
    batch_size: int,
    *,
    quick: bool,
    rounds: int,
    only: list[str] | None,
    peers: bool,
    xla_options: dict[str, str] | None = None,
) -> dict:
    """Returns the report: `variants`, name -> flops, temp_bytes, seconds, compile_seconds."""
    network = networks.make(name, 10)
    shape = SHAPES.get(name, (32, 32, 3))
    data, meta = make_data(shape, batch_size, 0), make_data(shape, batch_size, 1)
    chosen = variants(network, quick)
    if only:
        chosen = {k: v for k, v in chosen.items() if k in only or k == "plain"}
    built = {
        k: Variant(k, network, options, data, meta, xla_options) for k, options in chosen.items()
    }
    skips = [] if quick else [v["skip"] for k, v in chosen.items() if k.endswith("_eval")]
    timers = {k: v.seconds for k, v in built.items()}
    timers |= torch_steps(name, data, meta, skips) if peers else {}
    seconds = measure(timers, rounds, 0.1 if quick else 0.5)
    unknown = {"flops": None, "temp_bytes": None, "compile_seconds": None}
    report = {
        k: (built[k].report if k in built else unknown) | {"seconds": s} for k, s in seconds.items()
    }
    device = jax.devices()[0]
    return {
        "network": name,
        "batch": batch_size,
        "stages": network.stages,
        "jax": jax.__version__,
        "device": f"{device.platform}: {device.device_kind}",
        "xla_options": xla_options or {},
        "variants": report,
        "record_seconds": record_seconds(data),
    }


def table(report: dict) -> str:
    """Returns the report as text, every number beside that of the plain step."""
    rows = report["variants"]
    plain, lines = (
        rows["plain"],
        [
            f"{report['network']}, batch {report['batch']}, {report['device']}, "
            f"stages {', '.join(report['stages'])}",
            f"{'variant':22}{'FLOPs':>12}{'x':>7}{'MB':>9}{'x':>7}{'ms':>9}{'x':>7}"
            f"{'compile s':>11}",
        ],
    )
    for name, row in rows.items():
        base = rows["torch_plain"] if name.startswith("torch") else plain
        cells = [f"{name:22}"]
        for key, unit, width in (("flops", 1, 12), ("temp_bytes", 2**20, 9), ("seconds", 1e-3, 9)):
            known = row[key] is not None
            cells.append(f"{row[key] / unit:{width}.4g}" if known else " " * width)
            cells.append(f"{row[key] / base[key]:7.2f}" if known else " " * 7)
        if row["compile_seconds"] is not None:
            cells.append(f"{row['compile_seconds']:11.1f}")
        lines.append("".join(cells))
    share = report["record_seconds"] / plain["seconds"]
    lines.append(
        f"recording by itself: {1e3 * report['record_seconds']:.3f} ms, "
        f"{share:.2%} of the plain step"
    )
    if "torch_higher" in rows and "exact" in rows:
        ratio = rows["torch_higher"]["seconds"] / rows["exact"]["seconds"]
        lines.append(f"exact is {ratio:.2f} x as fast as higher")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict:
    process.keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet32", choices=sorted(networks.NETWORKS))
    parser.add_argument("--batch", type=int, help="default 128; 8 with --quick")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", help="variants to measure beside the plain step")
    parser.add_argument("--quick", action="store_true", help="few variants, one round")
    parser.add_argument("--no_torch", action="store_true", help="JAX only")
    parser.add_argument(
        "--xla_options",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="of the compiler, as --config.train.xla_options",
    )
    parser.add_argument("--json", type=Path, help="where to write the report")
    args = parser.parse_args(arguments)
    batch = args.batch or (8 if args.quick else 128)
    rounds = 1 if args.quick else args.rounds
    report = run(
        args.network,
        batch,
        quick=args.quick,
        rounds=rounds,
        only=args.only,
        peers=not args.no_torch,
        xla_options=dict(item.split("=", 1) for item in args.xla_options),
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))
    return report


if __name__ == "__main__":
    main()
