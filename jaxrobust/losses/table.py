"""A table of losses: where each function is, and the hyper-parameters that it has."""

from __future__ import annotations

from jaxrobust.registry import Registry


class Table(Registry):
    """A `Registry` that knows the functions' own names and their hyper-parameters.

    Args:
      package: in which the modules are.
      places: name -> "module:function", followed by the names of its hyper-parameters.

    Example:
      >>> table = Table("jaxrobust.losses", {"gce": "cross_entropies:generalized_cross_entropy q"})
      >>> list(table), table.function("gce"), table.settings("gce")
      (['gce'], 'generalized_cross_entropy', ('q',))
    """

    def __init__(self, package: str, places: dict[str, str]):
        words = {name: place.split() for name, place in places.items()}
        super().__init__({name: f"{package}.{place}" for name, (place, *_) in words.items()})
        self._settings = {name: tuple(rest) for name, (_, *rest) in words.items()}

    def function(self, name: str) -> str:
        """Returns the function's own name in its module."""
        return self._locations[name].split(":")[1]

    def settings(self, name: str) -> tuple[str, ...]:
        """Returns the names of the hyper-parameters."""
        return self._settings[name]
