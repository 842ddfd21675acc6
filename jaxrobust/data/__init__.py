"""Data: sources, label noise, long tails, splits, augmentation and batches.

Modules are imported one by one, so that using one costs only what it needs:

- `sources`: `load(name, ...)` reads a data set into memory, or makes it readable by index.
- `label_noise`, `long_tail`: how labels are made wrong and classes unequally frequent.
- `prepare`: source -> labels file -> imbalance -> noise -> disjoint parts, from one seed.
- `manifest`: what was done, saved so that it can be checked and replayed.

Those named here are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxrobust import files as files  # its place before other packages used it

if TYPE_CHECKING:
    import jaxrobust.data.label_noise as label_noise
    import jaxrobust.data.long_tail as long_tail
    import jaxrobust.data.manifest as manifest
    import jaxrobust.data.prepare as prepare
    import jaxrobust.data.sources as sources

__all__ = ["label_noise", "long_tail", "manifest", "prepare", "sources"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"jaxrobust.data.{name}")
    raise AttributeError(f"module 'jaxrobust.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
