"""The wheel, as a user gets it: recipes inside, types declared, works away from the checkout."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked where nothing else is, as `pip install --target --no-deps` does."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_package_its_recipes_and_nothing_else(installed):
    assert {p.name.split("-")[0] for p in installed.iterdir()} == {"jaxrobust"}
    here = {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.py")}
    there = installed / "jaxrobust" / "configs"
    assert {p.relative_to(there) for p in there.rglob("*.py")} == here
    code = {p.relative_to(ROOT / "jaxrobust") for p in (ROOT / "jaxrobust").rglob("*")
            if p.is_file() and "__pycache__" not in p.parts}
    assert all((installed / "jaxrobust" / p).is_file() for p in code)
    assert (installed / "jaxrobust" / "py.typed").is_file()


@pytest.mark.parametrize("arguments, said", [
    (["--config=digits_dal", "--dry_run"], "Nothing was trained or written"),
    (["--sweep=digits", "--workdir=w", "--dry_run"], "72 runs"),
    (["--config=nothing", "--workdir=w"], "No configuration 'nothing'"),
])
def test_it_finds_its_recipes_in_an_empty_folder(installed, tmp_path, arguments, said):
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import jaxrobust; "
        "assert jaxrobust.__file__.startswith(sys.path[0]), jaxrobust.__file__; "
        "from jaxrobust import main; sys.exit(main.run(sys.argv))"
    )
    command = [sys.executable, "-P", "-c", code, str(installed), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_the_oldest_versions_are_within_the_ranges():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {r.name.lower(): r.specifier for r in map(Requirement, project["dependencies"])}
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for pin in pins:
        (version,) = (s.version for s in pin.specifier)
        assert ranges.get(pin.name.lower(), pin.specifier).contains(version), pin
    assert {"jax": "0.7.2"}.items() <= {p.name: str(p.specifier)[2:] for p in pins}.items()
    assert {"tfds", "cleanlab", "notebooks", "dev"} <= set(project["optional-dependencies"])
