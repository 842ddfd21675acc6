"""The documentation, held against the code: examples run, names are described, pages exist."""

import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import losses, methods

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PUBLIC = ("losses", "objectives", "bilevel", "networks", "methods", "audit", "estimator", "config",
          "data.label_noise", "data.long_tail", "data.sources", "data.prepare")
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


def public_names():
    for part in PUBLIC:
        module = importlib.import_module(f"jaxrobust.{part}")
        names = getattr(module, "__all__", None) or [
            n for n, v in vars(module).items()
            if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__
        ]
        yield from ((part, name, getattr(module, name)) for name in names)


def test_every_public_name_is_described():
    callables = [(f"{part}.{name}", value) for part, name, value in public_names()
                 if callable(value) and not re.search(r"Generic|Callable", str(type(value)))]
    assert len(callables) > 90
    bare = [name for name, value in callables if not inspect.getdoc(value)]
    assert not bare, bare


def test_every_loss_says_where_it_comes_from():
    for name, loss in losses.LOSSES.items():
        text = inspect.getdoc(loss)
        assert name == "ce" or "Source: " in text or "Equal to" in text, name


def test_every_loss_and_method_has_a_page():
    for name in losses.LOSSES:
        page = (DOCS / "losses" / f"{name}.md").read_text()
        for part in (f"`{name}`", "**When.**", "**Paper and program.**", f"<!-- loss: {name} -->"):
            assert part in page, (name, part)
        assert f"({name}.md)" in (DOCS / "losses" / "index.md").read_text()
    index = (DOCS / "methods" / "index.md").read_text()
    assert all(name in index for name in methods.METHODS)


def test_the_site_lists_every_page():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")}
    assert set(re.findall(r"- (\S+\.md)$", navigation, re.M)) == pages


@pytest.fixture
def hooks(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return runpy.run_path(str(DOCS / "hooks.py"))


def test_generated_pages_hold_every_setting_and_default(hooks):
    text = hooks["on_page_markdown"]("<!-- configuration -->", None, None, None)
    assert all(f"| `{key}` | `{setting.default}` |" in text
               for key, setting in configuration.settings())
    page = hooks["on_page_markdown"]("<!-- loss: gce -->", None, None, None)
    assert "| `loss.q` | `0.7` |" in page and "images/losses/gce.svg" in page
    assert "::: jaxrobust.losses.generalized_cross_entropy" in page


def test_pictures_show_the_losses(hooks):
    import numpy as np

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
