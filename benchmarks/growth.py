"""Growth of time and memory with rows, images, classes and epochs: a table and a plot with slopes.

    python -m benchmarks.growth [--only rows images classes epochs] [--most 100000]
        [--png growth.png] [--json out.json]

Each point is a process that fits `RobustClassifier(method="supervised")` twice, from two seeds; the
second fit compiles nothing, and its processor time is what is shown, with the growth of the
process's peak memory over both. A slope is that of log time (or memory) over log size between two
points: 1 is linear, and small sizes are below it, since part of a fit costs the same for any size.
`rows` also shows scikit-learn's `SGDClassifier`, one pass over the same rows, in processor seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

AXES: dict[str, tuple[int, ...]] = {
    "rows": (1_000, 10_000, 100_000, 1_000_000),
    "images": (1_000, 10_000, 100_000),
    "classes": (2, 10, 100, 1_000),
    "epochs": (10, 100, 1_000, 5_000),
}
"""Sizes; the rest of a point is in `point`."""


def point(axis: str, size: int) -> dict[str, int]:
    """Returns rows, columns (0: images), classes and epochs of a point."""
    shape = {"rows": 20_000, "columns": 20, "classes": 10, "epochs": 1}
    if axis == "images":
        return shape | {"rows": size, "columns": 0}
    if axis == "epochs":
        shape["rows"] = 1_000
    return shape | {axis: size}


def measure(rows: int, columns: int, classes: int, epochs: int) -> dict[str, float]:
    """Fits twice in this process; returns processor seconds of the second, and MiB of both."""
    import resource
    import time
    import warnings

    import numpy as np

    from jaxrobust import RobustClassifier

    rng = np.random.default_rng(0)
    y = np.arange(rows) % classes
    if columns:
        centers = rng.normal(size=(classes, columns))
        x = (centers[y] + rng.normal(size=(rows, columns))).astype(np.float32)
    else:
        x = rng.integers(0, 256, (rows, 16, 16, 1), dtype=np.uint8)
    batch = 256 if rows >= 2_000 else 64

    def fit(seed: int) -> None:
        RobustClassifier(
            method="supervised", epochs=epochs, batch_size=batch, random_state=seed
        ).fit(x, y)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit(0)
    begin = time.process_time()
    fit(1)
    found = {"seconds": time.process_time() - begin}
    found["MiB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found["data_MiB"] = x.nbytes / 2**20
    if columns and epochs == 1:
        from sklearn.linear_model import SGDClassifier

        warnings.simplefilter("ignore")
        begin = time.process_time()
        SGDClassifier(max_iter=1, tol=None).fit(x, y)
        found["sgd_seconds"] = time.process_time() - begin
    return found


def of_process(axis: str, size: int) -> dict[str, float]:
    """Returns what `measure` finds in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--point", json.dumps(point(axis, size))],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def slopes(found: dict[int, dict[str, float]], key: str) -> list[float]:
    """Returns the slope between each two neighboring sizes."""
    sizes = list(found)
    return [
        math.log(max(found[b][key], 1e-9) / max(found[a][key], 1e-9)) / math.log(b / a)
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]


def draw(table: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Draws time and memory over size, one panel per axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(table), figsize=(3.2 * len(table), 3), squeeze=False)
    for panel, (axis, found) in zip(axes[0], table.items(), strict=True):
        sizes = list(found)
        for key, label in (("seconds", "processor seconds"), ("MiB", "memory, MiB")):
            panel.loglog(sizes, [found[n][key] for n in sizes], "o-", label=label)
        first = found[sizes[-1]]["seconds"] / sizes[-1]
        panel.loglog(sizes, [first * n for n in sizes], ":", color="gray", label="linear")
        panel.set_xlabel(axis)
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> dict[str, dict[int, dict[str, float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(AXES), choices=AXES)
    parser.add_argument("--most", type=int, default=10**9, help="largest size of any axis")
    parser.add_argument("--png", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.point:
        print(json.dumps(measure(**json.loads(args.point))))
        return {}
    table: dict[str, dict[int, dict[str, float]]] = {}
    for axis in args.only:
        found = {size: of_process(axis, size) for size in AXES[axis] if size <= args.most}
        table[axis] = found
        time, memory = (["", *slopes(found, key)] for key in ("seconds", "MiB"))
        print(f"{axis:>10}{'CPU s':>9}{'slope':>7}{'MiB':>8}{'slope':>7}{'SGD, s':>9}")
        for size, a, b in zip(found, time, memory, strict=True):
            row = found[size]
            a, b = (f"{v:7.2f}" if isinstance(v, float) else f"{v:7}" for v in (a, b))
            sgd = f"{row['sgd_seconds']:9.2f}" if "sgd_seconds" in row else ""
            print(f"{size:>10}{row['seconds']:9.2f}{a}{row['MiB']:8.0f}{b}{sgd}", flush=True)
    if args.png:
        draw(table, args.png)
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")
    return table


if __name__ == "__main__":
    main()
