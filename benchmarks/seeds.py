"""Time of an epoch of several seeds as one program, as a ratio to an epoch of one seed.

    python -m benchmarks.seeds [--config digits_dal] [--network mlp] [--seeds 5] [--rounds 9]

Both take turns in one process, compiled before; the ratio is the median over the rounds of
processor time and of wall time. Also shown: the largest difference between the states of the
first seed after these epochs, relative to the largest entry of the array.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np

from jaxrobust import config as configuration
from jaxrobust.runs.experiment import assemble
from jaxrobust.runs.fit import init_state, initial, make_runner
from jaxrobust.training.loop import Place
from jaxrobust.training.seeds import SeedsRunner, of_seed


def difference(a: Any, b: Any) -> float:
    """Returns the largest relative difference of two pytrees of arrays."""

    def of(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), 1e-30)) if x.size else 0.0

    return max(jax.tree.leaves(jax.tree.map(of, a, b)))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits_dal")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args(arguments)
    config = configuration.override(
        configuration.load(args.config),
        {"network.name": args.network, "train.epochs": args.rounds + 1},
    )
    experiment = assemble(config)
    seeds = tuple(range(config.seed, config.seed + args.seeds))
    parts = experiment.method, experiment.feed, experiment.forward
    several = SeedsRunner(*parts, seeds, loop=experiment.loop)
    runners = {"one": make_runner(experiment), "several": several}
    states = {"one": init_state(experiment), "several": several.init(initial(experiment))}
    places = {name: Place() for name in runners}
    cpu: dict[str, list[float]] = {"one": [], "several": []}
    wall: dict[str, list[float]] = {"one": [], "several": []}
    for _ in range(args.rounds + 1):  # The first compiles.
        for name, runner in runners.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            states[name], _ = runner.epoch(states[name], places[name], lambda *_: None)
            jax.block_until_ready(states[name])
            cpu[name].append(time.process_time() - begin_cpu)
            wall[name].append(time.perf_counter() - begin)
    found = {
        name: statistics.median(
            a / b for a, b in zip(times["several"][1:], times["one"][1:], strict=True)
        )
        for name, times in (("processor time", cpu), ("wall time", wall))
    }
    found["difference"] = difference(of_seed(states["several"], 0), states["one"])
    print(f"{args.seeds} seeds of {args.config} with {args.network}, one seed = 1")
    for name, value in found.items():
        print(f"{name:16}{value:10.3g}")
    return found


if __name__ == "__main__":
    main()
