"""A trained model in its workdir: `model.npz`, and predictions that need nothing but the workdir.

`model.npz` is written before training begins. It is the run's own record of its configuration and
of its data, and holds what the network must know of them: class names, the shape and type of an
example, mean and deviation, the columns of a table. Parameters are those of the checkpoints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import files
from jaxrobust.data import tabular
from jaxrobust.data.examples import View, in_memory
from jaxrobust.data.manifest import Manifest
from jaxrobust.data.prepare import Part, Prepared
from jaxrobust.data.table import from_array, from_frame
from jaxrobust.errors import RunError, UserError, check, present
from jaxrobust.methods import TrainState
from jaxrobust.networks import Network
from jaxrobust.runs import image_features
from jaxrobust.runs.experiment import Experiment, evaluation_view, make_network
from jaxrobust.training import evaluation, label_wave
from jaxrobust.training.checkpoints import Found, read
from jaxrobust.training.loop import Place
from jaxrobust.training.saving import progress
from jaxrobust.training.sharding import make_layout

if TYPE_CHECKING:
    from jaxrobust.runs.blended import Fitted

NAME = "model.npz"
WHICH = ("selected", "last", "ema", "label_wave")  # of a run's parameters
_VERSION = 1
_COLUMNS = "columns_"
_WRONG = "is not the model of a run"
_REMEDY = "Put it back, or remove it and run the training command again: it writes a new one."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What a run's network has to know besides its parameters.

    Attributes:
      config: the run's configuration, validated.
      class_names: K names; outputs of the network in this order.
      feature_names: D names of a table's columns, in order; () if they have none.
      shape: of one example, (H, W, C) or (D,).
      dtype: "uint8" of images as bytes, "float32" of everything else.
      mean, std: float32 [C] or [D], of the training examples; those of uint8 in 0..1.
      data: what the run was trained on, see `data_record`.
      images: where the network takes features of a frozen one, the shape of an image; else None.
      encoder: of a table, what turns its rows into the features [D]; else None.
      recorded: the configuration as the version that began the run wrote it, which had perhaps
        fewer settings; None if this version does.
    """

    config: ConfigDict
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    mean: np.ndarray
    std: np.ndarray
    data: dict[str, Any]
    encoder: tabular.Encoder | None = None
    recorded: dict[str, Any] | None = None
    images: tuple[int, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example as a user has it: of an image, not of its features."""
        return self.shape if self.images is None else self.images

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of configuration and data; checkpoints carry it, see `Saver`."""
        record = json.dumps([self.settings(), self.data], sort_keys=True)
        return hashlib.sha256(record.encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Returns the configuration as `model.npz` has it."""
        return self.recorded or json.loads(configuration.to_json(self.config))

    def begun_as(self, before: Model | None) -> Model:
        """Returns the model with the record of the run that it goes on with, if there is one: an
        earlier version may have had fewer settings, and fewer digests of the same data."""
        if before is None:
            return self
        return dataclasses.replace(self, recorded=before.recorded, data=before.data)


def of(experiment: Experiment) -> Model:
    """Returns the model of a run that is about to begin."""
    first = np.asarray(experiment.data.train.x[0])
    mean, std = experiment.scale
    shown = experiment.data.train.images
    return Model(
        config=experiment.config,
        class_names=tuple(experiment.data.class_names),
        feature_names=tuple(experiment.data.manifest.feature_names),
        shape=first.shape,
        dtype=str(first.dtype),
        mean=np.asarray(mean),
        std=np.asarray(std),
        data=data_record(experiment.data),
        encoder=experiment.data.encoder,
        images=None if shown is None else tuple(np.asarray(shown[0]).shape),
    )


def save(model: Model, workdir: Path) -> None:
    """Writes `model.npz`, whole or not at all."""
    record = {
        "version": _VERSION,
        "config": model.settings(),
        "class_names": model.class_names,
        "feature_names": model.feature_names,
        "shape": model.shape,
        "dtype": model.dtype,
        "images": model.images,
        "data": model.data,
    }
    encoder = {} if model.encoder is None else model.encoder.to_arrays()
    with files.whole(workdir / NAME, "wb") as file:
        np.savez(
            file,
            model=np.array(json.dumps(record)),
            mean=model.mean,
            std=model.std,
            **{_COLUMNS + name: array for name, array in encoder.items()},
        )


def load_model(workdir: Path) -> Model | None:
    """Reads the model of a workdir; None if there is none.

    Raises:
      UserError: the file is damaged, or written by a later version.
    """
    path = workdir / NAME
    if not path.is_file():
        return None
    try:
        arrays = files.read_npz(path, _WRONG)
    except UserError as error:
        raise UserError(f"{error} {_REMEDY}") from None
    columns = {n.removeprefix(_COLUMNS): a for n, a in arrays.items() if n.startswith(_COLUMNS)}
    try:
        record = json.loads(str(arrays["model"]))
        check(record["version"] <= _VERSION, f"{path} was written by a later version of jaxrobust.")
        problem = _problem(record, arrays)
        check(problem is None, f"{path} {_WRONG}: {problem}. {_REMEDY}")
        return Model(
            config=configuration.validate(configuration.from_mapping(record["config"])),
            class_names=tuple(record["class_names"]),
            feature_names=tuple(record["feature_names"]),
            shape=tuple(record["shape"]),
            dtype=record["dtype"],
            data=record["data"],
            mean=arrays["mean"],
            std=arrays["std"],
            encoder=tabular.from_arrays(columns) if columns else None,
            recorded=record["config"],
            images=tuple(record["images"]) if record.get("images") else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} {_WRONG}: {type(error).__name__}. {_REMEDY}") from None


def _problem(record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns what of a model is not as `save` writes it, or None."""
    names, shape = record["class_names"], record["shape"]
    for key in ("class_names", "feature_names"):
        if not isinstance(record[key], list) or not all(isinstance(n, str) for n in record[key]):
            return f"{key!r} is no list of names"
    if not names or len(set(names)) < len(names):
        return "a class has no name of its own"
    if not (isinstance(shape, list) and len(shape) in (1, 3)):
        return "'shape' is none of an example"
    if not all(type(n) is int and n > 0 for n in shape):
        return "'shape' is none of an example"
    if record["dtype"] not in ("uint8", "float32") or not isinstance(record["data"], dict):
        return "'dtype' or 'data' is of another kind"
    scale = arrays["mean"], arrays["std"]
    if not all(a.dtype.kind == "f" and a.shape == (shape[-1],) for a in scale):
        return "mean or deviation does not fit an example"
    return None


def data_record(data: Prepared) -> dict[str, Any]:
    """Returns what tells whether data are those that a run was trained on: counts for the message,
    and digests of the source, of the rows and labels of each part, and of the test data."""
    return {
        "name": data.manifest.source,
        "classes": list(data.class_names),
        "training examples": len(data.train.labels),
        "labels and examples": data.manifest.fingerprint,
        "rows and labels of each part": _rows_digest(data.manifest),
        "validation examples": _part_digest(data.validation),
        "test examples": _part_digest(data.test),
        "sizes of image files": sizes_digest(data.train, data.metadata, data.validation, data.test),
    }


def is_record(model: Model, record: Manifest) -> bool:
    """Returns whether a manifest is that of a run: the same data, rows and labels."""
    return model.data["labels and examples"] == record.fingerprint and model.data[
        "rows and labels of each part"
    ] == _rows_digest(record)


def _rows_digest(record: Manifest) -> str:
    digest = hashlib.sha256()
    for part in (record.train, record.metadata, record.validation):
        for array in part or ():
            digest.update(np.ascontiguousarray(array, np.int64))
        digest.update(b"|")
    return digest.hexdigest()


def _part_digest(part: Part | None) -> str | None:
    """Returns a digest of labels and names, and of the examples where they are in memory."""
    if part is None:
        return None
    part = part._replace(x=part.shown)
    digest = hashlib.sha256(repr((tuple(part.x.shape), part.ids)).encode())
    digest.update(np.ascontiguousarray(part.labels, np.int64))
    if in_memory(part.x) or isinstance(part.x, jax.Array):
        digest.update(np.ascontiguousarray(part.x))
    return digest.hexdigest()


def sizes_digest(*parts: Part | None) -> str | None:
    """Returns a digest of the sizes of image files that are decoded when asked for; None if there
    are none: of those a fingerprint reads a sample alone."""
    sizes = []
    for part in parts:
        if part is None:
            continue
        x, rows = part.shown, None
        x, rows = (x.x, x.rows) if isinstance(x, View) else (x, None)
        paths = getattr(x, "paths", None)
        if paths is not None:
            sizes += [os.stat(paths[i]).st_size for i in (range(len(x)) if rows is None else rows)]
    return hashlib.sha256(np.array(sizes, np.int64)).hexdigest() if sizes else None


def data_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what has changed between two results of `data_record`, in a few words each."""
    found = []
    for key, old in before.items():
        new = now.get(key)
        if old == new:
            continue
        if isinstance(old, list):
            found.append(f"{key}: {_some(old)} -> {_some(new)}")
        elif key in ("name", "training examples"):
            found.append(f"{key}: {old} -> {new}")
        else:
            found.append(f"other {key}")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class Predictor:
    """A trained run, ready to predict; see `load`.

    Attributes:
      model: see `Model`.
      classes: str [K], the names of the classes.
      epoch: epochs of training that the parameters have seen.
      problems: lines about newer checkpoints that could not be used.
    """

    def __init__(
        self,
        model: Model,
        forward: Callable,
        params: Any,
        batch_stats: Any,
        epoch: int,
        problems: list[str],
    ):
        self.model, self.epoch, self.problems = model, epoch, problems
        self.classes = np.array(model.class_names)
        self._forward, self._params, self._batch_stats = forward, params, batch_stats

    def predict_proba(self, x: Any) -> np.ndarray:
        """Predicts the probability of every class.

        Args:
          x: [N, H, W, C] images (uint8 0..255 where the run was trained on those) or [N, D]
            features, as the run was trained on them; of a table, a DataFrame whose columns are
            found by name, or an array of all of its columns; or anything with `len`, `[i]`,
            `shape` and `dtype` that reads an example when asked.

        Returns:
          float32 [N, K], columns in the order of `classes`; each row sums to one.

        Raises:
          UserError: examples of another shape or type.
        """
        return self.probabilities(self._checked(x))

    def probabilities(self, x: Any) -> np.ndarray:
        """As `predict_proba`, of a table's features, and of images as they are."""
        if len(x) == 0:
            return np.zeros((0, len(self.classes)), np.float32)
        if self.model.images is not None:
            x = image_features.of(x, extractor=image_features.from_config(self.model.config))
        return np.asarray(jax.nn.softmax(self._forward(self._params, self._batch_stats, x)))

    def predict(self, x: Any) -> np.ndarray:
        """Returns str [N], the name of the most probable class; arguments as in `predict_proba`."""
        return self.classes[self.predict_proba(x).argmax(1)]

    def _checked(self, x: Any) -> Any:
        shape, encoder = self.model.input_shape, self.model.encoder
        dtype = self.model.dtype if self.model.images is None else "uint8"
        if encoder is not None:
            frame = hasattr(x, "columns")
            x = x if frame else np.asarray(x)
            check(
                frame or (x.ndim == 2 and x.shape[1] == len(encoder.inputs)),
                f"x has shape {list(x.shape)}; the run was trained on a table of "
                f"{len(encoder.inputs)} columns: {_some(list(encoder.inputs))}.",
            )
            table = from_frame(x) if frame else from_array(x, "x", encoder.inputs)
            return encoder.transform(table)
        if isinstance(x, (list, tuple)) or hasattr(x, "columns"):
            x = np.asarray(x)
        if isinstance(x, (np.ndarray, jax.Array)):
            x = np.asarray(x)
            if x.ndim == len(shape) and len(shape) == 3 and shape[-1] == 1:
                x = x[..., None]  # gray images without their channel
            if dtype == "float32" and x.dtype.kind in "iuf" and len(shape) == 1:
                x = x.astype(np.float32)
        check(
            tuple(x.shape[1:]) == shape,
            f"x has examples of shape {list(x.shape[1:])}; the run was trained on {list(shape)}.",
        )
        check(
            x.dtype == np.dtype(dtype),
            f"x is {x.dtype}; the run was trained on {dtype}"
            + (" images with values 0..255." if dtype == "uint8" else "."),
        )
        return x


def load(workdir: str | Path, which: str = "selected") -> Predictor | Fitted:
    """Opens a trained run for predictions; the training data are not needed.

    Example:
      ```python
      model = jaxrobust.load("runs/photos")
      model.predict(images)          # class names
      model.predict_proba(images)    # float32 [N, K]
      ```

    Args:
      workdir: of a run that has a checkpoint; nothing in it is changed.
      which: "selected" parameters (of the best epoch on the validation data) or "last", the same
        if no epoch was selected; "ema" or "label_wave", of a run that has kept them.

    Returns:
      The predictor; does what `--mode=predict` does.

    Raises:
      UserError: there is no run, no checkpoint yet, or its configuration was changed.
      RunError: no checkpoint can be read.
    """
    from jaxrobust.runs import blended
    from jaxrobust.runs.workdir import read_config

    check(which in WHICH, f"which={which!r}: one of {', '.join(WHICH)}.")
    workdir = Path(workdir)
    if blended.is_run(workdir):
        return blended.load(workdir)
    config = read_config(workdir)
    check(
        not config.train.seeds,
        f"{workdir} holds a run per seed: load one of them, such as {workdir}/seed_"
        f"{(*config.train.seeds, '')[0]}.",
    )
    return open_predictor(workdir, config, which)


def _parameters(found: Found, place: Place, which: str, workdir: Path) -> tuple[Any, Any, int]:
    """Returns those parameters of a checkpoint, their batch statistics, and their epoch."""
    first, second = TrainState._fields[1:3]
    state = found.arrays["state"]
    if which == "ema":
        kept = state.get("average")
        check(bool(kept), f"{workdir} has kept no average: --config.train.ema=0.997 does.")
        return kept[first], kept.get(second), place.epoch
    if which == "label_wave":
        message = (
            f"{workdir} has no epoch of Label Wave: --config.eval.label_wave=True looks for it."
        )
        position = present(label_wave.first_minimum(place.changes), message)
        kept = present(found.arrays.get("label_wave"), message)
        return *kept, place.epoch - len(place.changes) + position + 1
    if which == "selected" and place.selected_value is not None:
        return *found.arrays["selected"], place.selected_epoch
    return state[first], state.get(second), place.epoch


def open_predictor(workdir: Path, config: ConfigDict, which: str) -> Predictor:
    """As `load`, with a configuration that may name another place for the data."""
    model = present(
        load_model(workdir),
        f"{workdir} has no {NAME}: an earlier version of jaxrobust trained it. Train again.",
    )
    found = present(
        read(workdir / "checkpoints"), f"{workdir} holds no checkpoint yet. Train first."
    )
    place, record = progress(found)
    check(
        record == model.fingerprint,
        f"The checkpoints of {workdir} belong to another run than its {NAME}.",
    )
    network = make_network(config, len(model.class_names))
    as_is = config.network.pretrained is not None
    view = evaluation_view(model.shape, model.mean, model.std, as_is=as_is)
    try:
        params, batch_stats, epoch = _parameters(found, place, which, workdir)
        _check_fits(model, network, view, params, batch_stats or {})
    except UserError:
        raise
    except Exception as error:  # of any type, by network
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"Checkpoint {found.folder} does not fit the network of {workdir / NAME}: {line}"
        ) from None
    count = min(config.train.devices or jax.device_count(), jax.device_count())
    batch_size = -(-config.eval.batch_size // count) * count
    forward = evaluation.make_forward(
        network, view, batch_size, config.data.workers, make_layout(batch_size, count)
    )
    return Predictor(model, forward, params, batch_stats or {}, epoch, found.problems)


def _check_fits(model: Model, network: Network, view: Any, params: Any, batch_stats: Any) -> None:
    """Traces a prediction; raises what the network raises, or `UserError`."""

    def logits(params: Any, batch_stats: Any, x: Any) -> Any:
        return network.apply(params, batch_stats, view(jax.random.key(0), x), False)[0]

    x = jax.ShapeDtypeStruct((1, *model.shape), model.dtype)
    shape = jax.eval_shape(logits, params, batch_stats, x).shape
    k = len(model.class_names)
    check(shape == (1, k), f"it gives {list(shape[1:])} outputs an example, of {k} classes")
