"""Cost of augmentation and sampling relative to a ResNet-32 step: views, operations, ranks.

    python -m benchmarks.augment [--json out.json] [--rounds 30] [--batch_size 128] [--tiny]

Each row is one compiled call for a batch, from uint8 to the result on the device. The rows take
turns within one run, so that what else the machine does falls on all of them; a row's time is
the median over the rounds, its share the median of its time over that of the step in the same
round. CPU seconds count all threads of this process. Compilation is reported apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.train_step import environment, jax_row
from jaxrobust import networks, process
from jaxrobust.augment import pillow_ops
from jaxrobust.augment import policies as augment_policy
from jaxrobust.augment import views as augment
from jaxrobust.methods import sampling
from jaxrobust.objectives import ranks_by_class

STEP = "ResNet-32 training step"


class Row(NamedTuple):
    """`call()` does the work once and waits for it."""

    group: str
    name: str
    call: Callable[[], object]
    compile_seconds: float


def row(group: str, name: str, function: Callable, *args) -> Row:
    """Compiles `function` for `args`."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    return Row(group, name, lambda: jax.block_until_ready(compiled(*args)), seconds)


def images(batch_size: int, side: int) -> jax.Array:
    """Random pixels, uint8 [B, side, side, 3]."""
    shape = (batch_size, side, side, 3)
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


def step_row(batch_size: int, width: int, blocks: int) -> Row:
    """A plain ResNet-32 step on CIFAR-sized images, as in `benchmarks.train_step`."""
    network = networks.make("resnet32", 10, width=width, blocks=blocks)
    x, y = images(batch_size, 32).astype(jnp.float32) / 255, jnp.arange(batch_size) % 10
    step = jax_row("", "", network, x, y, 1)
    return Row("step", STEP, step.call, step.compile_seconds)


def view_rows(batch_size: int, large: int) -> list[Row]:
    """All views: of 32 x 32 images, and the ImageNet ones from `large` to 7/8 of it."""
    key, rows = jax.random.key(0), []
    for kind in augment.VIEWS:
        side, size = (large, large * 7 // 8) if kind.startswith("imagenet") else (32, None)
        view = augment.make_view(
            kind, mean=augment.CIFAR_MEAN, std=augment.CIFAR_STD, image_size=size
        )
        name = f"{kind}, {side} x {side}" + (f" to {size} x {size}" if size else "")
        rows.append(row("view", name, view, key, images(batch_size, side)))
    return rows


def operation_rows(batch_size: int) -> list[Row]:
    """Each operation for every image of a 32 x 32 batch, and the two policies alone."""
    key, x = jax.random.key(0), images(batch_size, 32)
    rows = [
        row("policy", "auto_augment", augment_policy.auto_augment, key, x),
        row("policy", "rand_augment", augment_policy.rand_augment, key, x),
        row("step of a view", "random_crop", augment.random_crop, key, x),
        row("step of a view", "random_flip", augment.random_flip, key, x),
        row("step of a view", "random_cutout", augment.random_cutout, key, x),
    ]
    index = jnp.zeros((batch_size, 1), jnp.int32)
    for name in pillow_ops.OPERATIONS[1:]:
        operation = augment_policy.both_signs(name, 2 / 3)[1]

        def apply(x, index, operation=operation):
            return pillow_ops.apply(x, [operation], index)

        rows.append(row("operation", name, apply, x, index))
    return rows


def epoch_row(n: int) -> Row:
    """What the dynamic loss does once an epoch with the losses of n examples."""
    labels = jnp.arange(n) % 10
    values = jax.random.uniform(jax.random.key(1), labels.shape)
    candidates, kept = sampling.metadata_sizes(np.bincount(labels))

    def choose(key, values):
        ranks = ranks_by_class(values, labels, 10)
        return ranks, sampling.hierarchical_sampling(
            key, values, labels, num_classes=10, candidates=candidates, kept=kept, size=10 * kept
        )

    return row(
        "once an epoch", f"ranks and metadata, {n} examples", choose, jax.random.key(0), values
    )


def measure(rows: list[Row], rounds: int) -> list[dict]:
    """Runs the rows in turns; the first is the step that the shares refer to."""
    for r in rows:
        r.call()
    wall, cpu = np.zeros((len(rows), rounds)), np.zeros((len(rows), rounds))
    for n in range(rounds):
        for i, r in enumerate(rows):
            start, start_cpu = time.perf_counter(), time.process_time()
            r.call()
            wall[i, n] = time.perf_counter() - start
            cpu[i, n] = time.process_time() - start_cpu
    return [
        {
            "group": r.group,
            "name": r.name,
            "seconds": statistics.median(wall[i]),
            "fastest_seconds": min(wall[i]),
            "cpu_seconds": statistics.median(cpu[i]),
            "share_of_step": statistics.median(wall[i] / wall[0]),
            "compile_seconds": r.compile_seconds,
        }
        for i, r in enumerate(rows)
    ]


def show(results: list[dict]) -> None:
    """Prints a table."""
    print(f"{'':40}{'ms':>9}{'fastest':>9}{'CPU ms':>9}{'of step':>9}{'compile s':>11}")
    group = None
    for r in results:
        if r["group"] != group:
            group = r["group"]
            print(group)
        times = (r[k] * 1e3 for k in ("seconds", "fastest_seconds", "cpu_seconds"))
        print(
            f"  {r['name']:38}" + "".join(f"{t:9.2f}" for t in times)
            + f"{r['share_of_step']:9.1%}{r['compile_seconds']:11.2f}"
        )  # fmt: skip


def main(argv: list[str] | None = None) -> list[dict]:
    """Parses the command line, measures, prints, and returns the results."""
    process.keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=30, help="turns of every row")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the program")
    args = parser.parse_args(argv)
    batch_size, width, blocks, large = (8, 4, 1, 48) if args.tiny else (args.batch_size, 16, 5, 256)
    rows = [step_row(batch_size, width, blocks), *view_rows(batch_size, large)]
    rows += [*operation_rows(batch_size), epoch_row(500 if args.tiny else 50_000)]
    where = environment(with_torch=False) | {"batch_size": batch_size}
    results = measure(rows, args.rounds)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    show(results)
    if args.json:
        args.json.write_text(json.dumps({"environment": where, "results": results}, indent=2))
    return results


if __name__ == "__main__":
    main()
