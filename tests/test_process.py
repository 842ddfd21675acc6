"""What is set for a whole process, and how it ends."""

import platform
import subprocess
import sys

import pytest
from helpers import environment

FAULTS = """
import resource, sys
from jaxrobust import process
if sys.argv[1] == "keep":
    assert process.keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
seen = []
for _ in range(3):
    before = faults()
    b"x" * 2**27  # 128 MiB, freed at once
    seen.append(faults() - before)
print(seen[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_freed_memory_is_used_again_without_asking_the_system():
    def pages(how):
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert pages("leave") > 10_000  # else the next line says nothing
    assert pages("keep") < 100


@pytest.mark.parametrize("said", [2, 100_000])
def test_a_reader_that_leaves_ends_it_without_a_word(said):
    """Whether all is said at the end, or so much that the pipe is full before."""
    code = f"from jaxrobust import process\nprocess.end(lambda: print({said} * 'line\\n'))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)


def test_help_may_be_cut_off():
    command = f"{sys.executable} -m jaxrobust.main --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr


def test_ctrl_c_before_anything_has_begun_is_one_line():
    code = (
        "from jaxrobust import process\n"
        "def command():\n raise KeyboardInterrupt\n"
        "process.end(command)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


def test_a_current_folder_that_is_gone_is_one_line(tmp_path):
    command = (
        f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m jaxrobust.main "
        "--config=digits_dal --workdir=w"
    )
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "The current folder does not exist any more" in done.stderr


def test_it_ends_with_the_code_of_the_command():
    code = "from jaxrobust import process\nprocess.end(lambda: 2)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 2


def test_a_command_whose_table_is_not_read_to_its_end_does_not_call_it_a_failure(monkeypatch):
    from jaxrobust import compare

    def gone(*args):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(compare, "compare", gone)
    with pytest.raises(BrokenPipeError):
        compare.main(["a", "b"])


def test_modules_in_the_current_folder_come_last(tmp_path):
    """A file among the data named as a library is not executed; one's own module is found."""
    (tmp_path / "sklearn.py").write_text("raise SystemExit(3)")
    (tmp_path / "mine.py").write_text("x = 1")
    for start in ("", "sys.path.insert(0, '')\n"):
        code = (
            "import sys\n" + start + "from jaxrobust import process\nprocess.prepare()\n"
            "import sklearn, mine\nassert sklearn.__version__ and mine.x == 1"
        )
        (tmp_path / "run").write_text(code)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr


STREAMS = """
import sys
from jaxrobust import process
process.prepare()
def command():
    process.say("caf\\xe9")
    process.tell("\\u65e5\\u672c " + 100000 * "x")
    return 0
process.end(command)
"""


@pytest.mark.parametrize("how", [">&-", "2>&-", ">&- 2>&-", "| true", ">/dev/full", "2>/dev/full"])
def test_what_is_in_a_file_already_may_remain_unread(tmp_path, how):
    """Closed, broken, full, or no UTF-8: the command that has done its work ends with 0."""
    (tmp_path / "run.py").write_text(STREAMS)
    command = f"set -o pipefail; {sys.executable} run.py {how}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_is_full_is_a_failure_of_what_only_prints(tmp_path):
    code = "from jaxrobust import process\nprocess.end(lambda: print('x') or 0)"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" > /dev/full'],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "standard output cannot be written" in done.stderr


def test_a_ctrl_c_that_a_library_swallowed_stops_the_command_all_the_same(tmp_path):
    """As while modules are imported: nobody hears of the exception."""
    code = """
import os, signal, sys
from jaxrobust import main, process
process.prepare()
assert not process.was_interrupted()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    pass
from jaxrobust.training.signals import Interrupt
assert process.was_interrupted() and Interrupt().received == signal.SIGINT
process.end(lambda: main.run(["main", "--config=digits_dal", "--dry_run"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stderr, done.stdout) == (130, "Stopped.\n", "")
