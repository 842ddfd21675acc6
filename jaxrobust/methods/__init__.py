"""The methods: short lists of stages, made of losses, objectives and the bilevel step.

`runs.build_method` turns the settings of a run into one of them.
"""

from jaxrobust.methods.allocate import Allocation, Base, allocation
from jaxrobust.methods.curvenet import curvenet
from jaxrobust.methods.dynamic_loss import dynamic_loss, dynamic_loss_steps
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.methods.probe import Probe
from jaxrobust.methods.supervised import make_loss, supervised

__all__ = ["Allocation", "Base", "Method", "Pass", "Probe", "Stage", "StepInfo", "TrainState",
           "allocation", "curvenet", "dynamic_loss", "dynamic_loss_steps", "make_loss",
           "supervised"]
