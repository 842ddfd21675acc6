"""From a configuration to the parts of a run: the views of its images."""

import jax
import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust.runs import experiment


@pytest.mark.parametrize("side, seen", [(32, 32), (95, 95), (96, 224), (256, 224)])
@pytest.mark.parametrize("kind", ["imagenet", "imagenet_eval"])
def test_training_and_evaluation_see_images_of_one_size(kind, side, seen):
    config = configuration.load("webvision_losses:ce")
    config.augment.kind = kind
    part = jaxrobust.data.prepare.Part(np.zeros((4, side, side, 3), np.uint8), *[None] * 4)
    data = jaxrobust.data.prepare.Prepared(part, *[None] * 8)
    views, evaluation = experiment.make_views(config, data, np.zeros(3), np.ones(3))
    for view in (views(), evaluation):
        shape = jax.eval_shape(view, jax.random.key(0), part.x).shape
        assert shape == (4, seen, seen, 3)
