"""Training steps per second, beside PyTorch: ResNet-32 on 32 x 32 images and a small perceptron.

    python -m benchmarks.train_step [--json out.json] [--tasks mlp resnet] [--rounds 15]
        [--no_torch] [--fresh_memory] [--tiny]

Momentum SGD on the cross-entropy of one batch of 128, in float32. All rows take turns within one
run, so that what else the machine does falls on all of them; a row's time is the median over the
rounds, its ratio the median of PyTorch's time over its own within a round (above 1: quicker than
PyTorch). Compilation is reported apart. CPU seconds count all threads of this process. Where
others use the processor too, set OMP_WAIT_POLICY=passive: PyTorch's waiting threads otherwise
spin, and its rows come out many times too slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import networks, process
from jaxrobust.networks import cpu

LEARNING_RATE, MOMENTUM = 0.01, 0.9
XLA_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
"""Worth trying, but bound to a version of XLA and to one kind of processor."""


class Row(NamedTuple):
    """`call()` does `steps` training steps and waits for them. FLOPs are those of one step."""

    task: str
    name: str
    call: Callable[[], object]
    steps: int
    compile_seconds: float = 0.0
    flops: float | None = None


def jax_row(task, name, network, x, y, steps, *, scan=False, options=None) -> Row:
    """A row for `network`: one call a step, or all steps in one `lax.scan`."""
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)

    def step(carry, _):
        params, state, opt_state = carry

        def loss(params):
            logits, new = network.apply(params, state, x, True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), new, opt_state), value

    def many(carry):
        return jax.lax.scan(step, carry, length=steps)

    def one(carry):
        return step(carry, None)

    params, state = network.init(jax.random.key(0), x)
    carry = (params, state, optimizer.init(params))
    lowered = jax.jit(many if scan else one, donate_argnums=0).lower(carry)
    start = time.perf_counter()
    compiled = lowered.compile(compiler_options=options)
    seconds = time.perf_counter() - start
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    box = [carry]

    def call():
        for _ in range(1 if scan else steps):
            box[0], value = compiled(box[0])
        return jax.block_until_ready(value)

    return Row(task, name, call, steps, seconds, (cost or {}).get("flops"))


def torch_row(task, module, x, y, steps) -> Row:
    """The same step in PyTorch, as its tutorials write it."""
    import torch

    optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    x, y = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y)).long()
    x = x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x

    def call():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return Row(task, "PyTorch", call, steps)


def mlp_rows(tiny: bool, with_torch: bool) -> list[Row]:
    """64-256-256-10 at batch 128: a host loop and a scan."""
    batch, hidden, steps = (8, (16,), 3) if tiny else (128, (256, 256), 200)
    task = "-".join(["mlp 64", *map(str, hidden), "10"]) + f", batch {batch}"
    x = jax.random.normal(jax.random.key(1), (batch, 64))
    y = jnp.arange(batch) % 10
    network = networks.make("mlp", 10, hidden=hidden)
    rows = [
        jax_row(task, "JAX, one call a step", network, x, y, steps),
        jax_row(task, "JAX, scan over steps", network, x, y, steps, scan=True),
    ]
    if with_torch:
        from benchmarks import torch_networks

        rows.append(torch_row(task, torch_networks.mlp((64, *hidden, 10)), x, y, steps))
    return rows


def resnet_rows(tiny: bool, with_torch: bool) -> list[Row]:
    """ResNet-32 at batch 128: as the package does it, kernel gradients undivided, XLA options."""
    batch, width, blocks = (8, 4, 1) if tiny else (128, 16, 5)
    task = f"resnet{6 * blocks + 2}, width {width}, batch {batch}"
    x = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    y = jnp.arange(batch) % 10
    network = networks.make("resnet32", 10, width=width, blocks=blocks)
    rows = [jax_row(task, "JAX", network, x, y, 1)]
    if jax.default_backend() == "cpu":
        with mock.patch.object(cpu, "MAX_CHUNKS", 1):
            name = "JAX, kernel gradients undivided"
            rows.append(jax_row(task, name, network, x, y, 1))
    options = XLA_OPTIONS.get(jax.default_backend())
    if options:
        name = "JAX, " + " ".join(f"{k}={v!r}" for k, v in options.items())
        try:
            rows.append(jax_row(task, name, network, x, y, 1, options=options))
        except jax.errors.JaxRuntimeError as error:
            print(f"Left out: {name}: {str(error).splitlines()[0]}")
    if with_torch:
        from benchmarks import torch_networks

        rows.append(torch_row(task, torch_networks.resnet32(10, width, blocks), x, y, 1))
    return rows


TASKS = {"mlp": mlp_rows, "resnet": resnet_rows}


def page_faults() -> int:
    """Returns how many pages this process has been given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(rows: list[Row], rounds: int) -> list[dict]:
    """Runs the rows in turns and returns one dict a row."""
    for row in rows:
        row.call()
    wall, cpu, faults = ([[] for _ in rows] for _ in range(3))
    for _ in range(rounds):
        for i, row in enumerate(rows):
            start, start_cpu = time.perf_counter(), time.process_time()
            before = page_faults()
            row.call()
            faults[i].append((page_faults() - before) / row.steps)
            wall[i].append((time.perf_counter() - start) / row.steps)
            cpu[i].append((time.process_time() - start_cpu) / row.steps)
    base = {row.task: i for i, row in enumerate(rows) if row.name == "PyTorch"}

    def ratio(times, i):
        other = base.get(rows[i].task)
        if other is None:
            return None
        return statistics.median(b / a for a, b in zip(times[i], times[other], strict=True))

    return [
        {
            "task": row.task,
            "name": row.name,
            "steps_per_second": 1 / statistics.median(wall[i]),
            "cpu_seconds_per_step": statistics.median(cpu[i]),
            "speed_against_torch": ratio(wall, i),
            "cpu_seconds_against_torch": ratio(cpu, i),
            "page_faults_per_step": statistics.median(faults[i]),
            "compile_seconds": row.compile_seconds,
            "flops": row.flops,
        }
        for i, row in enumerate(rows)
    ]


def environment(with_torch: bool) -> dict:
    """What the numbers were measured on."""
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    if with_torch:
        import torch

        versions["torch"] = torch.__version__
    return versions | {
        "device": jax.devices()[0].device_kind,
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def show(results: list[dict]) -> None:
    """Prints a table."""
    columns = ("steps/s", "x torch", "CPU s", "x torch", "faults", "compile", "GFLOP")
    print(" " * 56 + "".join(f"{column:>9}" for column in columns))
    task = None
    for r in results:
        if r["task"] != task:
            task = r["task"]
            print(task)

        def cell(key, scale=1.0, digits=2, r=r):
            return "-" if r[key] is None else f"{r[key] * scale:.{digits}f}"

        print(
            f"  {r['name'][:53]:54}{cell('steps_per_second'):>9}{cell('speed_against_torch'):>9}"
            f"{cell('cpu_seconds_per_step', digits=4):>9}{cell('cpu_seconds_against_torch'):>9}"
            f"{cell('page_faults_per_step', digits=0):>9}"
            f"{cell('compile_seconds'):>9}{cell('flops', 1e-9, 3):>9}"
        )


def main(argv: list[str] | None = None) -> list[dict]:
    """Parses the command line, measures, prints, and returns the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--tasks", nargs="+", default=["mlp", "resnet"], choices=TASKS)
    parser.add_argument("--rounds", type=int, default=15, help="turns of every row")
    parser.add_argument(
        "--fresh_memory",
        action="store_true",
        help="do without `jaxrobust.process.keep_freed_memory`",
    )
    parser.add_argument("--no_torch", action="store_true", help="JAX's rows only")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the program")
    args = parser.parse_args(argv)
    if not args.fresh_memory:
        process.keep_freed_memory()
    with_torch = not args.no_torch and importlib.util.find_spec("torch") is not None
    if not with_torch:
        print("Without PyTorch (not installed, or --no_torch): JAX's rows only.")
    rows = [row for task in args.tasks for row in TASKS[task](args.tiny, with_torch)]
    results, where = measure(rows, args.rounds), environment(with_torch)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    show(results)
    if args.json:
        args.json.write_text(json.dumps({"environment": where, "results": results}, indent=2))
    return results


if __name__ == "__main__":
    main()
