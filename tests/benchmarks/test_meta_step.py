"""The benchmark of the bilevel step: what it writes, and the cost that the compiler reports."""

import json

import pytest

from benchmarks import meta_step
from jaxrobust import networks


def test_it_writes_what_it_says(tmp_path, capsys):
    path = tmp_path / "out.json"
    meta_step.main(["--network", "mlp", "--quick", "--no_torch", "--json", str(path)])
    written = json.loads(path.read_text())
    assert written["network"] == "mlp" and written["batch"] == 8
    assert list(written["variants"]) == ["plain", "recording", "exact", "skip2_eval"]
    for row in written["variants"].values():
        assert set(row) == {"flops", "temp_bytes", "seconds", "compile_seconds"}
        assert all(value > 0 for value in row.values())
    assert 0 < written["record_seconds"] < 0.1
    said = capsys.readouterr().out
    assert "skip2_eval" in said and "recording by itself" in said


@pytest.fixture(scope="module")
def flops():
    """FLOPs of each variant beside those of a plain step, for a small convolutional network."""
    network = networks.make("small_cnn", 10, width=16)
    data, meta = (meta_step.make_data((8, 8, 1), 64, seed) for seed in (0, 1))
    reports = {
        name: meta_step.Variant(name, network, options, data, meta).report["flops"]
        for name, options in meta_step.variants(network, quick=True).items()
    }
    return {name: value / reports["plain"] for name, value in reports.items()}


def test_an_exact_step_costs_ten_thirds_of_a_plain_one(flops):
    assert 3.0 < flops["exact"] < 3.5


def test_recording_a_curve_costs_under_two_hundredths_of_a_step(flops):
    assert 1.0 <= flops["recording"] < 1.02


def test_every_number_of_skipped_stages_is_measured():
    found = meta_step.variants(networks.make("resnet32", 10), quick=False)
    assert [f"skip{s}_eval" in found for s in range(6)] == [False, True, True, True, True, False]


def test_skipped_layers_save_and_shared_features_save_more(flops):
    assert flops["skip2_batch"] < flops["skip2_eval"] - 0.2 < flops["exact"] - 0.6
