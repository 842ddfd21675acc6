"""The dynamic loss on scikit-learn's digits: noisy, long-tailed, no clean metadata.

    python -m jaxrobust.main --config=digits_dynamic_loss --workdir=runs/digits_dynamic_loss

40 % of the labels are drawn anew by class size, and the smallest class is a tenth of the largest;
other noise: --config.data.noise.kind=symmetric --config.data.noise.rate=0.2.

`digits_dynamic_loss:corrector` and `:margin` learn one of the two parts; `:ce` and `:dal` are
supervised training on the same schedule, to compare with.

The CIFAR settings leave the corrector unmoved on data this small. Here: more steps (batch 32, 150
epochs), a mild random crop, a longer warm-up without fitting the corrector (which saturates it),
fewer ranks, one weight per rank for all classes, and a gentler meta learning rate (at 3e-3 the
weights are 0 or 1 before the network knows enough). Chosen on clean validation data with other
seeds than those of the results, the same for all rates of noise.
"""

from jaxrobust.config import load
from jaxrobust.errors import choose


def get_config(variant="both"):
    choose("variant", variant, ("both", "corrector", "margin", "ce", "dal"))
    supervised = variant in ("ce", "dal")
    config = load(f"digits_losses:{variant if supervised else 'ce'}")
    config.data.noise.kind, config.data.noise.rate = "uniform_by_class_size", 0.4
    config.data.imbalance.kind, config.data.imbalance.factor = "exponential", 0.1
    config.method.name = "supervised" if supervised else "dynamic_loss"
    config.method.corrector = variant != "margin"
    config.method.margin = variant != "corrector"
    config.method.warmup_epochs = 15
    config.method.fit_steps = 0
    config.method.num_ranks = 20
    config.method.shared_weight = True
    config.method.meta_learning_rate = 2e-3
    config.network.width = 16
    config.augment.kind = "crop_flip"
    config.augment.pad = 1
    config.train.batch_size = 32
    config.train.epochs = 150
    config.log.figures_every = 50
    return config
