"""A wrong sign in any function of the losses or the hypergradient fails a test; see `mutants`."""

import importlib.util
from pathlib import Path

import pytest

from jaxrobust import losses

spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)

FIRST = {}
for part in ("losses", "bilevel"):
    for mutant in mutants.mutants(part):
        if mutant.path != "losses/box_cox.py":  # What losses are made of takes longer to tell.
            FIRST.setdefault(f"{mutant.path}:{mutant.function}", mutant)


def test_every_loss_is_changed():
    functions = {name.split(":")[1] for name in FIRST}
    # `_combine` is changed for sums of two losses, `_taylor_series`, and `logit_adjusted`.
    made_of_others = {
        "symmetric_cross_entropy", "taylor_cross_entropy", "normalized_and_reverse_cross_entropy",
        "normalized_and_asymmetric_cross_entropy", "balanced_softmax",
    }
    assert {loss.__name__ for loss in losses.LOSSES.values()} - functions == made_of_others


@pytest.mark.slow
@pytest.mark.parametrize("mutant", FIRST.values(), ids=list(FIRST))
def test_a_wrong_sign_fails_a_test(mutant):
    assert mutants.failing(mutant, mutant.part) is not None, f"survived: {mutant}"
