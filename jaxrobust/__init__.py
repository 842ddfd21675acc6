"""jaxrobust: learning from partly wrong labels and unequal classes, in JAX.

Sub-packages are imported one by one (`import jaxrobust.losses` needs nothing but jax);
the names below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrobust import bilevel as bilevel
    from jaxrobust import losses as losses
    from jaxrobust import objectives as objectives
    from jaxrobust.audit import find_label_issues as find_label_issues
    from jaxrobust.estimator import RobustClassifier as RobustClassifier
    from jaxrobust.runs.model import load as load
    from jaxrobust.runs.train import train as train

__version__ = "0.1.0"
_LAZY = {
    "RobustClassifier": "jaxrobust.estimator",
    "find_label_issues": "jaxrobust.audit",
    "load": "jaxrobust.runs.model",
    "train": "jaxrobust.runs.train",
}
_PACKAGES = ("bilevel", "losses", "objectives")
__all__ = ["__version__", *_LAZY, *_PACKAGES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"jaxrobust.{name}")
    raise AttributeError(f"module 'jaxrobust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
