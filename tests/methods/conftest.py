"""A small method to call step by step: 60 points in the plane, three classes, a perceptron."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import networks, objectives
from jaxrobust.bilevel import make_bilevel
from jaxrobust.methods import dynamic_loss
from jaxrobust.training.evaluation import make_forward
from jaxrobust.training.loop import Feed, Place, Runner


def plain(key, x):
    del key
    return x


def points(n=60, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    angle = 2 * np.pi * labels / classes
    x = rng.normal(size=(n, 2)) + 3 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return x.astype(np.float32), labels.astype(np.int32)


class Small:
    """A dynamic-loss method on `points`, with what a test wants to set."""

    def __init__(self, loop="epoch", meta_lr=0.01, weak=plain, strong=plain, **options):
        self.x, self.labels = points()
        names = ("corrector", "margin", "shared_weight", "base_loss", "reads")
        parts = {k: options.pop(k) for k in names if k in options}
        self.network = networks.make("mlp", 3, hidden=(8,))
        self.objective = objectives.dynamic_loss(3, num_ranks=10, hidden=8, **parts)
        settings = dict(epochs=4, warmup_epochs=2, batch_size=16, meta_batch_size=8, num_ranks=10)
        names = ("steps", "mode", "skip", "bottom_batch_norm")
        look_ahead = {k: options.pop(k) for k in names if k in options}
        self.optimizer, self.meta_optimizer = optax.sgd(0.1, momentum=0.9), optax.adam(meta_lr)
        made = self.network, self.objective, self.optimizer, self.meta_optimizer
        self.method = dynamic_loss(
            self.network,
            make_bilevel(*made, **look_ahead),
            *made[1:],
            weak,
            strong,
            example=jnp.zeros((16, 2)),
            labels=jnp.asarray(self.labels),
            class_counts=np.bincount(self.labels),
            **(settings | options),
        )
        feed = Feed({"x": jnp.asarray(self.x), "labels": jnp.asarray(self.labels)})
        forward = make_forward(self.network, plain, 60)
        self.runner = Runner(self.method, feed, forward, jax.random.key(0), loop=loop)
        self.state = jax.jit(self.method.init)(jax.random.key(1))
        self.place = Place()

    def epoch(self):
        self.state, row = self.runner.epoch(self.state, self.place, lambda *_: None)
        return row


@pytest.fixture
def small():
    return Small
