"""Learned objectives: (phi, logits, what is known of each example) -> a loss per example."""

from jaxrobust.objectives.curvenet import CurveNet, class_centred, curve_weighted
from jaxrobust.objectives.dynamic_loss import (
    DynamicLoss,
    LabelCorrector,
    MarginGenerator,
    dynamic_loss,
    sample_labels,
)
from jaxrobust.objectives.objective import Objective, example_weighted
from jaxrobust.objectives.reweighting import learning_to_reweight, meta_weight_net
from jaxrobust.objectives.weighted import fixed, weighted

__all__ = [
    "CurveNet",
    "DynamicLoss",
    "LabelCorrector",
    "MarginGenerator",
    "Objective",
    "class_centred",
    "curve_weighted",
    "dynamic_loss",
    "example_weighted",
    "fixed",
    "learning_to_reweight",
    "meta_weight_net",
    "sample_labels",
    "weighted",
]
