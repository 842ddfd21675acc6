r"""The league: methods compared on the same data, one run a cell, from one table.

    python -m benchmarks.league run --league=small --data_dir=TFDS_DIR --labels_dir=LABELS \
        --minutes=9
    python -m benchmarks.league run --league=own --set data.name=folder --set data.path=photos
    python -m benchmarks.league table --league=small            # Markdown of what has run
    python -m benchmarks.league plan --league=published ...     # commands, steps and memory
    python -m benchmarks.league pack --data_dir=TFDS_DIR --parts=FOLDER
    python -m benchmarks.league unpack --parts=FOLDER --npz=cifar10.npz

A cell is a league, a set of labels, a method and a seed; its run is the very command that its JSON
names, in OUT/LEAGUE/LABELS/METHOD/SEED/run. `run` goes through the cells in the order of the table,
saves after every epoch, stops after so many minutes, and goes on with the next call; a cell that is
finished is `cell.json` beside its run: command, commit, device, versions, seconds, and the test
numbers of the last epoch, the selected one, Label Wave's and the average's. The best epoch on the
test data is there for information: nobody can choose by it.

LABELS is a folder of files `human_worst.npy`, `symmetric_40.npy`, ... with a label for each of
CIFAR-10's 50,000 training images, in the original order. `pack` writes the images losslessly into
parts below 60 MB, for machines without a network; `unpack` makes of them the file that `--npz`
takes in place of --data_dir. The league `own` is for any other data: `--set` names them, and
changes any other setting of all cells, e.g. `--set network.name=mlp --set augment.kind=none` for a
table.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
Settings = dict[str, Any]


class Method(NamedTuple):
    """A row of a league: recipe, settings by full name, and what is to be said of it."""

    recipe: str
    settings: Settings
    note: str = ""


class League(NamedTuple):
    """Methods by name, label sets by name, and the settings that all cells share."""

    methods: dict[str, Method]
    labels: dict[str, Settings]
    shared: Settings
    note: str


class Cell(NamedTuple):
    """One run."""

    league: str
    labels: str
    method: str
    seed: int

    def folder(self, out: Path) -> Path:
        """The cell's folder: `cell.json`, `seconds.json` and `run`, the run's workdir."""
        return out / self.league / self.labels / self.method / str(self.seed)


_AVERAGED = {"train.ema": 0.997}
_EVERY_CELL = {
    "eval.label_wave": True,
    "checkpoint.every_seconds": 0.0,
    "checkpoint.keep": 1,
    "log.figures": False,
    "log.tensorboard": False,
}
_SMALL = {
    "network.name": "small_vgg",
    "network.width": 24,
    "optimizer.weight_decay": 1e-4,
    "train.epochs": 20,
    "eval.every": 2,
}
_AGREEMENT = {
    "method.name": "agreement",
    "method.warmup_epochs": 4,
    "method.consistency_from": 10,
    "method.weak_view": "none",
    "augment.kind": "crop_flip",
    **_AVERAGED,
}
_CURVENET = {
    "network.name": "small_vgg",
    "network.width": 24,
    "train.epochs": 20,
    "optimizer.milestones": (10, 16),
    "method.probe_epochs": 20,
    "eval.every": 2,
}
_SMALL_METHODS = {
    "ce": Method("cifar10_small:ce", _SMALL, "cross-entropy"),
    "elr": Method("cifar10_small:elr", _SMALL),
    "elr_ema_mixup": Method(
        "cifar10_small:elr", _SMALL | _AVERAGED | {"train.mixup_alpha": 1.0}, "ELR, EMA, mixup"
    ),
    "agreement": Method("cifar10_small:ce", _SMALL | _AGREEMENT, "random crops and mirroring"),
    "agreement_2": Method(
        "cifar10_small:ce",
        _SMALL | _AGREEMENT | {"method.networks": 2},
        "two networks; random crops and mirroring",
    ),
    "ce_crop_flip": Method(
        "cifar10_small:ce",
        _SMALL | _AVERAGED | {"augment.kind": "crop_flip"},
        "cross-entropy with agreement's augmentation and average",
    ),
    "gce": Method("cifar10_small:gce", _SMALL),
    "dal": Method("cifar10_small:dal", _SMALL),
    "jal_ce": Method("cifar10_small:jal_ce", _SMALL | {"optimizer.weight_decay": 0.0}),
    "dynamic_loss": Method("cifar10_small:dynamic_loss", _SMALL, "no clean data"),
    "curvenet": Method(
        "cifar10_curvenet:small", _CURVENET, "200 clean images as metadata; a probe of 20 epochs"
    ),
}
_TAIL_METHODS = {
    "ce": Method("cifar10_small:ce", _SMALL),
    "logit_adjusted": Method("cifar10_small:logit_adjusted", _SMALL),
    "elr": Method("cifar10_small:elr", _SMALL),
    "dynamic_loss": Method("cifar10_small:dynamic_loss", _SMALL, "no clean data"),
    "curvenet": Method("cifar10_curvenet:small", _CURVENET, "200 clean images as metadata"),
}
_PUBLISHED_LABELS = (
    *(f"symmetric_{rate}" for rate in (20, 40, 60, 80)),
    *(f"{kind}_{rate}" for kind in ("asymmetric", "instance") for rate in (20, 40)),
    "human_worst",
)


def _file(name: str) -> Settings:
    return {"data.labels_file": f"{name}.npy"}


def _tail(rate: float, factor: float) -> Settings:
    return {
        "data.imbalance.kind": "exponential",
        "data.imbalance.factor": factor,
        "data.noise.kind": "uniform_by_class_size",
        "data.noise.rate": rate,
    }


_OWN = {
    "data.validation.fraction": 0.1,
    "optimizer.learning_rate": 0.05,
    "train.batch_size": 64,
    "augment.kind": "none",
}
_UNSPOILED = {
    "data.noise.kind": "none",
    "data.noise.rate": 0.0,
    "data.imbalance.kind": "none",
    "data.imbalance.factor": 1.0,
}


def _own(name: str, method: Method) -> Method:
    """Returns a method of the small league for data of any size, on which nothing is planted."""
    loss = method.recipe.partition(":")[2]
    if name == "dynamic_loss":
        more = _UNSPOILED | {"method.warmup_epochs": 5}
        return Method("digits_dynamic_loss", _OWN | method.settings | more, method.note)
    return Method(f"cifar10_losses:{loss}", _OWN | method.settings, method.note)


LEAGUES = {
    "small": League(
        _SMALL_METHODS,
        {name: _file(name) for name in ("human_worst", "symmetric_40")},
        _EVERY_CELL,
        "CIFAR-10, 10,000 images, small_vgg, 20 epochs, no augmentation where none is named",
    ),
    "small_tail": League(
        _TAIL_METHODS,
        {f"noise_{int(100 * rate)}": _tail(rate, 0.1) for rate in (0.2, 0.4)},
        _EVERY_CELL,
        "CIFAR-10, 10,000 images before the tail of 0.1 is cut, small_vgg, 20 epochs",
    ),
    "own": League(
        {name: _own(name, method) for name, method in _SMALL_METHODS.items() if name != "curvenet"},
        {"given": {}},
        _EVERY_CELL,
        "the user's own data, an epoch selected on 10 % of the given labels",
    ),
    "published": League(
        {
            name: Method(f"cifar10_losses:{name}", {"eval.every": 1})
            for name in ("ce", "dal", "gce", "jal_ce", "elr")
        },
        {name: _file(name) for name in _PUBLISHED_LABELS},
        _EVERY_CELL,
        "CIFAR-10, ResNet-18, 150 epochs, the label files of DAL's program",
    ),
    "published_tail": League(
        {
            "dynamic_loss": Method("cifar10_dynamic_loss", {}, "no clean data"),
            "slmo": Method("cifar10_dynamic_loss", {"method.skip_stages": 2}, "SLMO"),
            "ce": Method("cifar10_dynamic_loss", {"method.name": "supervised"}),
            "logit_adjusted": Method(
                "cifar10_dynamic_loss",
                {"method.name": "supervised", "loss.name": "logit_adjusted"},
            ),
        },
        {
            f"noise_{int(100 * rate)}_tail_{factor}": _tail(rate, factor)
            for rate in (0.2, 0.4)
            for factor in (0.1, 0.02)
        },
        _EVERY_CELL,
        "CIFAR-10, ResNet-32, 325 epochs, the dynamic loss's recipe",
    ),
    "published_curvenet": League(
        {"curvenet": Method("cifar10_curvenet", {}, "1,000 clean images as metadata")},
        {"noise_40_tail_0.05": _tail(0.4, 0.05)},
        _EVERY_CELL,
        "CIFAR-10, ResNet-32, 300 + 200 epochs, CurveNet's recipe",
    ),
}

NOISYPY = "third party's logs of CIFAR-10N worst, all 50,000 images, last epoch (noisypy)"
PUBLISHED: dict[tuple[str, str], tuple[float, str]] = {
    ("human_worst", "ce"): (68.3, NOISYPY),
    ("human_worst", "elr"): (87.8, NOISYPY),
    ("human_worst", "elr_ema_mixup"): (91.3, NOISYPY + "; ELR+, which has two networks"),
}
"""Test accuracy in percent that others report, by labels and method, and where it is from."""


def cells(league: str, seeds: tuple[int, ...] = SEEDS) -> Iterator[Cell]:
    """Yields the cells of a league in the order in which they run: labels, methods, seeds."""
    for labels in LEAGUES[league].labels:
        for method in LEAGUES[league].methods:
            for seed in seeds:
                yield Cell(league, labels, method, seed)


class Data(NamedTuple):
    """Where CIFAR-10 and its label files are; `npz` in place of `data_dir`, see `unpack`.

    `more` are settings by full name, put over those of every cell.
    """

    data_dir: str | None = None
    labels_dir: str | None = None
    npz: str | None = None
    more: tuple[tuple[str, Any], ...] = ()

    def settings(self) -> Settings:
        """Returns the settings that name the data set."""
        if self.npz is not None:
            return {"data.name": "npz", "data.path": self.npz}
        return {"data.data_dir": self.data_dir}


def overrides(cell: Cell, data: Data) -> tuple[str, Settings]:
    """Returns a cell's recipe, and the settings put over it."""
    league = LEAGUES[cell.league]
    method = league.methods[cell.method]
    found = league.shared | method.settings | league.labels[cell.labels] | data.settings()
    if "data.labels_file" in found:
        found["data.labels_file"] = str(Path(data.labels_dir or ".") / found["data.labels_file"])
    return method.recipe, found | dict(data.more) | {"seed": cell.seed}


def configuration(cell: Cell, data: Data, more: Settings | None = None):
    """Returns a cell's configuration, `more` put over it."""
    from jaxrobust import config

    recipe, found = overrides(cell, data)
    return config.validate(config.override(config.load(recipe), found | (more or {})))


def command(cell: Cell, data: Data, out: Path) -> str:
    """Returns the command that runs a cell by itself."""
    recipe, found = overrides(cell, data)
    words = [f"--config.{key}={value}" for key, value in found.items() if value is not None]
    workdir = cell.folder(out) / "run"
    words = [f"'{w}'" if "(" in w or " " in w else w for w in words]
    return f"python -m jaxrobust.main --config={recipe} {' '.join(words)} --workdir={workdir}"


def run(
    league: str,
    data: Data,
    out: Path,
    minutes: float | None = None,
    seeds: tuple[int, ...] = SEEDS,
    only: tuple[str, ...] = (),
    more: Settings | None = None,
) -> int:
    """Runs the cells that are left; returns how many are, after the time is up.

    Args:
      league: see `LEAGUES`.
      data: see `Data`.
      out: folder of the cells.
      minutes: after which the run stops, its last epoch saved; None: when all is done.
      seeds: of the cells.
      only: methods, or pairs LABELS/METHOD; (): all.
      more: settings put over those of every cell, for a test.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    left = [
        cell
        for cell in cells(league, seeds)
        if not (cell.folder(out) / "cell.json").exists()
        and (not only or {cell.method, f"{cell.labels}/{cell.method}"} & set(only))
    ]
    while left and (end is None or time.monotonic() < end - 5):
        if not _run_cell(left[0], data, out, end, more):
            break
        left.pop(0)
    return len(left)


def _run_cell(cell: Cell, data: Data, out: Path, end: float | None, more) -> bool:
    """Runs a cell, or goes on with it; returns whether it is finished."""
    import jaxrobust
    from jaxrobust.training.signals import Interrupted

    folder, begin = cell.folder(out), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    alarm = None
    if end is not None:
        alarm = threading.Timer(end - begin, os.kill, (os.getpid(), signal.SIGTERM))
        alarm.daemon = True
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # outside of a run: too late to matter
    try:
        if alarm is not None:
            alarm.start()
        results = jaxrobust.train(configuration(cell, data, more), folder / "run")
    except Interrupted:
        _add_seconds(folder, begin)
        return False
    finally:
        if alarm is not None:
            alarm.cancel()
        signal.signal(signal.SIGTERM, before)
    seconds = _add_seconds(folder, begin)
    text = json.dumps(summary(cell, data, out, results, seconds), indent=2) + "\n"
    part = folder / "cell.json.part"
    part.write_text(text)
    part.replace(folder / "cell.json")
    print(f"{'/'.join(map(str, cell))}: {results['last']['accuracy']:.4f}", flush=True)
    return True


def _add_seconds(folder: Path, begin: float) -> float:
    """Adds to the cell's wall time, over all calls; returns the sum."""
    path = folder / "seconds.json"
    before = json.loads(path.read_text()) if path.exists() else 0.0
    path.write_text(json.dumps(before + time.monotonic() - begin))
    return before + time.monotonic() - begin


_KEPT = ("epoch", "accuracy", "balanced_accuracy", "memorised")


def summary(cell: Cell, data: Data, out: Path, results: dict, seconds: float) -> dict[str, Any]:
    """Returns the contents of `cell.json`."""
    from jaxrobust.training.metrics_log import read_rows

    workdir = cell.folder(out) / "run"
    environment = json.loads((workdir / "environment.json").read_text())
    rows = [r for r in read_rows(workdir / "metrics.jsonl") if r.get("test_accuracy") is not None]
    best = max(rows, key=lambda row: row["test_accuracy"])
    kept = ("last", "selected", "label_wave", "ema")
    numbers = {
        name: {key: results[name].get(key) for key in _KEPT}
        for name in kept
        if name in results and (name != "selected" or results["selection_split"])
    }
    return {
        "cell": cell._asdict(),
        "command": command(cell, data, out),
        "commit": commit(),
        "device": environment["device_kind"],
        "backend": environment["backend"],
        "versions": environment["packages"] | {"python": environment["python"]},
        "seconds": round(seconds, 1),
        "epochs": results["epochs"],
        "noise_rate": results["noise"]["realised_rate"],
        **numbers,
        "best_on_test_for_information": {
            "epoch": best["epoch"],
            "accuracy": best["test_accuracy"],
            "balanced_accuracy": max(row["test_balanced_accuracy"] for row in rows),
        },
    }


def commit() -> str:
    """Returns the checkout's commit, with "+" where tracked files are changed; or "unknown"."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    name = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "jaxrobust", "configs")
    return f"{name}{'+' if changed else ''}" if name else "unknown"


def finished(league: str, out: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Returns what the finished cells say, by labels and method."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for labels in LEAGUES[league].labels:
        for method in LEAGUES[league].methods:
            paths = sorted((out / league / labels / method).glob("*/cell.json"))
            if paths:
                found[labels, method] = [json.loads(path.read_text()) for path in paths]
    return found


def table(league: str, out: Path) -> str:
    """Returns a Markdown table: mean and deviation over the seeds of each labels and method."""
    head = (
        "labels | method | seeds | last | selected | Label Wave (epoch) | EMA "
        "| best on test, for information | wrong labels memorized | seconds | published"
    )
    lines = [f"| {head} |", "|" + " --- |" * 11]
    sources: list[str] = []
    for (labels, method), runs in finished(league, out).items():
        tail = "tail" in league
        measure = "balanced_accuracy" if tail else "accuracy"
        published = "–"
        if (labels, method) in PUBLISHED:
            value, source = PUBLISHED[labels, method]
            sources += [] if source in sources else [source]
            published = f"{value:.1f} [{sources.index(source) + 1}]"
        note = LEAGUES[league].methods[method].note
        name = f"`{method}`" + (f" ({note})" if note else "")
        wave = _mean([r["label_wave"][measure] for r in runs if "label_wave" in r])
        epochs = ", ".join(str(r["label_wave"]["epoch"]) for r in runs if "label_wave" in r)
        best = [r["best_on_test_for_information"][measure] for r in runs]
        row = [
            labels,
            name,
            str(len(runs)),
            _mean([r["last"][measure] for r in runs]),
            _mean([r["selected"][measure] for r in runs if "selected" in r]),
            f"{wave} ({epochs})" if epochs else wave,
            _mean([r["ema"][measure] for r in runs if "ema" in r]),
            _mean(best),
            _mean([r["last"].get("memorised") for r in runs]),
            f"{np.mean([r['seconds'] for r in runs]):.0f}",
            published,
        ]
        lines.append("| " + " | ".join(row) + " |")
    if sources:
        lines += ["", *(f"[{i + 1}] {source}." for i, source in enumerate(sources))]
    return "\n".join(lines)


def _mean(values: list[float | None]) -> str:
    """Returns mean ± deviation in percent."""
    known = [100 * v for v in values if v is not None]
    if not known:
        return "–"
    deviation = f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
    return f"{np.mean(known):.1f}{deviation}"


def plan(league: str, data: Data, out: Path) -> str:
    """Returns the first cell of each method: command, steps, and the dry run's memory."""
    from jaxrobust.data.batches import num_steps
    from jaxrobust.runs import predict

    said, seen = [], set()
    for cell in cells(league, seeds=(0,)):
        if cell.method in seen:
            continue
        seen.add(cell.method)
        config = configuration(cell, data)
        text = predict.describe(config).splitlines()
        size = next(int(line.split(": ")[1]) for line in text if line.startswith("train: "))
        steps = num_steps(size, config.train.batch_size)
        memory = next(line for line in text if line.startswith("Memory"))
        said += [
            command(cell, data, out),
            f"  {config.train.epochs} epochs of {steps} steps. {memory}",
        ]
    return "\n".join(said)


def shortened(config: Any, steps: int, batch_size: int) -> Settings:
    """Returns settings that make a cell a few steps long, for a test of the whole pipeline.

    Args:
      config: of the cell.
      steps: of each epoch, of which there are two (one of warm-up, one of the method).
      batch_size: in place of the recipe's.
    """
    short: Settings = {
        "train.epochs": 1 if config.method.name == "supervised" else 2,
        "train.batch_size": batch_size,
        "optimizer.warmup_epochs": 0,
        "eval.every": 1,
    }
    if config.data.imbalance.kind == "none":
        short["data.subset"] = steps * batch_size
    if config.method.name == "dynamic_loss":
        short["method.warmup_epochs"] = 1
    if config.method.name == "curvenet":
        short |= {"method.probe_epochs": 2, "optimizer.milestones": (1,)}
        short |= {"method.probe_batch_divisor": 1, "data.metadata.per_class": 2}
    return short


PART = 16_667
_PARTS = ("train", "test")


def pack(data_dir: str, folder: Path) -> list[Path]:
    """Writes CIFAR-10 into .npz files below 60 MB, images in the original order; lossless.

    Args:
      data_dir: TFDS folder that holds cifar10.
      folder: of the parts; made if it is not there.

    Returns:
      The paths, with arrays "x" uint8 [n, 32, 32, 3] and "y" int [n].
    """
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for split in _PARTS:
        source = tfds.data_source("cifar10", split=split, data_dir=data_dir)
        records = [source[i] for i in range(len(source))]
        ids = [r["id"].decode() if isinstance(r["id"], bytes) else str(r["id"]) for r in records]
        order = np.argsort([int(name.split("_")[-1]) for name in ids])
        x = np.stack([records[i]["image"] for i in order]).astype(np.uint8)
        y = np.array([records[i]["label"] for i in order], np.int64)
        written += write_parts(split, x, y, folder)
    return written


def write_parts(split: str, x: np.ndarray, y: np.ndarray, folder: Path) -> list[Path]:
    """Writes `x` and `y` as split_0.npz, split_1.npz, ... of at most `PART` rows each."""
    written = []
    for number, first in enumerate(range(0, len(x), PART)):
        path = folder / f"{split}_{number}.npz"
        np.savez(path, x=x[first : first + PART], y=y[first : first + PART])
        written.append(path)
    return written


def unpack(folder: Path, path: Path) -> None:
    """Joins the parts of `pack` to one file for --config.data.name=npz.

    Raises:
      UserError: a part is missing.
    """
    from jaxrobust.errors import check

    arrays = {}
    for split, suffix in (("train", ""), ("test", "_test")):
        parts = sorted(folder.glob(f"{split}_*.npz"), key=lambda p: int(p.stem.split("_")[-1]))
        numbers = [int(p.stem.split("_")[-1]) for p in parts]
        check(
            parts and numbers == list(range(len(parts))),
            f"--parts={folder}: {split}_*.npz are not all there.",
        )
        loaded = [np.load(part) for part in parts]
        arrays |= {f"{k}{suffix}": np.concatenate([part[k] for part in loaded]) for k in ("x", "y")}
    np.savez(path, **arrays)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    from jaxrobust.errors import RunError, UserError

    args = _parser().parse_args(arguments)
    out = Path(args.out)
    try:
        data = Data(args.data_dir, args.labels_dir, args.npz, _settings(args.set))
        if args.mode == "pack":
            for path in pack(args.data_dir, Path(args.parts)):
                print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        elif args.mode == "unpack":
            unpack(Path(args.parts), Path(args.npz))
        elif args.mode == "table":
            print(table(args.league, out))
        elif args.mode == "plan":
            print(plan(args.league, data, out))
        else:
            seeds = tuple(int(s) for s in args.seeds.split(","))
            only = tuple(args.only.split(",")) if args.only else ()
            left = run(args.league, data, out, args.minutes, seeds, only)
            print(f"{left} cells left." if left else table(args.league, out))
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


def _settings(words: list[str]) -> tuple[tuple[str, Any], ...]:
    """Returns "name=value" as pairs, numbers and lists as Python writes them, else as text."""
    from jaxrobust.errors import check

    pairs = []
    for word in words:
        name, equals, text = word.partition("=")
        check(bool(equals), f"--set {word}: expected name=value, e.g. data.path=photos.")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        pairs.append((name, value))
    return tuple(pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("run", "table", "plan", "pack", "unpack"))
    parser.add_argument("--league", default="small", choices=tuple(LEAGUES))
    parser.add_argument("--data_dir", help="TFDS folder that holds cifar10")
    parser.add_argument("--labels_dir", help="folder of label files, human_worst.npy and others")
    parser.add_argument("--npz", help="file that `unpack` makes, in place of --data_dir")
    parser.add_argument("--parts", help="folder of the parts, for pack and unpack")
    parser.add_argument("--out", default="runs/league", help="folder of the cells")
    parser.add_argument(
        "--set", action="append", default=[], help="setting of every cell, name=value; repeatable"
    )
    parser.add_argument("--minutes", type=float, help="stop after so many; the next call goes on")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas")
    parser.add_argument("--only", help="methods or LABELS/METHOD, separated by commas")
    return parser


if __name__ == "__main__":
    sys.exit(main())
