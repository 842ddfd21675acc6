"""Use of a trained workdir: evaluation and prediction. And the dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import networks
from jaxrobust.audit import export
from jaxrobust.data.prepare import Prepared
from jaxrobust.data.readers import images
from jaxrobust.data.readers.unlabeled import load_inputs
from jaxrobust.errors import check, present, writing
from jaxrobust.runs import blended, cross_validation, image_features, results, seeds, summary
from jaxrobust.runs import model as models
from jaxrobust.runs.experiment import Experiment, assemble, load_data, make_views
from jaxrobust.runs.fit import init_state, state_shapes
from jaxrobust.runs.workdir import check_data, read_config
from jaxrobust.training.checkpoints import read
from jaxrobust.training.saving import restored, target

Say = Callable[[str], None]


def open_workdir(
    workdir: str | Path, settings: Mapping[str, Any] | None = None, say: Say = lambda line: None
) -> tuple[Experiment, dict[str, Any]]:
    """Builds the experiment of a workdir and reads its newest checkpoint; changes nothing there.

    Args:
      workdir: of a run.
      settings: by full name, instead of the run's own: where the data are now.
      say: called with a line for each newer checkpoint that cannot be used, and one for an epoch
        that is not the run's last.

    Returns:
      The experiment, and `{"state": TrainState, "place": Place, "selected": (params,
      batch_stats), "wave": training.saving.Wave or None}`; as long as no epoch has been selected,
      those of the state are.

    Raises:
      UserError: there is no run, no checkpoint yet, or the data have changed since it began.
      RunError: no checkpoint can be read.
    """
    workdir = Path(workdir)
    experiment = assemble(read_config(workdir, settings or {}), workdir=workdir, say=say)
    model = models.load_model(workdir)
    if model is not None:
        check_data(
            workdir,
            model,
            experiment.data,
            "Put them back as they were, or name their place: --config.data.path=.",
        )
    wanted = target(init_state(experiment))
    found = present(
        restored(
            read(workdir / "checkpoints", wanted),
            experiment.config.eval.select,
            experiment.method.epochs,
        ),
        f"{workdir} holds no checkpoint yet. Train first.",
    )
    check(
        model is None or found.record == model.fingerprint,
        f"The checkpoints of {workdir} belong to another run than its {models.NAME}.",
    )
    for line in [*found.problems, *_not_the_last(found.place.epoch, experiment.method.epochs)]:
        say(f"note: {line}")
    selected = found.selection.of(found.state)
    run = {"state": found.state, "place": found.place, "selected": selected, "wave": found.wave}
    return experiment, run


def _not_the_last(epoch: int, epochs: int) -> list[str]:
    if epoch == epochs:
        return []
    return [f"These are the parameters of epoch {epoch} of {epochs}, not of the last."]


def evaluate(
    workdir: str | Path,
    settings: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
    save: bool = True,
) -> dict[str, Any]:
    """Measures a run's last and selected parameters again.

    Args:
      workdir: of a run.
      settings, say: see `open_workdir`.
      save: whether evaluation.json is written.

    Returns:
      Of what results.json holds: selection_split, selection_metric, last, selected.
    """
    if blended.is_run(workdir):
        measured = blended.evaluate(workdir)
        if save:
            results.write_json(Path(workdir) / "evaluation.json", measured)
        return measured
    experiment, run = open_workdir(workdir, settings, say)
    measured, _ = results.measure_run(experiment, **run)
    if save:
        results.write_json(Path(workdir) / "evaluation.json", measured)
    return measured


def predict(
    workdir: str | Path,
    inputs: str | Path,
    output: str | Path | None = None,
    which: str = "selected",
    settings: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Predicts classes of new examples with a trained run; needs nothing but its workdir.

    Args:
      workdir: of a run.
      inputs: an image, a folder of images (flat or with sub-folders), an .npy array [N, ...], an
        .npz with `x`, or a .csv table with the columns that the run was trained on, in any
        order, and others; of the shape that the run was trained on.
      output: the CSV to write; default `predictions.csv` in the workdir.
      which: "selected" or "last" parameters, the same if no epoch was selected; "ema" or
        "label_wave", of a run that has kept them.
      settings: by full name, instead of the run's own: how examples are read.
      say: see `open_workdir`.

    Returns:
      The path of the CSV: example, predicted class name, its probability, then every class's.

    Raises:
      UserError, RunError: see `open_workdir`; or inputs that cannot be read, or are of another
        shape.
    """
    workdir = Path(workdir)
    config = read_config(workdir, settings or {})
    output = Path(output or workdir / "predictions.csv")
    check(output.parent.is_dir(), f"--output={output}: no folder {str(output.parent)!r}.")
    check(not output.is_dir(), f"--output={output} is a folder: name a file.")

    def readable(x: Any, names: list[str]) -> tuple[Any, list[str]]:
        if not isinstance(x, images.LazyImages) or config.data.on_unreadable != "skip":
            return x, names
        x, kept = images.load(x, "skip", 0)
        if len(kept) < len(names):
            say(f"note: {images.skipped_note(str(inputs), names, kept)}")
        return x, [names[i] for i in kept]

    if blended.is_run(workdir):
        p, names, class_names = blended.predict(workdir, inputs, readable)
        with writing(output):
            return write_predictions(output, names, class_names, p)
    predictor = models.open_predictor(workdir, config, which)
    for line in predictor.problems:
        say(f"note: {line} These are the parameters of epoch {predictor.epoch}.")
    model = predictor.model
    x, names = readable(*load_inputs(inputs, like=model.input_shape, encoder=model.encoder))
    p = predictor.probabilities(x)
    advice = "" if output.parent != workdir else "Name another file: --output=FILE.csv."
    with writing(output, advice):
        return write_predictions(output, names, predictor.model.class_names, p)


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


def describe(config: ConfigDict, verbose: bool = False) -> str:
    """The dry run: resolves the configuration and loads the data, but trains nothing.

    Args:
      config: of the run.
      verbose: whether the whole configuration and the size of every class come first.

    Returns:
      A text with data and classes, realized noise, parameter count, an estimate of the memory that
      data, parameters and optimizer take on the device, and of the time that features take.
    """
    config = configuration.validate(config)
    head = [configuration.to_json(config)] if verbose else []
    if config.method.name == "blend":
        seeds.check_seeds(config)
        return "\n".join([*head, blended.describe(config)])
    data = image_features.with_features(config, load_data(config), compute=False)
    experiment = assemble(config, data)
    if config.audit.folds:
        cross_validation.check_folds(experiment, config.audit.folds)
    data, network = experiment.data, experiment.network
    shapes = state_shapes(experiment)
    noise = results.noise_summary(data)
    lines = [*head, *(_class_sizes(data, noise) if verbose else ())]
    lines += [summary.data(config, data), summary.classes(data)]
    if noise["realised_rate"] is not None:
        asked = f"requested rate {noise['requested_rate']:.3f}, "
        asked = "" if noise["requested_kind"] == "none" else asked
        lines.append(f"Wrong labels: {asked}realized {noise['realised_rate']:.3f}.")
    parts = (data.metadata, data.validation, data.test)
    beside = [p.x for p in parts if p is not None and isinstance(p.x, jax.Array)]
    held = _bytes((shapes, experiment.feed.arrays, experiment.feed.truth, beside))
    first = np.asarray(data.train.x[0])
    where = "streamed" if experiment.feed.host_x is not None else "on the device"
    steps = -(-len(data.train.labels) // config.train.batch_size)
    lines += [
        f"Examples: {first.dtype}{list(first.shape)}, {where}.",
        f"Network {config.network.name}: {networks.count_parameters(shapes.params):,} parameters, "
        f"stages {', '.join(network.stages)}.",
        f"Method {config.method.name}: {experiment.method.epochs} epochs of {steps} steps; the "
        "progress line tells the time left after the first epoch.",
        f"Memory on the device before activations: about {held / 2**20:.0f} MiB; "
        f"one step adds about {_step_bytes(experiment, shapes) / 2**20:.0f} MiB.",
        *_of_seeds(config, experiment),
    ]
    if data.train.images is not None:
        which, images = image_features.from_config(config), data.train.images
        total = sum(len(p.labels) for p in (data.train, *parts) if p is not None)
        lines.append(summary.feature_time(which, total, images.shape[1:]))
    lines += [*(f"note: {line}" for line in data.warnings), "Nothing was trained or written."]
    return "\n".join(lines)


def _class_sizes(data: Prepared, noise: dict[str, Any]) -> list[str]:
    """Returns a line per class: its training examples by given and by true label."""
    counts = zip(data.class_names, noise["given_class_counts"], noise["class_counts"], strict=True)
    lines = ["Classes (training examples, given / true):"]
    for name, given, true in counts:
        lines.append(f"  {name}: {given} / {true if data.truth_known else 'unknown'}")
    return lines


def _of_seeds(config: ConfigDict, experiment: Experiment) -> list[str]:
    """Says how several seeds are trained."""
    if not config.train.seeds:
        return []
    seeds.check_seeds(config)
    how = "as one program" if seeds.together(experiment) else "one after the other"
    return [f"Seeds {', '.join(map(str, config.train.seeds))}: trained {how}, on the same data."]


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
        shapes.params,
        shapes.network_state,
        x,
    )
    return _bytes(saved) + _bytes(shapes.params)
