"""Cost of the audit: scores, report, and the recording of training dynamics in a step.

    python -m benchmarks.audit [--sizes 50000x10 1000000x100] [--networks small_cnn resnet32]
                               [--reports 50000x10 50000x100]

Scores: seconds, processor seconds and peak memory of one call of `find_label_issues`, in a process
of its own, with predictions only and with training dynamics and weights besides. Report: seconds
and size of the report of as many images of 32 x 32 x 3, a fifth of whose labels are wrong, with all
its galleries and charts. Step: a training step with and without recording, taking turns; median of
the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jaxrobust import config as configuration
from jaxrobust.audit import find_label_issues, report
from jaxrobust.audit.scoring import against_truth
from jaxrobust.runs.experiment import assemble
from jaxrobust.runs.fit import init_state
from jaxrobust.training.loop import Place, Runner

SCORES = """
import resource, time
import numpy as np
from jaxrobust.audit import find_label_issues

n, k, parts = {n}, {k}, {parts}
rng = np.random.default_rng(0)
true = rng.integers(0, k, n)
given = np.where(rng.random(n) < 0.2, rng.integers(0, k, n), true)
p = rng.random((n, k), dtype=np.float32)
p[np.arange(n), true] += k / 4
p /= p.sum(1, keepdims=True)
evidence = {{"probabilities": p}}
if parts:
    during = np.repeat(p[:, None], parts, 1) if parts > 1 else p
    evidence |= {{"training_probabilities": during, "weights": rng.random(n)}}
begin, cpu = time.perf_counter(), time.process_time()
found = find_label_issues(given, **evidence)
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(seconds, cpu, peak, found.noise_rate, (given != true).mean())
"""


def scores(n: int, k: int, parts: int) -> dict:
    """Runs one call in a new process; `parts` of the training's predictions, 0 for none."""
    code = SCORES.format(n=n, k=k, parts=parts)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, cpu, peak, estimated, wrong = map(float, done.stdout.split())
    return {
        "examples": n,
        "classes": k,
        "parts": parts,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_gib": peak,
        "estimated": estimated,
        "wrong": wrong,
    }


def page(n: int, k: int) -> dict:
    """Makes the report of n images of k classes, of whose labels a fifth is wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < 0.2, (true + 1) % k, true)
    p = 0.9 * np.eye(k, dtype=np.float32)[true] + 0.1 / k
    issues = find_label_issues(given, probabilities=p, weights=rng.random(n))
    groups = {"many": np.ones(k, bool)}
    numbers = {"epoch": 1, "accuracy": 0.8, "per_class": [0.8] * k}
    results = {"seed": 0, "epochs": 1, "steps": 1, "last": numbers, "selection_split": None}
    curves = rng.random((n, 32), dtype=np.float32)
    x = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
    begin = time.perf_counter()
    audit = {
        "flagged": issues.num_issues,
        "noise_rate": issues.noise_rate,
        "held_out": None,
        "noise_rate_interval": issues.noise_rate_interval,
        "expected_interval": issues.num_issues_interval,
        "truth": against_truth(issues, true, groups),
    }
    made = report.render(
        issues,
        name="benchmark",
        results=results | {"audit": audit},
        config="{}",
        environment={},
        true=true,
        curves=curves,
        train=SimpleNamespace(x=x),
    )
    return {
        "examples": n,
        "classes": k,
        "seconds": time.perf_counter() - begin,
        "megabytes": len(made.encode()) / 1e6,
        "pictures": made.count("data:image/"),
    }


def step(rounds: int, network: str) -> dict:
    """Times epochs of digits with and without recording, taking turns; the first is left out."""
    config = configuration.load("digits_losses:ce")
    config.network.name = network
    config = configuration.validate(config)
    runs = []
    for records in (False, True):
        e = assemble(config)
        runner = Runner(e.method, e.feed, e.forward, e.key, loop=e.loop, layout=e.layout)
        state = init_state(e)
        runs.append([runner, state if records else state._replace(dynamics={}), Place()])
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        for run, times in zip(runs, seconds, strict=True):
            runner, state, place = run
            begin = time.perf_counter()
            run[1], _ = runner.epoch(state, place, lambda *_: None)
            times.append(time.perf_counter() - begin)
    steps = int(runs[0][1].step) / (rounds + 1)
    ratio = statistics.median(b / a for a, b in zip(*(t[1:] for t in seconds), strict=True))
    return {
        "network": network,
        "rounds": rounds,
        "ratio": ratio,
        "step_ms": 1000 * statistics.median(seconds[0][1:]) / steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["50000x10", "1000000x100"])
    parser.add_argument("--reports", nargs="*", default=["50000x10", "50000x100"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--networks", nargs="*", default=["small_cnn", "resnet32"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict]] = {"scores": [], "reports": [], "steps": []}
    for size in options.sizes:
        n, k = map(int, size.split("x"))
        for parts in (0, 4 if n * k <= 1 << 21 else 1):
            row = scores(n, k, parts)
            found["scores"].append(row)
            what = "predictions, dynamics, weights" if parts else "predictions"
            print(
                f"{n} x {k}, {what}: {row['seconds']:.2f} s, {row['cpu_seconds']:.2f} s "
                f"of processor time, {row['peak_gib']:.2f} GiB",
                flush=True,
            )
    for size in options.reports:
        row = page(*map(int, size.split("x")))
        found["reports"].append(row)
        print(
            f"report of {row['examples']} images, {row['classes']} classes: "
            f"{row['seconds']:.2f} s, {row['megabytes']:.2f} MB, {row['pictures']} pictures",
            flush=True,
        )
    for network in options.networks:
        row = step(options.rounds, network)
        found["steps"].append(row)
        print(
            f"{network}: a step of {row['step_ms']:.2f} ms takes {row['ratio']:.3f} times as "
            "long with recording",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
