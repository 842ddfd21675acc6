"""Tables of functions by name, each imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Registry(Mapping[str, Callable[..., Any]]):
    """A read-only table of functions by name; reading the names imports nothing.

    Args:
      locations: name -> "package.module:function".

    Example:
      >>> table = Registry({"sqrt": "math:sqrt"})
      >>> list(table), table["sqrt"](9)
      (['sqrt'], 3.0)
    """

    def __init__(self, locations: Mapping[str, str]):
        self._locations = dict(locations)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        module, function = self._locations[name].split(":")
        return getattr(importlib.import_module(module), function)

    def __contains__(self, name: object) -> bool:
        return name in self._locations

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)

    def __repr__(self) -> str:
        return f"Registry({self._locations})"
