"""The methods: short lists of stages, made of losses, objectives and the bilevel step.

`make` turns the settings of a run into a `Method`, see `methods.build`.
"""

from jaxrobust.methods.allocate import Allocation, Base, allocation
from jaxrobust.methods.build import METHODS, make
from jaxrobust.methods.curvenet import curvenet
from jaxrobust.methods.dynamic_loss import dynamic_loss, dynamic_loss_steps
from jaxrobust.methods.dynamics import Dynamics, gathered, recorded
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.methods.probe import Probe
from jaxrobust.methods.supervised import make_loss, supervised

__all__ = ["METHODS", "Allocation", "Base", "Dynamics", "Method", "Pass", "Probe", "Stage",
           "StepInfo", "TrainState", "allocation", "curvenet", "dynamic_loss",
           "dynamic_loss_steps", "gathered", "make", "make_loss", "recorded", "supervised"]
