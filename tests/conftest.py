"""What every test shares: strict JAX on the CPU, float64 on request, golden numbers."""

import json
import os
from pathlib import Path

import compile_cache

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.update(compile_cache.environment())
# Most of the time here is the compiler's: it takes a third less where LLVM does not optimize.
# XLA's own passes are the usual ones; `test_compile_cache.py` compares the results with the
# default's. `XLA_FLAGS= make test` runs the programs as a user runs them. (Emitting loops the older
# way, --xla_cpu_use_fusion_emitters=false, halves it again, but color jitter comes out wrong.)
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import helpers  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

compile_cache.make_atomic()
jax.config.update("jax_numpy_rank_promotion", "raise")
MOST_MEMORY = 2.5e9  # bytes per worker, above which compiled programs are dropped


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        compile_cache.prune()


@pytest.fixture(scope="module", autouse=True)
def programs_within_bounds():
    """A worker that keeps what it has compiled for every module could end with 5 GB."""
    yield
    if compile_cache.resident_bytes() > MOST_MEMORY:
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
    """Runs a command of the package in this process, in an empty folder; see `helpers.Done`."""

    def run(*arguments, module="jaxrobust.main"):
        return helpers.run_main(*arguments, folder=tmp_path, module=module)

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that is the same for all workers of this run of the suite."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def gallery(shared):
    """Finished runs, each trained once; see `helpers.Gallery`."""
    made = helpers.Gallery(shared / "gallery")
    yield made
    assert not made.changed(), f"A test wrote into runs that all share: {made.changed()}"


@pytest.fixture(scope="session")
def four_devices(shared):
    """`four_devices(case)` gives what a case of four_devices.py returned, and its folder."""
    folder, script = shared / "four", Path(__file__).with_name("four_devices.py")
    folder.mkdir(exist_ok=True)
    with helpers.locked(shared / "four.lock"):
        if not (folder / "results.json").exists():
            done = helpers.child(script, folder, env=helpers.environment(4), timeout=900)
            assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((folder / "results.json").read_text())

    def of(case):
        assert results[case]["error"] is None, results[case]["error"]
        return results[case]["value"], folder

    return of
