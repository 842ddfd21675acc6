"""Opening of a workdir: its configuration, and whether it and the data are those of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import files
from jaxrobust.data.prepare import Prepared
from jaxrobust.errors import UserError, check
from jaxrobust.runs import model as models


def read_config(workdir: str | Path, settings: Mapping[str, Any] = {}) -> ConfigDict:  # noqa: B006
    """Returns the configuration of the run in a workdir.

    Args:
      workdir: of a run.
      settings: by full name, instead of the run's own.

    Raises:
      UserError: there is no run, or `config.json` is not what the run was started with.
    """
    workdir = Path(workdir)
    path = workdir / "config.json"
    model = models.load_model(workdir)
    if model is None:
        check(path.is_file(), f"--workdir={workdir} holds no run (no config.json). Train first.")
        config = configuration.validate(_load(path))
    else:
        config = model.config
        if path.is_file():
            check_unchanged(path, config)
    if not settings:
        return config
    return configuration.validate(
        configuration.override(config.copy_and_resolve_references(), settings)
    )


def check_unchanged(path: Path, record: ConfigDict) -> None:
    """Checks a `config.json` against the configuration that the run itself recorded.

    Raises:
      UserError: a setting differs, or the file is damaged.
    """
    advice = "Put it back, or remove it: the run's own settings are in model.npz."
    try:
        changes = configuration.difference(record, _load(path))
    except UserError as error:
        raise UserError(f"{error} {advice}") from None
    check(
        not changes,
        f"{path} has been changed since the run began: {'; '.join(changes)}. {advice}",
    )


def _load(path: Path) -> ConfigDict:
    """Returns what a config.json says; any path will do."""
    values = files.read_json(path)
    try:
        return configuration.from_mapping(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


_OF_THE_RUN = (
    "config.json model.npz environment.json noise.npz lock metrics.jsonl evidence.npz matrices.npz "
    "results.json evaluation.json label_issues.csv sample_weights.npz report.html blend.pkl "
    "features.npz curves.npz checkpoints"
).split()


def check_output(
    workdir: Path, flag: str, path: str | None, read: Iterable[str | Path | None] = ()
) -> None:
    """Checks that a file that a command is to write takes the place of nothing that is needed.

    Args:
      workdir: of the run.
      flag: that named the file; of --export, TOOL:FILE.
      path: of the file, or None.
      read: files that the command reads; None where there is none.

    Raises:
      UserError: it is one of them, or one of the run's own files.
    """
    if not path:
        return
    target = Path(path.partition(":")[2] if flag == "export" else path)
    place, own = target.resolve(), workdir.resolve()
    inside = place.relative_to(own).parts[:1] if place.is_relative_to(own) else ()
    check(
        not inside or inside[0] not in _OF_THE_RUN,
        f"--{flag}={path} is the run's own {'/'.join(inside)}: name another file.",
    )
    for name in read:
        check(
            not name or place != files.expanded(name).resolve(),
            f"--{flag}={path} would take the place of the file that is read: name another one.",
        )


def check_data(workdir: Path, model: models.Model, data: Prepared, advice: str) -> None:
    """Checks that data are those that a run was trained on.

    Args:
      workdir: of the run, for the message.
      model: of the run.
      data: as they are now.
      advice: a sentence that follows.

    Raises:
      UserError: they have changed; names what.
    """
    changes = models.data_difference(model.data, models.data_record(data))
    check(
        not changes,
        f"The data have changed since the run in {workdir} began: {'; '.join(changes)}. {advice}",
    )
