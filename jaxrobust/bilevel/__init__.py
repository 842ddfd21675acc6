"""Look-ahead, hypergradient, skipped layers: pure transforms over pytrees and optax optimisers."""

from jaxrobust.bilevel.hypergradient import Hypergradient, hypergradient
from jaxrobust.bilevel.state import Bilevel, Info, State
from jaxrobust.bilevel.step import make_bilevel

__all__ = ["Bilevel", "Hypergradient", "Info", "State", "hypergradient", "make_bilevel"]
