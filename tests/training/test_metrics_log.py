"""metrics.jsonl: rows survive a kill, and a resumed run writes none twice."""

import json

import pytest

from jaxrobust.training.metrics_log import Log, lost_rows, put_back, read_rows


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


def test_rows_of_a_checkpoint_take_the_place_of_the_files(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "loss": 9}\n{"epoch": 4, "loss": 4}\n{"epoch": 6}\n')
    kept = [{"epoch": e, "loss": e} for e in (1, 2, 4, 9)]
    assert put_back(path, 5, kept) == ([3, 5], [1, 2])
    assert read_rows(path) == [{"epoch": e, "loss": e} for e in (1, 2, 4)]
    assert put_back(path, 5, kept) == ([3, 5], [])


def test_lost_epochs_are_named_exactly():
    assert lost_rows([], []) == []
    assert lost_rows([2], []) == [
        "metrics.jsonl has lost the rows of epoch 2; learning curves go without them."
    ]
    back, lost = lost_rows([1, 2, 3, 5, 8, 9], [4])
    assert "the rows of epochs 1 to 3, 5, 8 to 9; learning curves" in lost
    assert "lost or changed the rows of epoch 4; put back" in back
    assert "38, 40 and 10 more" in lost_rows(list(range(2, 61, 2)), [])[0]


def test_no_epoch_is_a_truth_value_or_below_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": true}\n{"epoch": 0}\n{"epoch": -2}\n')
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_a_terminal_that_was_closed_ends_no_run(tmp_path, monkeypatch):
    class Gone:
        def __getattr__(self, name):
            def fail(*args, **kwargs):
                raise OSError(5, "Input/output error")

            return fail

    log = Log(tmp_path, epochs=2, tensorboard=False, name="x")
    log._bar, log._task = Gone(), 0
    log.write({"epoch": 1})
    log.close()
    assert read_rows(tmp_path / "metrics.jsonl") == [{"epoch": 1}]
