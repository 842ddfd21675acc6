"""metrics.jsonl: rows survive a kill, and a resumed run writes none twice."""

import json

import pytest

from jaxrobust.training.metrics_log import Log, read_rows


def write(workdir, start, rows, epochs=5):
    log = Log(workdir, epochs=epochs, start=start, tensorboard=False, name="x")
    for row in rows:
        log.write(row)
    log.close()


def test_a_resumed_run_replaces_the_rows_after_its_start(tmp_path):
    write(tmp_path, 0, [{"epoch": e, "train_loss": float(e)} for e in (1, 2, 3)])
    write(tmp_path, 2, [{"epoch": 3, "train_loss": 30.0}])
    assert [r["train_loss"] for r in read_rows(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 30.0]


def test_a_line_cut_short_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2, "tr')
    assert read_rows(tmp_path / "metrics.jsonl") == [{"epoch": 1}]


def test_rows_are_strict_json(tmp_path):
    write(tmp_path, 0, [{"epoch": 1, "train_loss": float("nan"), "memorised": None}])
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row == {"epoch": 1, "train_loss": None, "memorised": None}


def test_tensorboard_gets_the_numbers(tmp_path):
    log = Log(tmp_path, epochs=1, tensorboard=True, name="x")
    log.write({"epoch": 1, "train_loss": 0.5})
    log.close()
    events = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"train_loss" in events[0].read_bytes()


def test_a_kill_while_rows_are_dropped_loses_none(tmp_path, monkeypatch):
    write(tmp_path, 0, [{"epoch": e} for e in (1, 2, 3)])

    def killed(row):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(json, "dumps", killed)
        write(tmp_path, 2, [])
    assert [r["epoch"] for r in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
