"""Small mistakes, put into the package one at a time, which the nearest tests should notice.

    python tests/mutants.py [ROOM …] [--sample=300] [--seed=0] [--minutes=120] [--signs]
                            [--kept=FILE]

A mutant changes one operator, comparison, constant or statement of the syntax tree. It is never
written to disk: a process that has imported JAX forks, the child loads the changed module and runs
the tests of its room, those that name the changed function first, until one fails. Constants that
only bound memory or guard against a zero (above 500 and below 1e-5) are left as they are. Prints
every mutant, then the fraction that was noticed and the survivors. Those of
`equivalent_mutants.txt` change nothing that a test could see; each has its reason there, and they
are not counted. `--signs` takes, instead of a sample, the first wrong sign of every function of
losses and bilevel, as `test_mutants.py` does. With `--kept` results are kept from run to run: what
was noticed stays noticed, what is new is run first, survivors last.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxrobust"
# Room -> modules, tests; a pattern that matches nothing is left out.
ROOMS = {
    "losses": (["losses/*.py"], ["losses"]),
    "objectives": (["objectives/*.py"], ["objectives"]),
    "bilevel": (["bilevel/*.py"], ["bilevel", "test_silent_mistakes.py"]),
    "methods": (["methods/*.py"], ["methods", "test_silent_mistakes.py"]),
    "sampling": (
        ["data/batches.py", "data/sampling.py"],
        ["data", "methods", "test_silent_mistakes.py"],
    ),
    "splits": (
        ["data/splits.py", "data/training_pool.py", "data/prepare.py"],
        ["data", "test_silent_mistakes.py"],
    ),
    "noise": (
        ["data/label_noise.py", "data/long_tail.py", "data/flip_maps.py"],
        ["data", "test_silent_mistakes.py"],
    ),
    "selection": (
        ["training/saving.py", "runs/saving.py", "training/metrics.py", "training/evaluation.py"],
        ["training", "runs", "test_silent_mistakes.py"],
    ),
    "checkpoints": (["training/checkpoints.py"], ["training", "test_silent_mistakes.py"]),
    "audit": (["audit/*.py"], ["audit"]),
}
# Another formula with the same distribution: no test can tell, and none should.
EQUIVALENT = ("draw_complementary", "_times_drawn")
# What carries no formula: bounds, messages and what only guards against rounding or zeros.
NOT_A_FORMULA = ("check(", "number(", "jnp.finfo", "NUDGE", "raise ", "UserError(", "RunError(")
LEAST, MOST = 1e-5, 500  # beyond: guards and bounds
SECONDS = 240  # of one mutant's tests
TOO_LONG = "no end"

SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add}
OTHER = {ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
PAIRS = (
    "minimum maximum",
    "min max",
    "argmin argmax",
    "any all",
    "sum mean",
    "ones zeros",
    "floor ceil",
    "logical_and logical_or",
    "ones_like zeros_like",
)
CALLED = {a: b for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])}
NEGATED = ("vdot", "meta_loss", "outer_loss")
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


class Mutant(NamedTuple):
    """One change: where it is, its kind, and how to make it again (`number` of its module)."""

    room: str
    path: str
    function: str
    line: int
    kind: str
    text: str
    number: int
    source: str
    nth: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.function}: {self.text}"

    @property
    def key(self) -> str:
        """What tells it from others whatever line it is on."""
        again = f" | no. {self.nth}" if self.nth > 1 else ""
        return f"{self.path} | {self.source} | {self.text}{again}"


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yields (kind, what stands in the node's place)."""

    def new(**fields):
        made = copy.copy(node)
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    match node:
        case ast.BinOp(op=op) if type(op) in SIGNS:
            yield "sign", new(op=SIGNS[type(op)]())
        case ast.BinOp(op=op) if type(op) in OTHER:
            yield "quotient" if isinstance(op, ast.Div) else "operator", new(op=OTHER[type(op)]())
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign", operand
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            yield "negation", operand
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            yield "comparison", new(ops=[COMPARED[type(op)]()])
        case ast.BoolOp(op=op):
            yield "logic", new(op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.Constant(value=bool(value)):
            yield "constant", new(value=not value)
        case ast.Constant(value=int(value)) if abs(value) <= MOST:
            yield "constant", new(value=value + 1)
        case ast.Constant(value=float(value)) if value == 0 or abs(value) >= LEAST:
            yield "constant", new(value=2 * value or 1.0)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in NEGATED:
            yield "sign", ast.UnaryOp(ast.USub(), node)
        case ast.Call(func=ast.Attribute(attr=name)) if name in CALLED:
            func = copy.copy(node.func)
            func.attr = CALLED[name]
            yield "call", new(func=func)
        case ast.Call(keywords=keywords) if any(k.arg == "where" for k in keywords):
            yield "mask", new(keywords=[k for k in keywords if k.arg != "where"])
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "statement", ast.copy_location(ast.Pass(), node)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if any(
            isinstance(n, ast.Name) and n.id == name for n in ast.walk(value)
        ):
            yield "statement", ast.copy_location(ast.Pass(), node)


def nodes(tree: ast.Module, source: str) -> Iterator[tuple[ast.AST, str]]:
    """Yields the nodes that may be changed, with the names of the functions they are in."""
    lines = source.splitlines()

    def visit(node, names):
        if isinstance(node, DEFINITIONS):
            names = (*names, node.name)
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)):
            return
        line = lines[node.lineno - 1] if hasattr(node, "lineno") else ""
        if isinstance(node, (ast.expr, ast.stmt)) and not isinstance(node, DEFINITIONS):
            if any(word in line for word in NOT_A_FORMULA):
                return
            yield node, "/".join(names)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, names)

    return visit(tree, ())


def variants(source: str) -> Iterator[tuple[str, str, int, str, tuple]]:
    """Yields (kind, function, line, new text, arguments of `replaced`) of every change."""
    tree = ast.parse(source)
    for node, names in nodes(tree, source):
        if any(name in EQUIVALENT for name in names.split("/")):
            continue
        for kind, other in changes(node):
            other = ast.copy_location(other, node)
            text = ast.unparse(other).splitlines()[0][:80]
            yield kind, names, node.lineno, text, (tree, node, other)


class _Replace(ast.NodeTransformer):
    """Copies the way to one node and puts another in its place; the rest stays shared."""

    def __init__(self, node: ast.AST, other: ast.AST):
        self.node, self.other = node, other

    def visit(self, node):
        if node is self.node:
            return self.other
        return self.generic_visit(copy.copy(node))

    def generic_visit(self, node):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                setattr(
                    node, field, [self.visit(v) if isinstance(v, ast.AST) else v for v in value]
                )
            elif isinstance(value, ast.AST):
                setattr(node, field, self.visit(value))
        return node


def replaced(tree: ast.Module, node: ast.AST, other: ast.AST) -> ast.Module:
    """Returns the tree with one node in the place of another."""
    return ast.fix_missing_locations(_Replace(node, other).visit(tree))


def mutants(room: str) -> list[Mutant]:
    """Returns all mutants of a room, in the order of its files."""
    paths = sorted(p for pattern in ROOMS[room][0] for p in PACKAGE.glob(pattern))
    found = []
    for path in paths:
        name, source = path.relative_to(PACKAGE).as_posix(), path.read_text()
        lines, seen = source.splitlines(), Counter()
        for i, (kind, names, line, text, _) in enumerate(variants(source)):
            own = lines[line - 1].strip()
            seen[own, text] += 1
            nth = seen[own, text]
            found.append(Mutant(room, name, names, line, kind, text, i, own, nth))
    return found


def reasons() -> dict[str, str]:
    """Returns why no test can see a mutant, by its key, as `equivalent_mutants.txt` says."""
    lines = (ROOT / "tests" / "equivalent_mutants.txt").read_text().splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    found = {}
    for key, reason in zip(lines[::2], lines[1::2], strict=True):
        assert reason.startswith("    "), reason
        found[key] = reason.strip()
    return found


def signs() -> list[Mutant]:
    """Returns the first wrong sign (or else quotient) of every function of losses and bilevel."""
    first: dict[tuple[str, str], Mutant] = {}
    for kind in ("sign", "quotient"):
        for mutant in mutants("losses") + mutants("bilevel"):
            outer = mutant.function.split("/")[0]
            if mutant.kind == kind and outer:
                first.setdefault((mutant.path, outer), mutant)
    return list(first.values())


def nearest(mutant: Mutant) -> tuple[list[str], list[str]]:
    """Returns the test files of a room that name the changed function or module, nearest first, and
    the others."""
    files = [
        f
        for name in ROOMS[mutant.room][1]
        for f in (
            [ROOT / "tests" / name]
            if name.endswith(".py")
            else sorted((ROOT / "tests" / name).glob("test_*.py"))
        )
    ]
    stem = Path(mutant.path).stem.strip("_")
    outer = mutant.function.split("/")[0].strip("_") or stem
    scores = []
    for file in files:
        named = len(re.findall(rf"(?<![a-z]){outer}(?![a-z])", file.read_text()))
        own = file.stem == f"test_{stem}" or file.parent.name == stem
        scores.append((not own, -named, str(file)))
    chosen = [file for far, named, file in sorted(scores) if not far or named]
    return chosen, [str(f) for f in files if str(f) not in chosen]


def noticed(mutant: Mutant) -> str | None:
    """Returns the first test of the room that fails with the mutant, if any."""
    for tests in nearest(mutant):
        test = failing(mutant, tests) if tests else None
        if test is not None:
            return test
    return None


class _Loader(importlib.abc.Loader):
    """Executes a changed tree as a module."""

    def __init__(self, path: Path, tree: ast.Module):
        self.path, self.tree = path, tree

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.tree, str(self.path), "exec", dont_inherit=True), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, path: Path, tree: ast.Module):
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.path, self.tree = path, tree

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        package = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(
            name,
            self.path,
            loader=_Loader(self.path, self.tree),
            submodule_search_locations=package,
        )
        return spec


def failing(mutant: Mutant | None, tests: list[str], seconds: float = SECONDS) -> str | None:
    """Returns the first test that fails with the mutant (None: with the package as it is), if any.

    Forks; this process must not have started a backend of JAX.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        child = os.fork()
        if child == 0:
            try:
                _run(mutant, tests, log)
            finally:
                os._exit(70)
        end, status = time.monotonic() + seconds, None
        while status is None:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
            elif time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return TOO_LONG
            else:
                time.sleep(0.05)
        text = log.read_text(errors="replace")
    if status == 0:
        return None
    named = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if status < 0:
        return f"signal {-status}"
    if not named:
        raise RuntimeError(f"pytest ended with {status}:\n{text[-3000:]}")
    return re.sub(r" \S*/tests/", " tests/", named[0].split(" - ")[0])


def _run(mutant: Mutant | None, tests: list[str], log: Path) -> None:
    """The child: runs the tests and ends the process."""
    import pytest

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(log.parent)
    if mutant is not None:
        path = PACKAGE / mutant.path
        *_, change = list(variants(path.read_text()))[mutant.number]
        sys.meta_path.insert(0, _Finder(path, replaced(*change)))
    code = pytest.main(
        [
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--rootdir",
            str(ROOT),
            "-c",
            str(ROOT / "pyproject.toml"),
            "-m",
            "not slow",
            *tests,
        ]
    )
    sys.stdout.flush()
    os._exit(int(code))


def prepare() -> None:
    """Imports, before the first fork, what every child needs; nothing of the package."""
    os.environ["JAXROBUST_TESTS_CACHE"] = "read"  # a mutant's programs are not kept
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ.pop("COVERAGE_PROCESS_START", None)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import flax.linen  # noqa: F401
    import jax  # noqa: F401
    import ml_collections  # noqa: F401
    import optax  # noqa: F401
    import pytest  # noqa: F401
    import sklearn.linear_model  # noqa: F401


def chosen(args: argparse.Namespace) -> list[Mutant]:
    """Returns the mutants to run, without the equivalent ones."""
    found = signs() if args.signs else [m for r in args.rooms or ROOMS for m in mutants(r)]
    total, known = len(found), reasons()
    if not args.signs:  # by a digest, so that a change of the code changes few of them
        digest = lambda m: hashlib.sha256(f"{args.seed} {m.key}".encode()).digest()  # noqa: E731
        found = sorted(found, key=digest)[: args.sample]
    left = [mutant for mutant in found if mutant.key not in known]
    print(
        f"{len(found)} of {total} mutants, {len(found) - len(left)} of them equivalent", flush=True
    )
    return left


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("rooms", nargs="*", metavar="ROOM")
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--signs", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kept", type=Path)
    args = parser.parse_args(argv)
    prepare()
    kept = json.loads(args.kept.read_text()) if args.kept and args.kept.exists() else {}
    begin, found = time.monotonic(), []
    for mutant in sorted(chosen(args), key=lambda m: m.key in kept):
        test = kept.get(mutant.key)
        if test is None:
            if time.monotonic() - begin > 60 * args.minutes:
                continue
            test = kept[mutant.key] = noticed(mutant)
            if args.kept:
                args.kept.write_text(json.dumps(kept, indent=0))
        found.append((mutant, test))
        print(f"{'SURVIVED' if test is None else 'noticed '} {mutant}  <- {test}", flush=True)
    survivors = [mutant for mutant, test in found if test is None]
    endless = sum(test == TOO_LONG for _, test in found)
    print(
        f"{len(found) - len(survivors) - endless} of {len(found)} noticed, {endless} without an "
        f"end, {(time.monotonic() - begin) / 60:.1f} minutes; survivors:"
    )
    for mutant in sorted(survivors):
        print(f"  {mutant}")
    if args.json:
        args.json.write_text(json.dumps([(m._asdict(), test) for m, test in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
