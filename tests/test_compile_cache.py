"""Compiled programs between processes: found again, switched off, left alone."""

import concurrent.futures
import os
import subprocess
import sys

import filelock
import pytest

from jaxrobust import compile_cache

CODE = """
import jax, jax.numpy as jnp
from jax import monitoring
from jaxrobust import compile_cache
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name.rsplit("/", 1)[-1]))
compile_cache.MIN_SECONDS = 0.0
place = compile_cache.enable()
jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8))).block_until_ready()
print(place, events.count("cache_hits"), events.count("cache_misses"))
"""


def run(code=CODE, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=kept | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    assert done.returncode == 0, done.stderr
    place, hits, misses = done.stdout.split()
    return place, int(hits), int(misses)


def test_the_second_process_compiles_nothing(tmp_path):
    place, hits, misses = run(JAXROBUST_COMPILE_CACHE=str(tmp_path / "c"))
    assert place == str(tmp_path / "c") and hits == 0 and misses > 0
    _, hits, misses = run(JAXROBUST_COMPILE_CACHE=str(tmp_path / "c"))
    assert hits > 0 and misses == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"JAXROBUST_COMPILE_CACHE": "off"},
        {"JAX_COMPILATION_CACHE_DIR": "own"},
        {"JAXROBUST_COMPILE_CACHE": "/proc/none"},
    ],
)
def test_it_is_off_where_it_is_not_wanted_or_cannot_be(tmp_path, environment):
    environment = {k: str(tmp_path / v) if v == "own" else v for k, v in environment.items()}
    assert run(**environment)[0] == "None"


def test_it_lies_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(compile_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache.folder().parent == tmp_path / "jaxrobust"


def test_a_user_without_a_home_keeps_no_programs(monkeypatch):
    """As in containers: a number for a user, and no HOME."""

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    for name in ("JAXROBUST_COMPILE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compile_cache.Path, "home", nowhere)
    assert compile_cache.enable() is None


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    for name in ("whole-cache", "whole-atime", "half-cache", "other"):
        (tmp_path / name).write_bytes(b"x")
    assert compile_cache.remove_unfinished(tmp_path) == 1
    names = {path.name for path in tmp_path.iterdir()} - {".lockfile"}
    assert names == {"whole-cache", "whole-atime", "other"}


def test_nothing_is_removed_while_another_process_writes(tmp_path):
    (tmp_path / "half-cache").write_bytes(b"x")
    with filelock.FileLock(tmp_path / ".lockfile"):
        assert compile_cache.remove_unfinished(tmp_path) == 0
    assert (tmp_path / "half-cache").exists()


def test_it_works_where_a_program_was_compiled_before(tmp_path):
    early = "import jax\njax.jit(lambda x: x + 1)(1.0)\n" + CODE
    place, hits, misses = run(early, JAXROBUST_COMPILE_CACHE=str(tmp_path / "c"))
    assert place == str(tmp_path / "c") and hits == 0 and misses > 0


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    folder = {"JAXROBUST_COMPILE_CACHE": str(tmp_path / "c")}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run, **folder) for _ in range(2)]
    assert all(job.result()[2] >= 0 for job in both)
    _, hits, misses = run(**folder)
    assert hits > 0 and misses == 0
