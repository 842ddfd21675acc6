"""The notebooks run from top to bottom, and are stored as such a run left them."""

import importlib.metadata
import importlib.util
import os
import re
import sys
import tomllib
import types
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
URL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
notebook_runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebook_runner)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def stored(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def install_cell(notebook):
    [cell] = [cell for cell in code(notebook) if "%pip" in cell.source]
    return cell


def test_runs_from_top_to_bottom(path, stored, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXROBUST_NOTEBOOK_SMALL", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = notebook_runner.execute(path, tmp_path, seconds=300)
    assert not [o for o in outputs(done) if o.output_type == "error"]
    # Every picture that is stored is drawn again: no cell is skipped without an error.
    assert pictures(done) == pictures(stored) > 0


def test_stored_as_a_run_from_top_to_bottom_left_it(stored):
    assert [cell.execution_count for cell in code(stored)] == list(range(1, len(code(stored)) + 1))
    assert not [o for o in outputs(stored) if o.output_type == "error"]
    assert not [cell for cell in stored.cells if "execution" in cell.metadata]


def test_stored_without_traces_of_the_machine(path, stored):
    text = path.read_text()
    assert len(text) < 1_000_000
    shown = "".join(str({k: v for k, v in o.get("data", {}).items() if "image" not in k})
                    + o.get("text", "") for o in outputs(stored))
    traces = ["/tmp", "/home", "/root", "/work", "/Users", str(Path.home()), str(ROOT)]
    assert not [trace for trace in traces if trace in shown]
    assert not re.search(r"Traceback|\w+Warning:", shown)


def test_tells_what_it_is_and_opens_in_colab(path, stored):
    first = stored.cells[0].source
    assert first.startswith("# ")
    place = f"{URL.removeprefix('https://github.com')}/blob/main/notebooks/{path.name}"
    assert f"(https://colab.research.google.com/github{place})" in first
    source = "\n".join(cell.source for cell in stored.cells)
    assert 'SMALL = os.environ.get("JAXROBUST_NOTEBOOK_SMALL", "1") != "0"' in source
    assert "jax.devices()" in source
    for name in re.findall(r"\]\((\w+\.ipynb)\)", source):
        assert (path.parent / name).is_file(), name


@pytest.mark.parametrize("on_colab", [False, True])
def test_installs_on_colab_only_and_keeps_its_jax(stored, tmp_path, monkeypatch, on_colab):
    """Runs the install cell with a Colab and a pip that are only pretended."""
    asked = []
    shell = types.SimpleNamespace(run_line_magic=lambda name, line: asked.append((name, line)))
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.chdir(tmp_path)
    source = TransformerManager().transform_cell(install_cell(stored).source)
    exec(source, {"get_ipython": lambda: shell})
    if not on_colab:
        assert not asked and not os.listdir()
        return
    [(name, line)] = asked
    assert name == "pip" and f"git+{URL}" in line
    [constraints] = re.findall(r"--constraint (\S+)", line)
    pinned = Path(constraints).read_text().splitlines()
    for package in ("jax", "jaxlib"):
        assert f"{package}=={importlib.metadata.version(package)}" in pinned
