r"""The dynamic loss on scikit-learn's digits: noisy, long-tailed, no clean metadata.

    python -m jaxrobust.main --config=digits_dynamic_loss --workdir=runs/digits_dynamic_loss \
        --config.data.noise.kind=symmetric --config.data.noise.rate=0.4 \
        --config.data.imbalance.kind=exponential --config.data.imbalance.factor=0.1
"""

from jaxrobust.config import load


def get_config():
    config = load("digits_losses:ce")
    config.method.name = "dynamic_loss"
    config.method.warmup_epochs = 10
    config.log.figures_every = 25
    config.method.meta_learning_rate = 3e-3
    return config
