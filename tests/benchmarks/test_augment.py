"""The benchmark of augmentation and sampling runs, and writes what it says."""

import json

from benchmarks import augment


def test_every_row_is_measured_beside_the_step(tmp_path, capsys):
    path = tmp_path / "out.json"
    augment.main(["--tiny", "--rounds", "1", "--json", str(path)])
    written = json.loads(path.read_text())
    assert written["environment"]["batch_size"] == 8
    rows = {(r["group"], r["name"]): r for r in written["results"]}
    groups = ["step", "view", "policy", "step of a view", "operation", "once an epoch"]
    assert list(dict.fromkeys(group for group, _ in rows)) == groups
    assert rows["step", augment.STEP]["share_of_step"] == 1
    assert all(r["seconds"] > 0 and r["compile_seconds"] > 0 for r in rows.values())
    assert ("once an epoch", "ranks and metadata, 500 examples") in rows
    assert "of step" in capsys.readouterr().out
