"""What every test shares: strict JAX on the CPU, float64 on request, golden numbers."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that are compiled again and again in these tests are compiled once; kept for one run.
CACHE = tempfile.mkdtemp(prefix="jaxrobust-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Most of the time here is the compiler's: it takes a third less where LLVM does not optimise. XLA's
# own passes are the usual ones. `XLA_FLAGS= make test` runs the programs as a user runs them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionfinish():
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_module():
    """A worker that keeps what it has compiled for every module ends with 5 GB."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """float64 for one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="session")
def golden():
    """Path of a file of reference numbers; the folder may be replaced by JAXROBUST_GOLDEN."""
    folder = Path(os.environ.get("JAXROBUST_GOLDEN") or Path(__file__).parent / "golden")
    return lambda name: folder / name


@pytest.fixture
def program(tmp_path):
    """Runs `python -m jaxrobust.main` as a user does, in an empty folder; returns the process."""

    def run(*arguments, module="jaxrobust.main", **options):
        command = [sys.executable, "-m", module, *map(str, arguments)]
        options = {"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 300} | options
        return subprocess.run(command, **options)

    return run
