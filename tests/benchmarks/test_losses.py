"""The benchmark of the losses runs, and the losses compute no more than their formulas ask for."""

import pytest

from benchmarks import losses as benchmark


def test_a_row_for_each_loss(capsys):
    found = benchmark.main(["--tiny", "--rounds", "1", "--only", "ce", "nlnl", "--traced"])
    assert list(found["32x5"]) == ["ce", "nlnl"]
    assert all(row["time"] > 0 and row["bytes"] > 0 for row in found["32x5"].values())
    assert "FLOPs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "most"),
    [("ce", 1.1), ("mae", 1.1), ("gce", 1.1), ("tce", 1.1), ("bi_tempered", 3.5), ("nlnl", 2.1)],
)
def test_transcendental_functions_of_the_compiled_loss(name, most):
    """Per class: one exponential for a softmax; bi_tempered's (1 + x/2)^-2 needs none per pass."""
    found = benchmark.measure([name], 64, 200, 1, False)
    assert found[name]["transcendentals"] < most
