"""A run that takes a second: digits, a small perceptron, a few epochs."""

import pytest

from jaxrobust import config


@pytest.fixture
def tiny():
    """Makes the configuration of a small run; settings by dotted name."""

    def make(**overrides):
        made = config.load("digits_losses:ce")
        settings = {
            "network.name": "mlp", "network.width": 32, "train.epochs": 3, "train.batch_size": 128,
            "data.noise.kind": "symmetric", "data.noise.rate": 0.4, "log.figures": False,
            "log.tensorboard": False, "checkpoint.every_seconds": 0.0,
        }
        with made.unlocked():
            for key, value in (settings | {k.replace("__", "."): v for k, v in
                                           overrides.items()}).items():
                made.update_from_flattened_dict({key: value})
        return made

    return make
