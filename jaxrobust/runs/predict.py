"""What to do with a trained workdir: evaluate it, predict with it. And the dry run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import networks
from jaxrobust.audit import export
from jaxrobust.data.readers.unlabelled import load_inputs
from jaxrobust.errors import UserError, check
from jaxrobust.runs import cross_validation, results
from jaxrobust.runs.experiment import Experiment, assemble, make_views
from jaxrobust.runs.fit import init_state
from jaxrobust.training.checkpoints import Checkpoints
from jaxrobust.training.saving import restore


def open_workdir(workdir: str | Path) -> tuple[Experiment, dict[str, Any]]:
    """Builds the experiment of a workdir and reads its newest checkpoint.

    Returns:
      The experiment, and `{"state": TrainState, "place": Place, "selected": (params,
      batch_stats)}`; as long as no epoch has been selected, those of the state are.

    Raises:
      UserError: there is no run, or no checkpoint yet.
    """
    workdir = Path(workdir)
    path = workdir / "config.json"
    check(path.is_file(), f"--workdir={workdir} holds no run (no config.json). Train first.")
    experiment = assemble(configuration.validate(configuration.load(str(path))))
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        found = restore(checkpoints, init_state(experiment), experiment.config.eval.select)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir} holds no checkpoint yet. Train first.")
    selected = found.selection.of(found.state)
    return experiment, {"state": found.state, "place": found.place, "selected": selected}


def evaluate(workdir: str | Path) -> dict[str, Any]:
    """Measures a run's last and selected parameters again; writes evaluation.json.

    Returns:
      Of what results.json holds: selection_split, selection_metric, last, selected.
    """
    experiment, run = open_workdir(workdir)
    measured, _ = results.measure_run(experiment, **run)
    results.write_json(Path(workdir) / "evaluation.json", measured)
    return measured


def predict(
    workdir: str | Path, inputs: str | Path, output: str | Path | None = None,
    which: str = "selected",
) -> Path:
    """Predicts classes of new examples with a trained run.

    Args:
      workdir: of a run.
      inputs: an image, a folder of images (flat or with sub-folders), an .npy array [N, ...], an
        .npz with `x`, or a .csv table with the columns that the run was trained on, in any
        order, and others; of the shape that the run was trained on.
      output: the CSV to write; default `predictions.csv` in the workdir.
      which: selected or last parameters; the same if no epoch was selected.

    Returns:
      The path of the CSV: example, predicted class name, its probability, then every class's.
    """
    experiment, arrays = open_workdir(workdir)
    state = arrays["state"]
    last = (state.params, state.batch_stats)
    params, batch_stats = arrays["selected"] if which == "selected" else last
    x, names = load_inputs(
        inputs, like=np.asarray(experiment.data.train.x[0]).shape,
        encoder=experiment.data.encoder,
    )
    p = np.asarray(jax.nn.softmax(experiment.forward(params, batch_stats, x)))
    output = Path(output or Path(workdir) / "predictions.csv")
    return write_predictions(output, names, experiment.data.class_names, p)


def write_predictions(
    path: Path, names: Sequence[str], class_names: Sequence[str], p: np.ndarray
) -> Path:
    """Writes probabilities [N, K] of examples by name; see `predict`."""
    names, classes = (list(map(export.harmless, texts)) for texts in (names, class_names))
    rows = (
        [name, classes[row.argmax()], f"{row.max():.6f}", *(f"{v:.6f}" for v in row)]
        for name, row in zip(names, p, strict=True)
    )
    return export.write_rows(path, ["example", "predicted_label", "probability", *classes], rows)


def describe(config: ConfigDict) -> str:
    """The dry run: resolves the configuration and loads the data, but trains nothing.

    Returns:
      A text with the configuration, class counts, realised noise, parameter count and an
      estimate of the memory that data, parameters and optimiser take on the device.
    """
    config = configuration.validate(config)
    experiment = assemble(config)
    if config.audit.folds:
        cross_validation.check_folds(experiment, config.audit.folds)
    data, network = experiment.data, experiment.network
    shapes = jax.eval_shape(experiment.method.init, jax.random.key(0))
    noise = results.noise_summary(data)
    lines = [configuration.to_json(config), "Classes (training examples, given / true):"]
    counts = zip(
        data.class_names, noise["given_class_counts"], noise["class_counts"], strict=True
    )
    for name, given, true in counts:
        lines.append(f"  {name}: {given} / {true if data.truth_known else 'unknown'}")
    for name in ("train", "metadata", "validation", "test"):
        part = getattr(data, name)
        lines.append(f"{name}: {'none' if part is None else len(part.labels)}")
    if noise["realised_rate"] is not None:
        asked = f"requested rate {noise['requested_rate']:.3f}, "
        asked = "" if noise["requested_kind"] == "none" else asked
        lines.append(f"Wrong labels: {asked}realised {noise['realised_rate']:.3f}.")
    parts = (data.metadata, data.validation, data.test)
    beside = [p.x for p in parts if p is not None and isinstance(p.x, jax.Array)]
    held = _bytes((shapes, experiment.feed.arrays, experiment.feed.truth, beside))
    first = np.asarray(data.train.x[0])
    where = "streamed" if experiment.feed.host_x is not None else "on the device"
    lines += [
        f"Examples: {first.dtype}{list(first.shape)}, {where}.",
        f"Network {config.network.name}: {networks.count_parameters(shapes.params):,} parameters, "
        f"stages {', '.join(network.stages)}.",
        f"Memory on the device before activations: about {held / 2**20:.0f} MiB; "
        f"one step adds about {_step_bytes(experiment, shapes) / 2**20:.0f} MiB.",
        *(f"note: {line}" for line in data.warnings),
        "Nothing was trained or written.",
    ]
    return "\n".join(lines)


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _step_bytes(experiment: Experiment, shapes: Any) -> int:
    """Sums what the forward pass of a training batch keeps for the backward pass."""
    config = experiment.config
    raw = np.asarray(experiment.data.train.x[0])
    raw = jax.ShapeDtypeStruct((config.train.batch_size, *raw.shape), raw.dtype)
    views, _ = make_views(config, experiment.data, *experiment.scale)
    x = jax.eval_shape(views(), jax.random.key(0), raw)
    saved = jax.eval_shape(
        lambda p, s, x: jax.vjp(lambda p: experiment.network.apply(p, s, x, True)[0], p)[1],
        shapes.params, shapes.batch_stats, x,
    )
    return _bytes(saved) + _bytes(shapes.params)
