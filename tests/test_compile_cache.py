"""Compiled programs between processes: found again, switched off, left alone."""

import os
import subprocess
import sys

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


def run(**environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
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
