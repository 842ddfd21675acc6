"""CONTRIBUTING.md, followed step by step in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
FENCED = re.compile(
    r"^### … (?P<section>[^\n]+)$"
    r"|^`(?P<file>\S+)`(?:, (?P<how>after|instead of) `(?P<line>[^\n]+)`)?:\n\n"
    r"```(?:python|markdown)\n"
    r"(?P<code>.*?)^```$"
    r"|^```sh\n(?P<commands>.*?)^```$",
    re.M | re.S,
)
FOLLOW = """
import json, runpy, shlex, sys, time
import jaxrobust, pytest
from jaxrobust import main

assert jaxrobust.__file__.startswith(sys.argv[1]), jaxrobust.__file__
codes = {}
for line in json.load(sys.stdin):
    python, m, *rest = shlex.split(line)
    assert python == "python", line
    if m != "-m":  # a script
        runpy.run_path(m, run_name="__main__")
        codes[line] = 0
        continue
    module, *arguments = rest
    if module == "pytest":
        codes[line] = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments]))
    else:
        assert module == "jaxrobust.main", line
        codes[line] = main.run([module, *arguments])
    sys.stdout.flush()
json.dump(codes, open("codes.json", "w"))
"""


def steps():
    """The guide's steps in their order: (section, file, how, line, code, commands)."""
    section = None
    for found in FENCED.finditer(GUIDE):
        step = found.groupdict()
        section = step.pop("section") or section
        if step["file"] or step["commands"]:
            yield {"section": section} | step


def commands(step):
    return step["commands"].replace("\\\n", " ").strip().splitlines() if step["commands"] else []


def apply(step, folder):
    """Writes a block to its file, as the line before it says."""
    path = folder / step["file"]
    if step["how"] is None:
        assert not path.exists(), f"{path} exists already."
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step["code"])
        return
    lines = path.read_text().splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.rstrip("\n") == step["line"]]
    assert len(places) == 1, f"{step['file']} has {len(places)} lines {step['line']!r}."
    i = places[0]
    lines[i : i + 1] = [lines[i]] * (step["how"] == "after") + [step["code"]]
    path.write_text("".join(lines))


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Exit codes of the guide's commands, all blocks applied."""
    folder = tmp_path_factory.mktemp("house")
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("jaxrobust", "configs", "tests", "docs"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for file in ("pyproject.toml", "mkdocs.yml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / file, folder / file)
    lines = []
    for step in steps():
        if step["file"]:
            apply(step, folder)
        lines += commands(step)
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, str(folder)],
        cwd=folder,
        input=json.dumps(lines),
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / "codes.json").read_text()), done.stdout + done.stderr


@pytest.mark.parametrize(
    "section", ["a loss", "an objective", "a data set", "a metric", "a method"]
)
def test_the_example_works(followed, section):
    _, codes, said = followed
    lines = [line for step in steps() if step["section"] == section for line in commands(step)]
    assert lines and [codes[line] for line in lines] == [0] * len(lines), said


def test_the_example_method_left_out_what_it_should_and_was_reported(followed):
    folder, _, _ = followed
    workdir = folder / "runs" / "digits_trimmed"
    config = json.loads((workdir / "config.json").read_text())
    assert (config["method"]["name"], config["method"]["dropped"]) == ("trimmed", 0.4)
    assert (workdir / "report.html").is_file() and (workdir / "results.json").is_file()


def test_the_example_metric_selects_by_its_smallest_value_and_is_in_the_table(followed):
    folder, _, said = followed
    workdir = folder / "runs" / "digits_worst_class"
    results = json.loads((workdir / "results.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    values = [row["validation_worst_class_error"] for row in rows]
    assert results["selection_metric"] == "worst_class_error"
    assert results["selected"]["epoch"] == 1 + values.index(min(values))
    assert (
        "worst class" in said
        and "worst_class_error" in (folder / "docs/configuration.md").read_text()
    )


def test_every_block_of_the_guide_is_a_step():
    fences = GUIDE.count("\n```") // 2
    assert len(list(steps())) == fences > 20


def test_the_map_names_every_part_of_the_package():
    table = GUIDE[: GUIDE.index("Imports go one way")]
    parts = {p.name for p in (ROOT / "jaxrobust").iterdir() if p.name != "__pycache__"}
    for part in parts - {"__init__.py", "py.typed", "process.py"}:
        name = f"jaxrobust/{part}" + "/" * (not part.endswith(".py"))
        assert f"`{name}`" in table, name
