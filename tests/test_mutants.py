"""A wrong sign in any function of the losses or the hypergradient fails a test; see `mutants`."""

import ast
import inspect
import json
import os

import mutants
import pytest
from helpers import child

from jaxrobust import losses

CHANGED = """
def f(x, n=1):
    check(x > 0, f"{x - 1} is too small")
    if n == 2 and not x:
        x = jnp.minimum(x, 3.0)
    log(x)
    return -x + loss(x, where=n)
"""


def test_operators_comparisons_constants_and_statements_are_changed_but_no_message():
    found = {text: kind for kind, _, _, text, _ in mutants.variants(CHANGED)}
    assert found == {
        "2": "constant",
        "n != 2": "comparison",
        "n == 2 or not x": "logic",
        "x": "sign",
        "pass": "statement",
        "jnp.maximum(x, 3.0)": "call",
        "6.0": "constant",
        "3": "constant",
        "-x - loss(x, where=n)": "sign",
        "loss(x)": "mask",
    }


def test_a_change_is_made_in_one_line_and_leaves_the_tree_as_it_was():
    before = ast.unparse(ast.parse(CHANGED)).splitlines()
    for *_, change in mutants.variants(CHANGED):
        after = ast.unparse(mutants.replaced(*change)).splitlines()
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert ast.unparse(change[0]).splitlines() == before


def test_every_room_has_mutants_and_every_mutant_a_test():
    for room in mutants.ROOMS:
        found = mutants.mutants(room)
        assert len(found) > 10, room
        assert all(any(mutants.nearest(mutant)) for mutant in found[::10])


def test_every_loss_has_a_sign_or_is_made_of_functions_that_have():
    changed = {mutant.function.split("/")[0] for mutant in mutants.signs()}
    made = {loss.__name__ for loss in losses.LOSSES.values()} | changed
    for loss in losses.LOSSES.values():
        if loss.__name__ not in changed:
            body = inspect.getsource(loss).split('"""')[-1]
            assert any(f"{name}(" in body for name in made), loss.__name__


@pytest.mark.skipif("JAXROBUST_SIGNS" not in os.environ, reason="long: make mutants")
def test_a_wrong_sign_in_any_function_fails_a_test(tmp_path):
    path = tmp_path / "found.json"
    done = child(mutants.__file__, "--signs", f"--json={path}", timeout=3000)
    assert done.returncode == 0, done.stderr
    survived = [
        str(mutants.Mutant(**mutant))
        for mutant, test in json.loads(path.read_text())
        if test is None
    ]
    assert not survived, "\n".join(survived)
