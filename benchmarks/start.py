"""Start-up cost: processor time of commands, as ratios to importing JAX.

    python -m benchmarks.start [--rounds 3] [--only typo dry_run] [--json out.json]

Each row is a process of its own; all take turns. "times" is the median over the rounds of the row's
processor time (user and system, all threads) over that of `import jax, flax, optax` in the same
round. Rows marked "again" have a compilation cache that the row before them has filled. A cold
file cache, or other programs on the machine, change seconds far more than ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

BASE = "import jax, flax, optax"
_FIT = """
import time, numpy as np
from sklearn.datasets import make_classification
X, y = make_classification(8000, 100, n_informative=20, n_classes=10, random_state=0)
{make}
begin = time.process_time()
model.fit(X, y)
print("seconds", time.process_time() - begin)
"""
_OURS = (
    "from jaxrobust import RobustClassifier\nimport jax, flax, optax, jaxrobust.runs.fit\n"
    "model = RobustClassifier(method='supervised', epochs=10, random_state=0)"
)
_THEIRS = (
    "from sklearn.neural_network import MLPClassifier\nimport warnings\n"
    "warnings.simplefilter('ignore')\n"
    "model = MLPClassifier((256, 256), batch_size=64, max_iter=10, n_iter_no_change=99)"
)


class Row(NamedTuple):
    """A command; `bar` is what its ratio is to stay below, `of` the row that it is a ratio to."""

    arguments: list[str]
    bar: float | None = None
    of: str = "base"
    code: int = 0


def _main(*arguments: str) -> list[str]:
    return ["-m", "jaxrobust.main", *arguments]


def rows(workdir: Path) -> dict[str, Row]:
    """Returns the commands by name; `workdir` holds a run, and a file of 100 images."""
    dal, run = "--config=digits_dal", f"--workdir={workdir / 'run'}"
    predict = _main("--mode=predict", run, f"--input={workdir / 'x.npy'}")
    fit = {
        name: ["-c", _FIT.format(make=make)]
        for name, make in (("ours", _OURS), ("theirs", _THEIRS))
    }
    return {
        "base": Row(["-c", BASE]),
        "import jaxrobust": Row(["-c", "import jaxrobust"]),
        "RobustClassifier": Row(["-c", "from jaxrobust import RobustClassifier"], 1.0),
        "help": Row(_main("--help")),
        "wrong name": Row(_main(dal, "--config.train.epoch=3"), code=2),
        "wrong value": Row(_main(dal, "--config.train.epochs=-1"), code=2),
        "dry_run": Row(_main(dal, "--dry_run"), 2.0),
        "predict": Row(predict),
        "predict again": Row(predict, 2.0, "dry_run"),
        "MLPClassifier, fit": Row(fit["theirs"]),
        "RobustClassifier, fit": Row(fit["ours"], None, "MLPClassifier, fit"),
        "RobustClassifier, fit again": Row(fit["ours"], 1.3, "MLPClassifier, fit"),
    }


def seconds(row: Row, environment: dict[str, str]) -> float:
    """Returns the processor seconds of a command, or what it prints of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *row.arguments], capture_output=True, text=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != row.code:
        raise SystemExit(f"{row.arguments}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        if line.startswith("seconds "):
            return float(line.split()[1])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(workdir: Path, environment: dict[str, str]) -> None:
    """Trains a small run, and writes 100 images to predict."""
    code = (
        "import numpy as np; from jaxrobust import main; from pathlib import Path;"
        f"np.save({str(workdir / 'x.npy')!r}, np.zeros((100, 8, 8, 1), np.uint8));"
        f"main.run(['main', '--config=digits_dal', '--workdir={workdir / 'run'}',"
        "'--config.train.epochs=1', '--config.log.figures=False'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def measure(names: list[str], rounds: int) -> dict[str, dict]:
    """Returns seconds and ratio of each row, by name."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        plain = os.environ | {"JAX_PLATFORMS": "cpu", "JAXROBUST_COMPILE_CACHE": "off"}
        prepare(workdir, plain)
        every = rows(workdir)
        chosen = [n for n in every if not names or n in names or n == "base"]
        chosen += [every[n].of for n in chosen if every[n].of not in chosen]
        for turn in range(rounds + 1):  # The first fills the file cache.
            cache = {"JAXROBUST_COMPILE_CACHE": str(workdir / f"cache{turn}")}
            for name in (n for n in every if n in chosen):
                took = seconds(every[name], plain | cache)
                if turn:
                    found.setdefault(name, []).append(took)
    table = {}
    for name, values in found.items():
        of, bar = every[name].of, every[name].bar
        ratios = [a / b for a, b in zip(values, found[of], strict=True)]
        ratio = statistics.median(ratios)
        table[name] = {"seconds": statistics.median(values), "of": of, "ratio": ratio, "bar": bar}
    return table


def main(arguments: list[str] | None = None) -> dict[str, dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    table = measure(args.only, args.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load"
          f" {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")  # fmt: skip
    print(f"{'':30}{'CPU s':>8}{'times':>8}  of{'':20}{'at most':>8}")
    for name, row in table.items():
        bar = "" if row["bar"] is None else f"{row['bar']:.1f}"
        print(f"{name:30}{row['seconds']:8.2f}{row['ratio']:8.2f}  {row['of']:22}{bar:>8}")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")
    return table


if __name__ == "__main__":
    main()
