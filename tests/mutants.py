"""Wrong signs: each is put into a copy of the package, where some test of the formulas must fail.

    python tests/mutants.py [losses] [bilevel] [objectives]

prints every mutant, and those that no test noticed. `tests/test_mutants.py` runs the first of every
function.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = {
    "losses": ("losses/test_closed_forms.py", "losses/test_long_tail.py",
               "losses/test_schedules.py", "losses/test_golden.py", "losses/test_contract.py"),
    "bilevel": ("bilevel/test_hypergradient.py",),
    "objectives": ("objectives",),
}
FILES = {
    "losses": ("cross_entropies", "divergences", "dal", "long_tail", "negative", "box_cox"),
    "bilevel": ("_hypergradient",),
    "objectives": ("curvenet", "_dynamic_loss"),
}
OPPOSITE = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Div: ("/", "*"), ast.USub: ("-", "+")}
# Where a function has no such operator: file, function, what it says, what the mutant says.
BY_HAND = {
    "bilevel": [
        ("bilevel/_hypergradient.py", "first_order", "return optax.tree.vdot(v,",
         "return -optax.tree.vdot(v,"),
        ("bilevel/_hypergradient.py", "exact", "return ahead.meta_loss(",
         "return -ahead.meta_loss("),
        ("bilevel/_hypergradient.py", "run", "return *self.move(grads,",
         "return *self.move(jax.tree.map(jnp.negative, grads),"),
    ],
}
# Another formula with the same distribution: no test can tell, and none should.
EQUIVALENT = ("draw_complementary",)
# What tells no wrong formula: bounds, messages and what only guards against rounding or zeros.
NOT_A_FORMULA = ("check(", "number(", "jnp.finfo", "NUDGE")

DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


class Mutant(NamedTuple):
    """A change of one character: `part` of the package, file, function, line, source and text."""

    part: str
    path: str
    function: str
    line: int
    text: str
    source: str

    def __str__(self):
        return f"{self.path}:{self.line} {self.function}: {self.text}"


def mutants(part: str) -> list[Mutant]:
    """Returns those of all functions of a part; a quotient is changed where there is no sign."""
    found, by_hand = [], {function for _, function, *_ in BY_HAND.get(part, ())}
    for name in FILES[part]:
        path = f"{part}/{name}.py"
        source = (ROOT / "jaxrobust" / path).read_text()
        for function in ast.parse(source).body:
            if isinstance(function, DEFINITIONS) and function.name not in EQUIVALENT:
                changes = list(_changes(source, function))
                signs = [change for change in changes if change[2] != "/"]
                signs = signs or ([] if function.name in by_hand else changes)
                found += [
                    Mutant(part, path, function.name, line, text, changed)
                    for line, text, _, changed in signs
                ]
    for path, function, old, new in BY_HAND.get(part, ()):
        source = (ROOT / "jaxrobust" / path).read_text()
        before, after = source.split(old)
        line = before.count("\n") + 1
        found.append(Mutant(part, path, function, line, new, before + new + after))
    return found


def _changes(source: str, function: ast.AST):
    """Yields (line, its new text, old operator, changed source) of the operators of a function."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(function):
        kind = type(getattr(node, "op", None))
        if kind not in OPPOSITE or _is_type(node):
            continue
        old, new = OPPOSITE[kind]
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.operand, ast.Constant):  # axis=-1
                continue
            row, column = node.lineno - 1, len(_bytes(lines[node.lineno - 1], node.col_offset))
        elif isinstance(node, ast.BinOp):
            row = node.left.end_lineno - 1
            column = lines[row].find(old, len(_bytes(lines[row], node.left.end_col_offset)))
            if column < 0:  # The operator starts the next line.
                row += 1
                column = lines[row].index(old)
        else:
            continue
        if any(word in lines[row] for word in NOT_A_FORMULA):
            continue
        changed = lines[row][:column] + new + lines[row][column + 1:]
        yield row + 1, changed.strip(), old, "".join([*lines[:row], changed, *lines[row + 1:]])


def _bytes(line: str, offset: int) -> str:
    """The beginning of a line, up to an offset in bytes of UTF-8."""
    return line.encode()[:offset].decode()


def _is_type(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)


def failing(mutant: Mutant | None, part: str) -> str | None:
    """Returns the first test of the part that fails with the mutant (None: as it is), if any."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("COV")}  # not a copy's coverage
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            ROOT / "jaxrobust", Path(folder) / "jaxrobust",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        if mutant is not None:
            (Path(folder) / "jaxrobust" / mutant.path).write_text(mutant.source)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
             "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"),
             *(str(ROOT / "tests" / test) for test in TESTS[part])],
            cwd=folder, capture_output=True, text=True,
            env=own | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": folder},
        )
    if done.returncode == 0:
        return None
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != 1 or not named:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return named[0].split(" - ")[0]


def main(parts: list[str]) -> int:
    survivors = []
    for part in parts or list(TESTS):
        if failing(None, part) is not None:
            raise RuntimeError(f"The tests of {part} fail without any mutant.")
        for mutant in mutants(part):
            test = failing(mutant, part)
            print(f"{'SURVIVED' if test is None else 'killed  '} {mutant}  <- {test}", flush=True)
            survivors += [mutant] if test is None else []
    print(f"{len(survivors)} survived.")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
