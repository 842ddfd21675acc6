"""Opening of a workdir: its configuration, and whether it and the data are those of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxrobust import config as configuration
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
        config = configuration.validate(configuration.load(str(path)))
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
    changes = configuration.difference(record, configuration.load(str(path)))
    if changes:
        raise UserError(
            f"{path} has been changed since the run began: {'; '.join(changes)}. Put it back, or "
            "remove it: the run's own settings are in model.npz."
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
