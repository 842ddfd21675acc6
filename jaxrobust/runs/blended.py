"""Runs of `method.name=blend`: scikit-learn models instead of a network, in the same workdir.

A path of its own beside `runs.train`, because nothing of the engine has a meaning here (epochs,
steps, checkpoints, devices); what is written is read by the same audit, report and tools: config,
environment, noise.npz, evidence.npz, results.json, label_issues.csv, sample_weights.npz,
report.html, and blend.pkl in place of checkpoints. Every example of the data is judged, test and
validation rows alike, by models that have not seen it. A run that was stopped begins again: it
takes minutes; features of images are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxrobust import config as configuration
from jaxrobust import files
from jaxrobust.audit import models
from jaxrobust.data import manifest, table, tabular
from jaxrobust.data.prepare import PARTS, Part, Prepared, everything
from jaxrobust.data.readers.unlabeled import load_inputs
from jaxrobust.errors import check
from jaxrobust.runs import audit as auditing
from jaxrobust.runs import image_features, results, summary
from jaxrobust.runs.experiment import load_data
from jaxrobust.runs.safe_pickle import read_pickle, write_pickle

MODEL = "blend.pkl"
_WIDE = models.WIDE

Say = Callable[[str], None]


class Fitted(NamedTuple):
    """What predictions need: the blend, class names, shape of an example; of tables, the arrays of
    the encoder (see `tabular.Encoder.to_arrays`); of images, the `image_features.Extractor`."""

    blend: models.Blend
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    encoder: dict[str, np.ndarray] | None
    extractor: tuple[str, str, int] = image_features.DEFAULT

    @property
    def classes(self) -> np.ndarray:
        """Str [K], names of the classes."""
        return np.array(self.class_names)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Returns float64 [N, K], probabilities of the true class.

        Args:
          x: a DataFrame or array as the run was trained on; or images uint8 [N, H, W, C].
        """
        if self.encoder is None:
            return self.of_inputs(x)
        encoder = tabular.from_arrays(self.encoder)
        plain = isinstance(x, np.ndarray)
        read = table.from_array(x, "x", encoder.inputs) if plain else table.from_frame(x, "x")
        return self.of_inputs(encoder.transform(read))

    def predict(self, x: Any) -> np.ndarray:
        """Returns str [N], the class of each example; see `models.Blend.divisor`."""
        return self.classes[self.balanced(self.predict_proba(x)).argmax(1)]

    def of_inputs(self, x: Any) -> np.ndarray:
        """Returns probabilities [N, K] of features, or of images, as `load_inputs` reads them."""
        if len(x) == 0:
            return np.zeros((0, len(self.class_names)))
        if np.asarray(x[0]).ndim == 3:
            x = image_features.of(x, extractor=image_features.Extractor(*self.extractor))
        return self.blend.predict_proba(np.asarray(x))

    def balanced(self, p: np.ndarray) -> np.ndarray:
        """Returns probabilities [N, K] divided by `models.Blend.divisor`."""
        p = p / np.maximum(self.blend.divisor, 1e-12)
        return p / p.sum(1, keepdims=True)


class Judged(NamedTuple):
    """All examples of the data, whatever their part: features [M, F], labels, names."""

    x: np.ndarray
    labels: np.ndarray
    true: np.ndarray
    index: np.ndarray
    split: np.ndarray
    groups: np.ndarray | None
    ids: list[str] | None
    votes: np.ndarray | None


def train(config: ConfigDict, workdir: Path, say: Say) -> dict[str, Any]:
    """Judges the labels, fits the models and writes the workdir; returns results.json's contents.

    Args:
      config: validated, with method.name=blend.
      workdir: of the run.
      say: called with lines for the user.

    Raises:
      UserError: data that cannot be used; fine-tuning was asked for.
    """
    check_settings(config)
    begin = time.monotonic()
    data = load_data(config)
    for line in data.warnings:
        say(f"note: {line}")
    workdir.mkdir(parents=True, exist_ok=True)
    parts = _parts(data)
    extractor = image_features.from_config(config) if _is_images(data) else None
    encoder, every = _gather(data, parts, extractor, workdir, say)
    k = len(data.class_names)
    say(f"Judging {len(every.labels)} examples by cross-validation.")
    kind = models.kind_of(*every.x.shape, k, None if encoder is None else len(encoder.series))
    study = models.study(every.x, every.labels, k, groups=every.groups, seed=config.seed, kind=kind)
    rows = np.flatnonzero(every.split != "test")
    blend = models.fit(
        every.x[rows], study.posterior[rows], study.weights, seed=config.seed, kind=kind
    )
    fitted = Fitted(
        blend,
        data.class_names,
        np.asarray(data.train.x[0]).shape,
        None if encoder is None else encoder.to_arrays(),
        tuple(extractor or image_features.DEFAULT),
    )
    write_pickle(fitted, workdir / MODEL)
    manifest.save(data.manifest, workdir / "noise.npz")
    results.write_json(workdir / "environment.json", results.environment())
    with files.whole(workdir / "config.json") as file:
        file.write(configuration.to_json(config))
    found = _evidence(every, study)
    auditing.save(found, workdir / "evidence.npz")
    outcome = {
        "method": config.method.name,
        "loss": None,
        "seed": config.seed,
        "epochs": 0,
        "steps": 0,
        "noise": results.noise_summary(data),
        "seconds": round(time.monotonic() - begin, 1),
        **_measured(blend, every, study),
    }
    audited = auditing.find(config, data.manifest, found)
    outcome["audit"] = audited.summary
    auditing.write(workdir, config, data.manifest, found, audited, outcome, everything(data))
    results.write_json(workdir / "results.json", outcome)
    return outcome


def check_settings(config: ConfigDict) -> None:
    """Raises `UserError` for settings that have no meaning here."""
    check(
        config.data.balance == "none",
        f"data.balance={config.data.balance} is for methods that train a network; "
        "method.name=blend balances the classes when it decides. Leave it out.",
    )
    check(
        config.network.freeze,
        "network.freeze=False fine-tunes a network; method.name=blend trains none. Add "
        "--config.method.name=supervised, or another method that trains a network.",
    )


def _parts(data: Prepared) -> dict[str, Part]:
    """Returns the parts that there are, by name, in the order in which they are judged."""
    return {n: part for n in PARTS if (part := getattr(data, n)) is not None}


def _is_images(data: Prepared) -> bool:
    return np.asarray(data.train.x[0]).ndim == 3


def _gather(
    data: Prepared,
    parts: dict[str, Part],
    extractor: image_features.Extractor | None,
    workdir: Path,
    say: Say,
) -> tuple[tabular.Encoder | None, Judged]:
    """Returns the encoder of tables, and the examples of all parts as features."""
    encoder = data.encoder
    if extractor is not None:
        x = image_features.of_parts([p.x for p in parts.values()], extractor, workdir, say)
    elif encoder is None:
        raw = [table.from_array(np.asarray(p.x), "x") for p in parts.values()]
        wide = raw[0].shape[1] >= _WIDE
        encoder = tabular.fit(raw[0], scaling="standard" if wide else "robust")
        x = np.concatenate([encoder.transform(t) for t in raw])
    else:
        x = np.concatenate([np.asarray(p.x) for p in parts.values()])
    join = _joined(list(parts.values()))
    split = np.repeat(list(parts), [len(p.labels) for p in parts.values()])
    return encoder, Judged(x=x, split=split, **join)


def _joined(parts: list[Part]) -> dict[str, Any]:
    """Returns labels, rows, names and groups of all parts, one after the other."""
    grouped = [p.groups for p in parts if p.groups is not None]
    groups = np.concatenate(grouped) if len(grouped) == len(parts) else None
    named = [p.ids for p in parts if p.ids is not None]
    ids = [name for names in named for name in names] if len(named) == len(parts) else None
    votes = None
    if all(p.votes is not None for p in parts):
        votes = np.concatenate([p.votes for p in parts])
    return {
        "labels": np.concatenate([p.labels for p in parts]).astype(np.int32),
        "true": np.concatenate([p.true_labels for p in parts]).astype(np.int32),
        "index": np.concatenate([p.index for p in parts]),
        "groups": groups,
        "ids": ids,
        "votes": votes,
    }


def _evidence(every: Judged, study: models.Study) -> auditing.Evidence:
    found: auditing.Evidence = {
        "out_of_sample": study.probabilities.astype(np.float32),
        "true_out_of_sample": study.true_probabilities.astype(np.float32),
        "judged_labels": every.labels,
        "judged_true": every.true,
        "judged_index": every.index,
        "split": every.split,
    }
    if every.votes is not None:
        found["votes"] = every.votes
    if every.ids is not None:
        found["judged_paths"] = np.array(every.ids)
    return found


def _measured(blend: models.Blend, every: Judged, study: models.Study) -> dict[str, Any]:
    """Returns how far out-of-sample predictions agree with the given labels: of all examples by
    cross-validation, and of test examples by the classifier, which has not seen them."""

    def agreement(p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        named = (p / np.maximum(blend.divisor, 1e-12)).argmax(1)
        return {
            "agreement": float((named == labels).mean()),
            "balanced_agreement": float(
                np.mean([(named[labels == c] == c).mean() for c in np.unique(labels)])
            ),
        }

    numbers = {"epoch": 0} | agreement(study.true_probabilities, every.labels)
    test = every.split == "test"
    if test.any():
        own = agreement(blend.predict_proba(every.x[test]), every.labels[test])
        numbers |= {f"test_{name}": value for name, value in own.items()}
    return {"selection_split": None, "selection_metric": None, "last": numbers, "selected": numbers}


def load(workdir: str | Path) -> Fitted:
    """Returns the models of a workdir. Raises `UserError` if there are none or it is damaged."""
    path = Path(workdir) / MODEL
    check(path.is_file(), f"{workdir} holds no finished run (no {MODEL}). Train first.")
    fitted = read_pickle(path)
    check(type(fitted) is Fitted, f"{path} does not hold a run's models.")
    return fitted


def evaluate(workdir: str | Path) -> dict[str, Any]:
    """Returns what the run measured: `results.json` without the audit."""
    load(workdir)
    found = files.read_json(Path(workdir) / "results.json")
    return {key: found[key] for key in ("selection_split", "selection_metric", "last", "selected")}


def predict(
    workdir: str | Path, inputs: str | Path, readable: Callable[[Any, list[str]], tuple]
) -> tuple[np.ndarray, list[str], tuple[str, ...]]:
    """Returns probabilities [N, K] of new examples, balanced as `Fitted.predict` decides, their
    names and those of the classes.

    Args:
      workdir: of the run.
      inputs: see `load_inputs`.
      readable: `readable(x, names)` -> those of them that can be read.

    Raises:
      UserError: see `load_inputs`.
    """
    fitted = load(workdir)
    encoder = None if fitted.encoder is None else tabular.from_arrays(fitted.encoder)
    like = fitted.shape if encoder is None else (len(encoder.feature_names),)
    x, names = readable(*load_inputs(inputs, like=like, encoder=encoder))
    return fitted.balanced(fitted.of_inputs(x)), names, fitted.class_names


def is_run(workdir: str | Path) -> bool:
    """Returns whether a workdir holds such a run."""
    return (Path(workdir) / MODEL).is_file()


def describe(config: ConfigDict) -> str:
    """Returns the dry run's text: data, classes, models, time; nothing is trained or written."""
    check_settings(config)
    data = load_data(config)
    first = np.asarray(data.train.x[0])
    parts = _parts(data)
    which = image_features.from_config(config) if first.ndim == 3 else image_features.DEFAULT
    wide = first.size if first.ndim == 1 else image_features.width(first.shape, which)
    numbers = wide if first.ndim == 1 else None
    if data.encoder is not None:
        numbers = len(data.encoder.series)
    total = sum(len(part.labels) for part in parts.values())
    kind = models.kind_of(total, wide, len(data.class_names), numbers)
    lines = [
        summary.data(config, data),
        summary.classes(data),
        f"An example: {first.dtype}{list(first.shape)}, {wide} features.",
        f"Models: {', '.join(models.members(kind))}, cross-validated twice.",
    ]
    if first.ndim == 3:
        lines.append(summary.feature_time(which, total, first.shape))
    lines += [*(f"note: {line}" for line in data.warnings), "Nothing was trained or written."]
    return "\n".join(lines)
