"""What several test modules need: the command line in this process, small runs, a gallery of runs.

A test that only reads a finished run takes it from the gallery (`gallery` in conftest.py), where
each configuration is trained once for all modules and workers. A test that changes a workdir
copies it first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import compile_cache
import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# A run that takes a second: digits and a perceptron, nothing drawn, every epoch saved.
TINY = {
    "network.name": "mlp",
    "network.width": 32,
    "train.epochs": 3,
    "train.batch_size": 128,
    "data.noise.kind": "symmetric",
    "data.noise.rate": 0.4,
    "log.figures": False,
    "log.tensorboard": False,
    "checkpoint.every_seconds": 0.0,
}


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_main(*arguments: object, folder: Path, module: str = "jaxrobust.main") -> Done:
    """Runs a command of the package in this process, with `folder` as the current folder."""
    from jaxrobust import compare, main

    words = [str(a) for a in arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if module == "jaxrobust.main":
            code = main.run([module, *words])
        elif module == "jaxrobust.compare":
            code = compare.main(words)
        else:
            raise ValueError(module)
    return Done(code, out.getvalue(), err.getvalue())


def environment(devices: int | None = None) -> dict[str, str]:
    """Returns the environment of a child process on the CPU, with `devices` virtual devices."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    flags = os.environ.get("XLA_FLAGS", "")
    if devices is not None:
        flags += f" --xla_force_host_platform_device_count={devices}"
    return (
        os.environ
        | compile_cache.environment()
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags,
            "PYTHONPATH": path,
        }
    )


def child(*command: object, timeout: float = 300, **options) -> subprocess.CompletedProcess:
    """Runs `python …` in a process of its own that reads the compile cache."""
    words = [sys.executable, *map(str, command)]
    options = {"capture_output": True, "text": True, "env": environment()} | options
    return subprocess.run(words, timeout=timeout, **options)


def settings(recipe: str = "digits_losses:ce", small: dict | None = None, **overrides: object):
    """Returns a recipe in small (`small`, else TINY); an override `a__b` sets a.b."""
    from jaxrobust import config as configuration

    made = configuration.load(recipe)
    chosen = {key.replace("__", "."): value for key, value in overrides.items()}
    made.update_from_flattened_dict((TINY if small is None else small) | chosen)
    return made


class Killed(BaseException):
    """Stands for a kill: nothing of the program runs after it."""


def train_until_killed(config, workdir: Path, when: int | Callable) -> list[dict]:
    """Trains a run that is killed right after a checkpoint; returns the progress of all of them.

    Args:
      config: of the run.
      workdir: in which the run goes on when it is trained again.
      when: the number of checkpoints after which it dies, or a function of the progress saved.
    """
    import jaxrobust
    from jaxrobust.runs import train

    save, places = train.Checkpoints.save, []

    def save_then_die(self, step, arrays, place):
        save(self, step, arrays, place)
        places.append(place)
        if when(place) if callable(when) else len(places) == when:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.Checkpoints, "save", save_then_die)
        jaxrobust.train(config, workdir)
    return places


def params_of(workdir: Path):
    """Returns the parameters that a run ended with."""
    from jaxrobust.runs import predict

    return predict.open_workdir(workdir)[1]["state"].params


def assert_same(a, b) -> None:
    """Fails unless two trees hold the same arrays, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file that other workers wait for; a process that dies lets go of it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Gallery:
    """Finished runs of one run of the suite, each configuration trained once."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, config) -> Path:
        """Returns the workdir of a finished run of `config`; nobody may write into it."""
        import jaxrobust
        from jaxrobust import config as configuration

        text = configuration.to_json(config)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        workdir = self.folder / name / "run"
        workdir.parent.mkdir(exist_ok=True)
        with locked(workdir.parent / "lock"):
            if not (workdir.parent / "files").exists():
                jaxrobust.train(config, workdir)
                (workdir.parent / "files").write_text(_listing(workdir))
        return workdir

    def copy(self, config, folder: Path) -> Path:
        """Returns a copy of that workdir, at `folder`, to do with as one likes."""
        return Path(shutil.copytree(self(config), folder, dirs_exist_ok=True))

    def changed(self) -> list[str]:
        """Returns the workdirs that a test has written into."""
        return [
            str(files.parent)
            for files in self.folder.glob("*/files")
            if files.read_text() != _listing(files.parent / "run")
        ]


def _listing(workdir: Path) -> str:
    files = sorted(p for p in workdir.rglob("*") if p.is_file())
    return "\n".join(
        f"{p.relative_to(workdir)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files
    )
