"""Pickles of fitted scikit-learn models that admit the classes of such models and nothing else.

A pickle can name any function of any module and have it called. This reader compares each name with
a list first, so that a workdir from elsewhere cannot run code.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from jaxrobust import files
from jaxrobust.errors import UserError

_ALLOWED = {
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy.random._pickle": {"__generator_ctor", "__bit_generator_ctor"},
    "numpy.random._pcg64": {"PCG64"},
    "numpy.random.bit_generator": {"__pyx_unpickle_SeedSequence", "SeedSequence"},
    "sklearn._loss._loss": {
        "CyHalfBinomialLoss",
        "CyHalfMultinomialLoss",
        "__pyx_unpickle_CyHalfBinomialLoss",
        "__pyx_unpickle_CyHalfMultinomialLoss",
    },
    "sklearn._loss.link": {"Interval", "LogitLink", "MultinomialLogit"},
    "sklearn._loss.loss": {"HalfBinomialLoss", "HalfMultinomialLoss"},
    "sklearn.dummy": {"DummyClassifier"},
    "sklearn.ensemble._forest": {"ExtraTreesClassifier"},
    "sklearn.ensemble._hist_gradient_boosting.binning": {"_BinMapper"},
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": {
        "HistGradientBoostingClassifier"
    },
    "sklearn.ensemble._hist_gradient_boosting.predictor": {"TreePredictor"},
    "sklearn.linear_model._logistic": {"LogisticRegression"},
    "sklearn.preprocessing._label": {"LabelEncoder"},
    "sklearn.tree._classes": {"ExtraTreeClassifier"},
    "sklearn.tree._tree": {"Tree"},
    "jaxrobust.audit.models": {"Blend"},
    "jaxrobust.runs.blended": {"Fitted"},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not part of such a model")
        return super().find_class(module, name)


def write_pickle(value: Any, path: Path) -> None:
    """Writes a pickle, whole or not at all."""
    with files.whole(path, "wb") as file:
        pickle.dump(value, file, protocol=5)


def read_pickle(path: Path) -> Any:
    """Returns what `write_pickle` wrote.

    Raises:
      UserError: the file is damaged, names anything but fitted models, or was written with
        another version of scikit-learn that this one cannot read.
    """
    try:
        return _Reader(io.BytesIO(path.read_bytes())).load()
    except Exception as error:
        raise UserError(f"{path} cannot be read: {error}. Train again.") from None
