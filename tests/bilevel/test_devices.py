"""A step over four devices is the step on one: under `jit` with shards, and under `pmap`."""

import pytest

CASES = [
    "dynamic loss",
    "two steps",
    "first_order",
    "finite_difference",
    "skip",
    "skip with batch statistics, every other step",
]


@pytest.fixture(scope="module")
def results(four_devices):
    """What `on_four_devices.py` printed, by case."""
    return {line["case"]: line for line in four_devices("bilevel")[0]}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_four_devices_equal_one(results, case, way):
    assert results[case]["meta_grad_norm"] > 1e-6
    assert results[case][way] < 1e-9
