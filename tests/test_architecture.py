"""The map of the house, held against the code."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = ["losses", "objectives", "bilevel", "methods", "training", "main"]
BESIDE = {"errors", "schema", "config", "command_line"}


def imports(file):
    """Names of the parts of jaxrobust that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxrobust"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("jaxrobust."))


def parts():
    for file in sorted((ROOT / "jaxrobust").rglob("*.py")):
        inside = file.relative_to(ROOT / "jaxrobust").parts
        yield file, inside[0].removesuffix(".py")


def test_imports_go_one_way():
    for file, part in parts():
        if part not in LAYERS:
            continue
        allowed = set(LAYERS[: LAYERS.index(part) + 1]) | BESIDE | {"data", "networks", "audit"}
        wrong = {name for name in imports(file) if name in LAYERS} - allowed
        assert not wrong, f"{file} imports {wrong}"


def test_losses_objectives_and_data_know_nothing_of_the_rest():
    allowed = {
        "losses": {"losses", "errors"},
        "objectives": {"objectives", "losses", "errors"},
        "bilevel": {"bilevel", "objectives", "losses", "errors"},
        "data": {"data", "errors"},
        "networks": {"networks", "errors"},
    }
    for file, part in parts():
        if part in allowed:
            wrong = set(imports(file)) - allowed[part]
            assert not wrong, f"{file} imports {wrong}"


def test_importing_the_losses_imports_jax_and_nothing_else():
    code = """
import sys
import jaxrobust.losses
heavy = {"flax", "optax", "orbax", "tensorflow_datasets", "matplotlib", "sklearn", "ml_collections",
         "tensorflow", "torch", "grain"}
found = heavy & {name.split(".")[0] for name in sys.modules}
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_requirements_are_the_packages_own():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == project["dependencies"]


def test_main_is_short_and_no_file_is_long():
    lengths = {f: len(f.read_text().splitlines()) for f in (ROOT / "jaxrobust").rglob("*.py")}
    assert lengths[ROOT / "jaxrobust" / "main.py"] < 80
    assert max(lengths.values()) <= 300, {f: n for f, n in lengths.items() if n > 300}


def test_every_public_function_of_the_package_is_described():
    for file, _ in parts():
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree), f"{file} has no docstring"
