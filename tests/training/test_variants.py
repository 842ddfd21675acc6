"""Compiler options are tried on the step itself, and only what computes the same is chosen."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.training import variants

START = {"params": jnp.ones(4), "step": jnp.int32(0)}


def step_taking(seconds, factor=1.0):
    def step(state):
        time.sleep(seconds)
        return {"params": state["params"] - 0.1 * factor, "step": state["step"] + 1}

    return step


def steps(**by_name):
    """`step_with` of the trial: options by name, the default under "default"."""

    def step_with(options):
        found = by_name[options[0].partition("=")[0] if options else "default"]
        if isinstance(found, Exception):
            raise found
        return found

    return step_with


def test_the_faster_of_two_right_ones_is_chosen():
    trial = variants.choose(
        steps(default=step_taking(0.2), quick=step_taking(0.0)), START, [("quick=1",)]
    )
    assert trial.chosen == ("quick=1",) and set(trial.seconds) == {(), ("quick=1",)}


def test_the_default_stays_where_it_is_fastest():
    trial = variants.choose(
        steps(default=step_taking(0.0), slow=step_taking(0.2)), START, [("slow=1",)]
    )
    assert trial.chosen == ()


def test_one_that_miscomputes_is_never_chosen_however_fast():
    trial = variants.choose(
        steps(default=step_taking(0.1), wrong=step_taking(0.0, 1.01)), START, [("wrong=1",)]
    )
    assert trial.chosen == () and trial.wrong == (("wrong=1",),)


def test_one_that_is_not_known_here_is_left_out():
    unknown = jax.errors.JaxRuntimeError("No such compile option")
    trial = variants.choose(steps(default=step_taking(0.0), new=unknown), START, [("new=1",)])
    assert trial.chosen == () and trial.wrong == ()


def test_rounding_is_no_difference_and_a_wrong_array_is():
    rng = np.random.default_rng(0)
    before = {"a": rng.normal(size=50), "b": np.zeros(3), "n": np.int32(0)}
    after = {"a": before["a"] + rng.normal(size=50), "b": np.full(3, 1e-9), "n": np.int32(1)}
    rounded = after | {"a": after["a"] * (1 + 1e-7), "b": np.full(3, -1e-9)}
    assert variants.same(*({"params": t} for t in (before, after, rounded)))
    for wrong in ({"a": after["a"] + 0.01}, {"b": np.full(3, 1e-2)}, {"n": np.int32(2)}):
        assert not variants.same(*({"params": t} for t in (before, after, after | wrong)))
    assert not variants.same(*({"params": t} for t in (before, after, after | {"a": np.nan})))
