"""The benchmark of starting measures its commands, and a mistake is told before JAX is imported."""

from benchmarks import start


def test_rows_are_ratios_to_importing_jax(capsys):
    table = start.main(["--rounds", "1", "--only", "wrong value", "import jaxrobust"])
    assert set(table) == {"base", "wrong value", "import jaxrobust"}
    assert table["base"]["ratio"] == 1 and table["wrong value"]["ratio"] < 1
    assert "at most" in capsys.readouterr().out
