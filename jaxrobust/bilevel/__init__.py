"""Look-ahead, hypergradient, skipped layers: pure transforms over any pytree and optax optimiser."""

from jaxrobust.bilevel.hypergradient import Hypergradient, hypergradient
from jaxrobust.bilevel.step import Bilevel, Info, State, make_bilevel

__all__ = ["Bilevel", "Hypergradient", "Info", "State", "hypergradient", "make_bilevel"]
