"""What a command does not import: most of what a user waits for at the start is imports."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import io, json, sys, contextlib
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    {code}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
HEAVY = {"jax", "flax", "optax", "orbax", "sklearn", "scipy", "matplotlib", "tensorboardX", "grain"}
HEAVY |= {"pandas", "rich", "jinja2", "tensorflow", "tensorflow_datasets", "IPython"}
RUN = "from jaxrobust import main; main.run(['main', *{arguments}])"
DRY = ["--config=digits_dal", "--dry_run"]
SKLEARN = {"sklearn", "scipy", "pandas"}  # scikit-learn imports pandas, where there is one
NETWORK = {"jax", "flax", "optax", "rich"}  # Flax imports rich


def imported(code):
    """Which of the heavy packages a program has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(code=code)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAXROBUST_COMPILE_CACHE": "off"},
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import jaxrobust", set()),
        ("import jaxrobust.losses", set()),
        (RUN.format(arguments=["--help"]), set()),
        (RUN.format(arguments=["--config=digits_dal", "--config.train.epoch=3"]), set()),
        (RUN.format(arguments=["--config=digits_dal", "--config.train.epochs=-1"]), set()),
        (RUN.format(arguments=["--config=digits_dal", "--config.loss.name=cee"]), set()),
        (RUN.format(arguments=DRY), NETWORK),
        ("from jaxrobust import RobustClassifier", SKLEARN),
        ("from jaxrobust import find_label_issues", set()),
    ],
    ids=[
        "import", "losses", "help", "wrong-name", "wrong-value", "wrong-choice", "dry-run",
        "estimator", "audit",
    ],
)  # fmt: skip
def test_nothing_heavy_is_imported_that_is_not_used(code, allowed):
    assert imported(code) <= allowed
