"""What each `--mode` does and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jaxrobust import config as configuration
from jaxrobust.audit import export
from jaxrobust.errors import check
from jaxrobust.runs import audit, results, sweep
from jaxrobust.runs import predict as inference
from jaxrobust.runs.train import train
from jaxrobust.training.signals import Interrupted

AUDIT = ("label_issues.csv", "sample_weights.npz", "report.html")


def run(values) -> int:
    """Runs the command of parsed flags (see `main.parse`); returns the exit code."""
    if values.sweep:
        check(values.workdir, "Name a folder for the sweep: --workdir=runs/NAME.")
        return sweep.run(values.sweep, Path(values.workdir), _overrides(values), values.dry_run)
    if values.dry_run:
        print(inference.describe(values.config))
        return 0
    workdir = Path(values.workdir)
    if values.mode == "train":
        return _train(values.config, workdir)
    if values.mode == "evaluate":
        print(results.table({workdir.name: inference.evaluate(workdir)}))
        print(f"Wrote {workdir / 'evaluation.json'}.")
        return 0
    if values.mode == "audit":
        return _audit(workdir, values.config.audit.folds, values.write_corrected)
    check(values.input, "Name what to predict: --input=FOLDER, .npy, .npz or .csv.")
    path = inference.predict(workdir, values.input, values.output, values.which)
    print(f"Wrote {path}.")
    return 0


def _audit(workdir: Path, folds: int | None, corrected: str | None) -> int:
    if corrected:
        export.check_target(corrected)
    found = audit.remake(workdir, folds, say=lambda line: print(line, file=sys.stderr))
    print(audit.sentence(found.summary))
    print("Wrote " + ", ".join(str(workdir / name) for name in AUDIT) + ".")
    if corrected:
        changed, note = audit.write_corrected(workdir, found.issues, corrected)
        if note:
            print(f"note: {note}", file=sys.stderr)
        print(f"Wrote {corrected}: {changed} labels replaced. Give it to another run: "
              f"--config.data.labels_file={corrected} --config.data.noise.kind=none "
              "--config.data.noise.rate=0")
    return 0


def _overrides(values) -> dict[str, Any]:
    """Returns the settings that the command line gave (`--config.SETTING=VALUE`), by full name."""
    flags = {key: values[f"config.{key}"] for key, _ in configuration.settings()
             if f"config.{key}" in values}
    return {key: flag.value for key, flag in flags.items() if flag.present}


def _train(config, workdir: Path) -> int:
    finished = (workdir / "results.json").is_file()
    try:
        outcome = train(config, workdir)
    except Interrupted as stop:
        print(f"Stopped by {stop}. Run the same command again to go on.", file=sys.stderr)
        return stop.code
    if finished:
        print(f"{workdir} is finished already; its results:")
    print(results.table({workdir.name: outcome}))
    if "audit" in outcome:
        print(audit.sentence(outcome["audit"]))
    names = ("results.json", "metrics.jsonl", "noise.npz", "checkpoints", "tensorboard", "figures",
             *AUDIT)
    print("Wrote " + ", ".join(str(workdir / n) for n in names if (workdir / n).exists()) + ".")
    return 0
