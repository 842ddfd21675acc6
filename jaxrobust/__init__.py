"""jaxrobust: learning from partly wrong labels and unequal classes, in JAX.

Sub-packages are imported one by one (`import jaxrobust.losses` needs nothing but jax);
the names below are loaded when first used.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrobust import audit as audit
    from jaxrobust import bilevel as bilevel
    from jaxrobust import data as data
    from jaxrobust import losses as losses
    from jaxrobust import networks as networks
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
_PACKAGES = ("audit", "bilevel", "data", "losses", "networks", "objectives")
_BY_NAME = ("losses", "objectives", "bilevel")  # whose public functions are found here as well
__all__ = ["__version__", *_LAZY, *_PACKAGES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'jaxrobust' has no attribute {name!r}")
    if importlib.util.find_spec(f"jaxrobust.{name}") is not None:
        return importlib.import_module(f"jaxrobust.{name}")
    return _by_name(name)


def _by_name(name: str) -> Any:
    """Returns a loss, an objective or a part of the bilevel step by its name."""
    from jaxrobust.errors import nearest

    packages = [importlib.import_module(f"jaxrobust.{package}") for package in _BY_NAME]
    for package in packages:
        if name in package.__all__:
            return getattr(package, name)
    losses = packages[0]
    if name in losses.LOSSES:
        return losses.get(name)
    known = [*__all__, *losses.LOSSES, *(n for package in packages for n in package.__all__)]
    raise AttributeError(f"module 'jaxrobust' has no attribute {name!r}.{nearest(name, known)}")


def __dir__() -> list[str]:
    return sorted(__all__)
