"""Runs the notebooks and stores them with what they printed and drew.

    python notebooks/execute.py notebooks/01_robust_losses.ipynb …

Each runs from top to bottom, in the small setting unless JAXROBUST_NOTEBOOK_SMALL=0, in an empty
folder of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def execute(path: Path, folder: Path, seconds: int = 600) -> nbformat.NotebookNode:
    """Returns the notebook with the outputs of a run from top to bottom in `folder`.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell raised; the error holds cell and traceback.
      nbclient.exceptions.CellTimeoutError: a cell ran longer than `seconds`.
    """
    notebook = nbformat.read(path, as_version=4)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute(env=environment)


def store(path: Path) -> None:
    """Runs the notebook and writes it back, without what differs between machines."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(path, Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        begin = time.monotonic()
        store(Path(name))
        print(f"{name}: {time.monotonic() - begin:.0f} s")
