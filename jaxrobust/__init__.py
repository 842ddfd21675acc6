"""jaxrobust: learning from partly wrong labels and unequal classes, in JAX.

Sub-packages are imported one by one (`import jaxrobust.losses` needs nothing but jax);
the names below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrobust.estimator import RobustClassifier as RobustClassifier
    from jaxrobust.runs.train import train as train

__version__ = "0.1.0"
_LAZY = {"RobustClassifier": "jaxrobust.estimator", "train": "jaxrobust.runs.train"}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxrobust' has no attribute {name!r}")
