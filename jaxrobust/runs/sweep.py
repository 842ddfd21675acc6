"""Sweeps: a grid of methods, label noise, imbalance and seeds, run one after the other.

All in one process, so that runs whose programs are the same (`training.programs`), as those of
several seeds are, compile once. Each run has a workdir of its own inside the sweep's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust.errors import RunError, check, choose
from jaxrobust.process import say, tell
from jaxrobust.runs import sweep_table
from jaxrobust.runs.train import check_workdir, train
from jaxrobust.training import programs
from jaxrobust.training.signals import Interrupted

_KEYS = ("methods", "noise", "imbalance", "seeds", "settings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: of its folder.
      method: name of the recipe within the sweep.
      noise, imbalance: short names of what was set.
      seed: the run's.
      config: its settings, validated.
    """

    name: str
    method: str
    noise: str
    imbalance: str
    seed: int
    config: ConfigDict


def load(path: str) -> dict[str, Any]:
    """Loads a sweep: a Python file with `get_sweep()`, or the bare name of one of `configs/sweeps`.

    It returns a dictionary with `methods`, name -> recipe (as `--config` takes it), and optionally
    `noise` and `imbalance`, lists of settings of `data.noise` and `data.imbalance`, `seeds`, and
    `settings` of all runs by their full names.

    Raises:
      UserError: no such file, no `get_sweep`, a key or value that is not as above.
    """
    own = {file.stem: file for file in configuration.recipes_folder().glob("sweeps/*.py")}
    file = Path(path) if Path(path).is_file() else own.get(path, Path(path))
    check(file.is_file(), f"--sweep={path}: no such file, nor one of {', '.join(own)}.")
    values = configuration.call(file, "get_sweep")
    check(isinstance(values, dict), f"{path}: get_sweep() must return a dictionary.")
    for key in values:
        choose(f"key of the sweep {path}:", key, _KEYS)
    values = {"noise": [{}], "imbalance": [{}], "seeds": [0], "settings": {}} | values
    kinds = {"methods": dict, "noise": list, "imbalance": list, "seeds": list, "settings": dict}
    for key, kind in kinds.items():
        value = values.get(key)
        right = isinstance(value, kind) and (bool(value) or key == "settings")
        check(right, f"{path}: {key!r} must be a {kind.__name__} that is not empty, not {value!r}.")
    return values


def runs(sweep: Mapping[str, Any], overrides: Mapping[str, Any] = {}) -> list[Run]:  # noqa: B006
    """Returns every run of a sweep, seeds innermost; all of their configurations are checked.

    Args:
      sweep: see `load`.
      overrides: settings of all runs, over everything else.

    Raises:
      UserError: a recipe, setting or value that does not exist; two runs of the same name.
    """
    found: list[Run] = []
    grid = itertools.product(sweep["noise"], sweep["imbalance"], sweep["methods"], sweep["seeds"])
    for noise, imbalance, method, seed in grid:
        config = configuration.load(sweep["methods"][method])
        settings = dict(sweep["settings"]) | {"seed": seed}
        for group, chosen in (("noise", noise), ("imbalance", imbalance)):
            check(isinstance(chosen, dict), f"Sweep: {group}={chosen!r} must be a dictionary.")
            settings |= {f"data.{group}.{name}": value for name, value in chosen.items()}
        configuration.validate(configuration.override(config, settings | dict(overrides)))
        names = _short(noise), _short(imbalance)
        name = "-".join((method, *names, f"seed{seed}"))
        run = Run(
            name=name, method=method, noise=names[0], imbalance=names[1], seed=seed, config=config
        )
        found.append(run)
    names = [run.name for run in found]
    twice = [name for name in names if names.count(name) > 1]
    check(not twice, f"Sweep: two runs would be called {twice[:1]}.")
    return found


def _short(settings: Mapping[str, Any]) -> str:
    """Returns a name for settings, such as symmetric0.4."""
    values = {"kind": "none"} | dict(settings)
    text = "".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values.values())
    return "".join(c if c.isalnum() or c in "._" else "_" for c in text)


def run(path: str, workdir: Path, overrides: Mapping[str, Any], dry_run: bool = False) -> int:
    """Runs what is left of a sweep and writes its table; returns the exit code.

    Into the workdir: one folder a run, `sweep.csv`, `sweep.md` and `sweep.png`. A run whose loss
    is not finite does not stop the others.

    Raises:
      UserError: see `load` and `runs`; or the workdir holds runs of other configurations.
    """
    todo = runs(load(path), overrides)
    if not any(r.config.method.name == "supervised" and r.config.loss.name == "ce" for r in todo):
        say("note: No method of this sweep is plain cross-entropy: nothing to compare with.")
    results = {r.name: check_workdir(r.config, workdir / r.name) for r in todo}
    left = [r for r in todo if results[r.name] is None]
    say(f"{len(todo)} runs, {len(todo) - len(left)} of them finished.")
    if dry_run:
        print("\n".join(f"{'todo' if r in left else 'done'}  {workdir / r.name}" for r in todo))
        return 0
    failed = []
    for i, r in enumerate(left):
        say(f"Run {i + 1} of {len(left)}: {workdir / r.name}")
        try:
            results[r.name] = train(r.config, workdir / r.name)
        except Interrupted as stop:
            say(stop.farewell())
            return stop.code
        except RunError as error:
            failed.append(f"failed: {r.name}: {error}")
    rows = sweep_table.summarize(todo, results)
    tell(sweep_table.markdown(rows))
    say(f"Programs compiled: {programs.compiled()}.")
    written = sweep_table.write(rows, workdir)
    tell("Wrote " + ", ".join(map(str, written)) + ".")
    for line in failed:
        say(line)
    return 1 if failed else 0
