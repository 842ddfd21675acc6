"""Tables of functions by name, each imported when it is first looked up."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping


class Table(Mapping[str, Callable]):
    """A read-only mapping of names to functions that are imported when looked up.

    Reading the names imports nothing. A value of the literal is the place of the function and the
    names of its hyper-parameters: `"module:function keyword keyword"`.

    Args:
      package: the package in which the modules are.
      places: name -> place.

    Example:
      >>> table = Table("json", {"read": "decoder:JSONDecoder strict"})
      >>> list(table), table.module("read"), table.function("read"), table.settings("read")
      (['read'], 'json.decoder', 'JSONDecoder', ('strict',))
      >>> table["read"].__name__
      'JSONDecoder'
    """

    def __init__(self, package: str, places: dict[str, str]):
        self._package = package
        self._places = {name: place.split() for name, place in places.items()}

    def __getitem__(self, name: str) -> Callable:
        function = self.function(name)
        return getattr(importlib.import_module(self.module(name)), function)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"Table({', '.join(self)})"

    def module(self, name: str) -> str:
        """Returns the full name of the module that holds the function."""
        return f"{self._package}.{self._places[name][0].split(':')[0]}"

    def function(self, name: str) -> str:
        """Returns the function's own name in its module."""
        return self._places[name][0].split(":")[1]

    def settings(self, name: str) -> tuple[str, ...]:
        """Returns the names of the hyper-parameters that the table lists."""
        return tuple(self._places[name][1:])
