"""The documentation, held against the code: examples run, names are described, pages exist."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import losses, networks
from jaxrobust.runs import METHODS, sweep
from jaxrobust.training.metric_table import METRICS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PUBLIC = (
    "losses",
    "objectives",
    "bilevel",
    "networks",
    "methods",
    "audit",
    "estimator",
    "config",
    "data.label_noise",
    "data.long_tail",
    "data.sources",
    "data.prepare",
    "data.manifest",
    "methods.sampling",
    "process",
    "compare",
    "runs.train",
)
MODULES = sorted(m.name for m in pkgutil.walk_packages(jaxrobust.__path__, "jaxrobust."))


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        if ">>>" in (importlib.util.find_spec(name).loader.get_source(name) or ""):
            for test in finder.find(importlib.import_module(name), name):
                if test.examples:
                    yield test


@pytest.mark.parametrize("example", list(examples()), ids=lambda e: e.name)
def test_every_example_runs(example):
    said = []
    result = doctest.DocTestRunner().run(example, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize(
    "part", ["losses", "objectives", "bilevel", "networks", "methods", "audit", "estimator", "data"]
)
def test_every_part_has_an_example_that_is_not_skipped(part):
    texts = [
        importlib.util.find_spec(name).loader.get_source(name) or ""
        for name in MODULES
        if name.removeprefix("jaxrobust.").split(".")[0] == part
    ]
    assert any(">>>" in text for text in texts) and not any("+SKIP" in text for text in texts)


def python_blocks():
    for page in sorted(DOCS.rglob("*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
        for i, block in enumerate(blocks):
            yield pytest.param(block, id=f"{page.relative_to(DOCS)}-{i}")


def project():
    """What the examples of the pages take for granted: a small table of named classes, a tenth of
    the labels wrong, and somebody's predictions."""
    rng = np.random.default_rng(0)
    true = np.arange(120) % 4
    x = (rng.normal(size=(120, 6)) + 4 * np.eye(4, 6)[true]).astype(np.float32)
    labels = np.where(np.arange(120) % 10 == 0, (true + 1) % 4, true)
    y = np.array(["ant", "bee", "cat", "dog"])[labels]
    return {
        "X": x,
        "y": y,
        "X_new": x[:9],
        "X_test": x,
        "y_test": y,
        "labels": labels,
        "p": 0.8 * np.eye(4)[true] + 0.05,
    }


@pytest.mark.parametrize("block", list(python_blocks()))
def test_every_python_block_of_a_page_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = project()
    exec(block, names)
    wrong = set(range(0, 120, 10))
    if "found" in names:
        assert set(names["found"].indices) == wrong
    if "model" in names:
        suspect = set(names["model"].label_issues_.indices)
        assert suspect <= wrong and len(suspect) > 6
    if "get_sweep" in names:
        Path("my_sweep.py").write_text(block)
        assert sweep.run("my_sweep.py", tmp_path / "w", {}, True) == 0


def test_there_are_blocks():
    assert len(list(python_blocks())) >= 4


def public_names():
    for part in PUBLIC:
        module = importlib.import_module(f"jaxrobust.{part}")
        names = getattr(module, "__all__", None) or [
            n
            for n, v in vars(module).items()
            if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__
        ]
        yield from ((part, name, getattr(module, name)) for name in names)


def public_callables():
    return {
        f"{part}.{name}": value
        for part, name, value in public_names()
        if callable(value) and not re.search(r"Generic|Callable", str(type(value)))
    }


def own_text(value):
    """The docstring that was written for it, not inherited and not made by NamedTuple."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return "" if not text or text.startswith(f"{value.__name__}(") else text


def can_raise(value, within, seen=()):
    """Whether it, or what it calls in the same sub-package, checks what a user gives."""
    code, module = inspect.unwrap(value), inspect.getmodule(value)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(code)))):
        if isinstance(node, ast.Name) and node.id in vars(module):
            called = vars(module)[node.id]
            home = str(getattr(called, "__module__", ""))
            if home == "jaxrobust.errors":
                return True
            inside = inspect.isfunction(called) and home.startswith(f"jaxrobust.{within}")
            if inside and called not in seen and can_raise(called, within, (*seen, called)):
                return True
    return False


def test_every_public_name_is_described():
    found = public_callables()
    assert len(found) > 115
    assert not [name for name, value in found.items() if not own_text(value)]


def test_what_takes_or_gives_arrays_tells_their_shapes():
    arrays = re.compile(r"jax\.Array|ndarray|ArrayLike|\bBatch\b")
    shape = re.compile(r"\[(\]|[A-Z.…][^\]]*\])")
    found = {
        name: value
        for name, value in public_callables().items()
        if arrays.search(" ".join(map(str, getattr(value, "__annotations__", {}).values())))
    }
    assert len(found) > 60
    assert not [
        name
        for name, value in found.items()
        if not shape.search(own_text(value).split("Example:")[0])
    ]


def test_what_checks_its_input_tells_its_errors():
    found = {
        name: value
        for name, value in public_callables().items()
        if can_raise(value, name.split(".")[0])
    }
    assert len(found) > 45
    told = re.compile(r"Raises:|[Ee]rrors?\b|UserError")
    assert not [name for name, value in found.items() if not told.search(own_text(value))]


def test_losses_objectives_methods_and_networks_say_where_they_come_from():
    made = {
        name: getattr(importlib.import_module(f"jaxrobust.{part}"), name)
        for part, names in (
            (
                "objectives",
                (
                    "CurveNet",
                    "LabelCorrector",
                    "MarginGenerator",
                    "class_centred",
                    "curve_weighted",
                    "dynamic_loss",
                    "learning_to_reweight",
                    "meta_weight_net",
                ),
            ),
            ("methods", ("curvenet", "dynamic_loss")),
        )
        for name in names
    }
    every = [*losses.LOSSES.items(), *made.items(), *networks.NETWORKS.items()]
    assert not [
        name
        for name, value in every
        if name != "ce" and not re.search(r"Source: |Equal to", own_text(value))
    ]
    pages = [DOCS / "methods" / f"{name}.md" for name in METHODS if name != "supervised"]
    assert all("arXiv" in page.read_text() for page in pages)


@pytest.mark.parametrize(
    "part", [p for p in PUBLIC if hasattr(importlib.import_module(f"jaxrobust.{p}"), "__all__")]
)
def test_a_list_of_public_names_can_be_read_without_running_it(part):
    """As the generator of the API reference reads it; a computed name would be left out."""
    module = importlib.import_module(f"jaxrobust.{part}")
    [listed] = [
        node.value
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    assert ast.literal_eval(listed) == list(module.__all__)


def test_the_reference_has_every_public_part():
    pages = "".join(p.read_text() for p in (DOCS / "api").glob("*.md"))
    pages += (DOCS / "estimator.md").read_text()
    for part in PUBLIC:
        assert re.search(rf"^::: jaxrobust\.{re.escape(part)}\b", pages, re.M), part


def test_every_loss_and_method_has_a_page():
    for name in (*losses.LOSSES, *losses.MEMORY_LOSSES, *losses.VIEW_LOSSES):
        path = DOCS / "losses" / f"{name}.md"
        assert path.exists(), f"write {path.relative_to(ROOT)}: formula, When, Paper and program"
        page = path.read_text()
        for part in (f"`{name}`", "**When.**", "**Paper and program.**", f"<!-- loss: {name} -->"):
            assert part in page, (name, part)
    index = (DOCS / "methods" / "index.md").read_text()
    for name in METHODS:
        page = (DOCS / "methods" / f"{name}.md").read_text()
        assert f"({name}.md)" in index and "python -m jaxrobust.main" in page, name
        if name != "supervised":
            for part in ("**When.**", "**Paper and program.**", "## Defaults", "Source: "):
                assert part in page, (name, part)


@pytest.fixture
def hooks(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return runpy.run_path(str(DOCS / "hooks.py"))


def test_the_site_lists_every_page(hooks):
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")}
    losses_pages = hooks["loss_pages"]()
    assert set(re.findall(r"- (\S+\.md)$", navigation, re.M)) | set(losses_pages) == pages
    nav = {"nav": [{"Losses": ["losses/index.md"]}, {"Other": ["index.md"]}]}
    assert hooks["on_config"](nav)["nav"] == [
        {"Losses": ["losses/index.md", *losses_pages]},
        {"Other": ["index.md"]},
    ]


def test_generated_pages_hold_every_setting_and_default(hooks):
    text = (DOCS / "configuration.md").read_text()
    assert text == hooks["configuration_page"](), "run: python docs/hooks.py"
    assert all(
        f"| `{key}` | `{setting.default}` |" in text for key, setting in configuration.settings()
    )
    page = hooks["on_page_markdown"]("<!-- loss: gce -->", None, None, None)
    assert "| `loss.q` | `0.7` |" in page and "images/losses/gce.svg" in page
    assert "::: jaxrobust.losses.generalized_cross_entropy" in page
    page = hooks["on_page_markdown"]((DOCS / "workdir.md").read_text(), None, None, None)
    assert all(f"| `{name}` | {metric.heading} |" in page for name, metric in METRICS.items())


def test_every_method_page_shows_its_defaults(hooks):
    for name in METHODS:
        text = (DOCS / "methods" / f"{name}.md").read_text()
        page = hooks["on_page_markdown"](text, None, None, None)
        assert "<!-- settings" not in page
        assert name == "supervised" or page.count("| `method.") >= 1, name


def test_no_link_of_a_page_leads_nowhere():
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#\S+)?\)", page.read_text()):
            generated = "images/losses" in target
            assert generated or (page.parent / target).exists(), (page.name, target)


def test_pictures_show_the_losses(hooks):
    curves = hooks["make_pictures"].curves
    p = hooks["make_pictures"].GIVEN
    for name, settings, value, gradient in [
        ("ce", {}, -np.log(p), 1 - p),
        ("mae", {}, 1 - p, p * (1 - p)),
        ("gce", {"q": 0.7}, (1 - p**0.7) / 0.7, p**0.7 * (1 - p)),
    ]:
        found = curves(name, settings)
        np.testing.assert_allclose(found[0], value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[1], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("package", ["losses", "objectives", "bilevel", "methods", "networks"])
def test_help_names_every_argument_and_what_is_returned(package):
    module = importlib.import_module(f"jaxrobust.{package}")
    for name in module.__all__:
        function = getattr(module, name)
        if not inspect.isfunction(function):
            continue
        text = inspect.getdoc(function)
        missing = [
            p for p in inspect.signature(function).parameters if not re.search(rf"\b{p}\b", text)
        ]
        assert not missing, f"help(jaxrobust.{package}.{name}) says nothing of {missing}"
        assert re.search(r"\breturns?\b", text, re.I), f"{package}.{name}: what does it return?"
