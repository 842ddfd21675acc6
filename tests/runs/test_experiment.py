"""From a configuration to the parts of a run: the views of its images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust.errors import UserError
from jaxrobust.runs import experiment
from jaxrobust.runs.blended import describe


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


@pytest.mark.parametrize("recipe", ["ce", "dynamic_loss", "curvenet", "meta_weight_net"])
def test_every_method_meets_classes_as_often_as_data_balance_says(recipe):
    config = configuration.load(f"digits_{recipe}")
    config.network.name, config.data.balance = "mlp", "class"
    config.data.imbalance.kind, config.data.imbalance.factor = "exponential", 0.1
    built = experiment.assemble(configuration.validate(config))
    labels = np.concatenate(
        [p.labels for p in (built.data.train, built.data.metadata) if p is not None]
    )
    state = built.method.init(jax.random.key(0))
    stages = {stage.name: stage for stage in built.method.stages}
    rows = np.arange(len(built.data.train.labels))
    for stage in stages.values():
        if stage.name == "dynamic_loss":  # its rows are chosen when the epoch is prepared
            fresh = {"train_rows": rows[: len(state.memory["train_rows"])]}
            state = state._replace(memory=state.memory | fresh)
        order = stage.passes[0].order(state, jax.random.key(1), jnp.int32(0))
        met = np.asarray(order.index)[np.asarray(order.where)]
        counts = np.bincount(labels[met], minlength=10)
        assert (counts.max() - counts.min() <= 1) == stage.result, stage.name
        assert stage.result or len(set(met)) == len(rows)


def test_blended_models_refuse_a_sampler():
    config = configuration.load("table")
    config.data.balance = "class"
    with pytest.raises(UserError, match=r"data.balance=class is for methods that train a network"):
        describe(config)
