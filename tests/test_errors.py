"""Errors as the command line shows them."""

import pytest

from jaxrobust import main
from jaxrobust.errors import RunError, UserError, report, writing


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UserError("wrong"), 2, "error: wrong"),
        (RunError("bad"), 1, "failed: bad"),
        (
            OSError(28, "No space left on device", "a.csv"),
            1,
            "failed: a.csv: No space left on device.",
        ),
        (OSError("no number"), 1, "failed: no number"),
        (
            UserError("No file 'a\nb\x1b[0m\udc80 ü文'."),
            2,
            r"error: No file 'a\nb\x1b[0m\udc80 ü文'.",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert report(error) == code
    assert capsys.readouterr().err == line + "\n"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(RunError, match=r"Cannot write .*/no/a.txt: No such file .*\. Try again\.$"),
        writing(tmp_path, "Try again."),
    ):
        (tmp_path / "no" / "a.txt").write_text("")
    with pytest.raises(RunError, match=r"^Cannot write w: full\.$"), writing("w"):
        raise OSError("full")
    with pytest.raises(ZeroDivisionError), writing("w"):
        raise ZeroDivisionError


def test_what_the_system_refuses_is_one_line(monkeypatch, capsys):
    from jaxrobust import cli

    def full(values):
        raise OSError(28, "No space left on device", "w/config.json")

    monkeypatch.setattr(cli, "command", full)
    assert main.run(["main", "--config=digits_dal", "--workdir=w"]) == 1
    assert capsys.readouterr().err == "failed: w/config.json: No space left on device.\n"
