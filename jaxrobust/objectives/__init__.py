"""Learned objectives: (phi, logits, what is known of each example) -> a loss per example."""

from jaxrobust.objectives._dynamic_loss import (
    DynamicLoss,
    LabelCorrector,
    MarginGenerator,
    dynamic_loss,
    sample_labels,
)
from jaxrobust.objectives.base import Objective, example_weighted, fixed, weighted
from jaxrobust.objectives.curvenet import CurveNet, class_centred, curve_weighted
from jaxrobust.objectives.ranks import ranks_by_class
from jaxrobust.objectives.reweighting import learning_to_reweight, meta_weight_net

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
    "ranks_by_class",
    "sample_labels",
    "weighted",
]
