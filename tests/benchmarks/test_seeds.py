"""The benchmark of several seeds trains both ways, and they agree."""

from benchmarks import seeds


def test_five_seeds_next_to_one(capsys):
    found = seeds.main(["--rounds", "1", "--seeds", "2"])
    assert found["processor time"] > 0 and found["difference"] < 1e-5
    assert "one seed = 1" in capsys.readouterr().out
