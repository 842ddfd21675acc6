"""The benchmark of growth measures every axis, and its slopes are those of a power."""

import pytest

from benchmarks import growth


def test_slopes_of_a_power():
    found = {n: {"seconds": 3.0 * n**2} for n in (1, 10, 1000)}
    assert growth.slopes(found, "seconds") == pytest.approx([2, 2])


def test_a_small_point_of_an_axis(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(growth, "AXES", {"rows": (200, 400)})
    table = growth.main(["--only", "rows", "--png", str(tmp_path / "a.png")])
    assert list(table["rows"]) == [200, 400] and table["rows"][400]["seconds"] > 0
    assert (tmp_path / "a.png").stat().st_size > 1000 and "slope" in capsys.readouterr().out
