"""Former home of the ranks and of hierarchical sampling; its names are aliases.

`ranks_by_class` lives in `jaxrobust.objectives`, the rest in `jaxrobust.methods.sampling`. A name
is looked up there when it is first used: importing the data imports nothing of them.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "place_in_class": "objectives.ranks",
    "ranks_by_class": "objectives.ranks",
    "metadata_sizes": "methods.sampling",
    "draw_candidates": "methods.sampling",
    "keep_lowest": "methods.sampling",
    "split_rows": "methods.sampling",
    "hierarchical_sampling": "methods.sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxrobust.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
