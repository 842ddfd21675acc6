r"""The dynamic loss on scikit-learn's digits: noisy, long-tailed, no clean metadata.

    python -m jaxrobust.main --config=digits_dynamic_loss --workdir=runs/digits_dynamic_loss \
        --config.data.noise.kind=symmetric --config.data.noise.rate=0.4 \
        --config.data.imbalance.kind=exponential --config.data.imbalance.factor=0.1

The CIFAR settings leave the corrector unmoved on data this small. Here: more steps (batch 32, 150
epochs), a mild random crop, a longer warm-up without fitting the corrector (which saturates it),
fewer ranks, and one weight per rank for all classes. This recipe is still being worked on.
"""

from jaxrobust.config import load


def get_config():
    config = load("digits_losses:ce")
    config.method.name = "dynamic_loss"
    config.method.warmup_epochs = 15
    config.method.fit_steps = 0
    config.method.num_ranks = 20
    config.method.shared_weight = True
    config.augment.kind = "crop_flip"
    config.augment.pad = 1
    config.train.batch_size = 32
    config.train.epochs = 150
    config.log.figures_every = 50
    return config
