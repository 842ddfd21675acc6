"""Look-ahead, hypergradient, skipped layers: pure transforms over pytrees and optax optimizers."""

from jaxrobust.bilevel._hypergradient import Hypergradient, hypergradient
from jaxrobust.bilevel.step import Bilevel, Info, State, make_bilevel

__all__ = ["Bilevel", "Hypergradient", "Info", "State", "hypergradient", "make_bilevel"]
