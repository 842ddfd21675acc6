"""The notebooks run from top to bottom, and are stored as such a run left them."""

import importlib.metadata
import importlib.util
import os
import re
import resource
import sys
import time
import tomllib
import types
from pathlib import Path

import jax.numpy as jnp
import nbformat
import numpy as np
import optax
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

import jaxrobust
from jaxrobust.runs import predict

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
URL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
notebook_runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebook_runner)


# Training takes a minute in each but the first.
RUN = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path != NOTEBOOKS[0]))
    for path in NOTEBOOKS
]


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


def processor_time():
    """Seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("path", RUN)
def test_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    stored = nbformat.read(path, as_version=4)
    monkeypatch.setenv("JAXROBUST_NOTEBOOK_SMALL", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    begin = time.monotonic(), processor_time()
    done = notebook_runner.execute(path, tmp_path, seconds=300)
    taken = time.monotonic() - begin[0], processor_time() - begin[1]
    # Two minutes; processor time where there is other work, too.
    assert min(taken) < 120, taken
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
    shown = "".join(
        str({k: v for k, v in o.get("data", {}).items() if "image" not in k}) + o.get("text", "")
        for o in outputs(stored)
    )
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


def test_its_text_is_markdown_and_not_commented_out(stored):
    for cell in stored.cells:
        if cell.cell_type == "markdown":
            lines = re.sub(r"```.*?```", "", cell.source, flags=re.S).splitlines()
            headings = [line for line in lines if line.startswith("#")]
            assert all(re.match(r"#{1,3} \w", line) for line in headings), headings
            assert len(headings) <= 1, headings


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What the ten lines take for granted, small: arrays, a linear model, a folder of photos."""
    rng = np.random.default_rng(0)
    true = np.arange(80) % 4
    labels = np.where(np.arange(80) % 8 == 0, (true + 1) % 4, true)
    x = jnp.asarray(rng.normal(size=(80, 6)) + 4 * np.eye(4, 6)[true], jnp.float32)
    batch = {"x": x, "labels": jnp.asarray(labels)}
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    if importlib.util.find_spec("pandas") is None:
        monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=dict))
    dry = []

    def train(config, workdir):
        dry.append((predict.describe(config), config, str(workdir)))
        return {"last": {"balanced_accuracy": 0.5}}

    monkeypatch.setattr(jaxrobust, "train", train, raising=False)
    curve = np.linspace(3, 0, 20)[None] * np.where(labels != true, 1.0, 0.1)[:, None]
    return {
        "dry": dry,
        "x": x,
        "labels": labels,
        "params": jnp.zeros((6, 4)),
        "network_state": {},
        "EPOCHS": 10,
        "optimizer": optax.sgd(0.1),
        "wrong": set(np.flatnonzero(labels != true)),
        "p": 0.8 * np.eye(4)[true] + 0.05,
        "losses": curve + 0.01 * rng.random((80, 20)),
        "batches": [(batch, {"x": x, "labels": jnp.asarray(true)})] * 3,
    }


def ten_lines(notebook):
    [cell] = [c for c in notebook.cells if "## Ten lines to take home" in c.source]
    [block] = re.findall(r"```python\n(.*?)```", cell.source, re.S)
    return block


def test_the_ten_lines_run(path, stored, project):
    block = ten_lines(stored)
    assert len([line for line in block.splitlines() if line]) <= 11
    if path.stem.startswith("01"):
        project["apply"] = lambda params, x: x @ params
        exec(block, project)
        start = project["params"], project["optimizer"].init(project["params"])
        params, _ = project["train_step"](*start, project["x"], project["labels"], 3)
        assert float(jnp.abs(params).sum()) > 0
    elif path.stem.startswith("02"):
        project["apply"] = lambda params, state, x, train: (x @ params, state)
        exec(block, project)
        assert int(project["state"].step) == 3 and project["info"].weights.shape == (80,)
    elif path.stem.startswith("03"):
        exec(block, project)
        [(said, config, workdir)] = project["dry"]
        assert "dynamic_loss" in said and workdir.endswith("runs/photos")
        made = config.data.noise.kind, config.data.imbalance.kind  # of one's own photos: nothing
        assert made == ("none", "none")
    else:
        exec(block, project)
        assert {"given_label", "label_score"} <= set(project["table"])
        assert len(project["clean"]) == 80 - project["issues"].num_issues
        assert set(project["issues"].indices) == project["wrong"]


def test_the_losses_that_are_drawn_exist():
    source = "".join(c.source for c in code(nbformat.read(NOTEBOOKS[0], as_version=4)))
    assert "assert set(drawn) <= set(losses.LOSSES)" in source


def test_the_report_is_shown():
    shown = [
        o["data"]["text/html"]
        for o in outputs(nbformat.read(NOTEBOOKS[3], as_version=4))
        if "text/html" in o.get("data", {})
    ]
    assert len(shown) == 1 and "<iframe srcdoc=" in shown[0] and "&lt;html" in shown[0]


def test_devices_are_shown_with_the_dynamic_loss():
    last = code(nbformat.read(NOTEBOOKS[2], as_version=4))[-1]
    assert 'config.load("digits_dynamic_loss")' in last.source and "digits_dal" not in last.source
    one, four = (re.findall(r"\d+\.\d+", line) for line in last.outputs[0].text.split("\n")[:2])
    assert len(one) == 3
    np.testing.assert_allclose(np.float64(four), np.float64(one), rtol=1e-3)
