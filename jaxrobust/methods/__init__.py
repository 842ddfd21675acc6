"""The methods: short lists of stages, made of losses, objectives and the bilevel step.

`runs.build_method` turns the settings of a run into one of them.
"""

from jaxrobust.methods._agreement import Consistency, agreement
from jaxrobust.methods._curvenet import Probe, curvenet
from jaxrobust.methods._dynamic_loss import dynamic_loss, dynamic_loss_steps
from jaxrobust.methods._supervised import make_loss, supervised
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.methods.reweighting import Allocation, Base, allocation

__all__ = [
    "Allocation",
    "Consistency",
    "Base",
    "Method",
    "Pass",
    "Probe",
    "Stage",
    "StepInfo",
    "TrainState",
    "agreement",
    "allocation",
    "curvenet",
    "dynamic_loss",
    "dynamic_loss_steps",
    "make_loss",
    "supervised",
]
