"""The map of the house, held against the code."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = ["losses", "objectives", "bilevel", "methods", "training", "runs", "main"]
BESIDE = {"errors", "schema", "config", "cli", "files"}
ROOMS = {
    "audit",
    "augment",
    "bilevel",
    "data",
    "losses",
    "methods",
    "networks",
    "objectives",
    "plots",
    "runs",
    "training",
}
HIDING = {"objectives"}  # `curvenet` is a public module: `objectives.curvenet.curve_weighted`.
DRAWS = "plots"  # the only room that imports matplotlib
NO_CONFIG = {
    "losses",
    "objectives",
    "bilevel",
    "methods",
    "training",
    "data",
    "augment",
    "networks",
    "audit",
    "plots",
}


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
        allowed = set(LAYERS[: LAYERS.index(part) + 1])
        wrong = {name for name in imports(file) if name in LAYERS} - allowed
        assert not wrong, f"{file} imports {wrong}"


def test_losses_objectives_and_data_know_nothing_of_the_rest():
    allowed = {
        "losses": {"losses", "errors", "registry"},
        "objectives": {"objectives", "losses", "errors"},
        "bilevel": {"bilevel", "objectives", "losses", "errors"},
        "augment": {"augment", "errors"},
        "data": {"data", "errors", "files"},
        "networks": {"networks", "errors", "registry"},
        "audit": {"audit", "data", "errors", "files", "__version__"},
        "plots": {"plots", "training", "errors"},
    }
    for file, part in parts():
        if part in allowed:
            wrong = set(imports(file)) - allowed[part]
            assert not wrong, f"{file} imports {wrong}"


def test_the_rooms_are_those_of_the_map():
    rooms = {f.parent.name for f in (ROOT / "jaxrobust").glob("*/__init__.py")}
    assert rooms == ROOMS


def test_no_function_of_a_package_hides_a_module_of_it():
    for init in (ROOT / "jaxrobust").rglob("__init__.py"):
        modules = {f.stem for f in init.parent.glob("*.py")}
        for node in ast.walk(ast.parse(init.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {alias.asname or alias.name for alias in node.names}
                assert not names & modules or init.parent.name in HIDING, (init, names & modules)


def modules(file):
    """Top-level packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def test_only_the_plots_draw_and_no_configuration_comes_below_the_runs():
    for file, part in parts():
        assert part == DRAWS or "matplotlib" not in set(modules(file)), file
        assert part not in NO_CONFIG or "ml_collections" not in set(modules(file)), file


def test_importing_methods_and_engine_needs_no_configuration():
    code = """
import sys, jaxrobust.methods, jaxrobust.training.loop, jaxrobust.training.saving
assert 'ml_collections' not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reading_the_names_of_the_networks_imports_no_jax():
    code = """
import sys
from jaxrobust.networks import NETWORKS
assert "mlp" in list(NETWORKS)
found = {"jax", "flax", "numpy"} & {name.split(".")[0] for name in sys.modules}
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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


def test_main_is_short_and_a_long_file_is_a_warning():
    lengths = {f: len(f.read_text().splitlines()) for f in (ROOT / "jaxrobust").rglob("*.py")}
    assert lengths[ROOT / "jaxrobust" / "main.py"] < 80
    for file, n in lengths.items():
        if n > 400:
            print(f"{file.relative_to(ROOT)} has {n} lines: is it one thought?")


def test_every_public_function_of_the_package_is_described():
    for file, _ in parts():
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree), f"{file} has no docstring"
