r"""CurveNet on CIFAR-10 as released (Jiang et al. 2022): ResNet-32, 300 + 200 epochs.

    python -m jaxrobust.main --config=cifar10_curvenet --config.data.data_dir=TFDS_DIR \
        --config.data.imbalance.kind=exponential --config.data.imbalance.factor=0.05 \
        --config.data.noise.kind=uniform_by_class_size --config.data.noise.rate=0.4 --workdir=…

1,000 clean images are held out as metadata; the last epoch is reported. Deferred re-weighting:
--config.loss.reweight_from=80 (the program begins at 81, and with counts of the true labels).
Skipped layers: --config.method.skip_stages=2. `cifar10_curvenet:short` is the same in 60 + 50
epochs; `cifar10_curvenet:small`, for a CPU, takes 10,000 images and a small CNN in 20 + 30 epochs:
a check, not the published job. Not run in full yet.
"""

from jaxrobust.config import default_config
from jaxrobust.errors import choose

LENGTHS = {
    "published": (300, 200, (80, 100)),
    "short": (60, 50, (20, 35)),
    "small": (20, 30, (15, 24)),
}


def get_config(length="published"):
    choose("length", length, LENGTHS)
    config = default_config()
    config.data.name = "cifar10"
    config.data.metadata.kind = "clean"
    config.data.metadata.per_class = 100
    config.data.validation.fraction = 0.0
    config.augment.pad_mode = "reflect"
    config.network.name = "resnet32"
    config.network.init = "normal_0.02"
    config.method.name = "curvenet"
    config.method.meta_learning_rate = 1e-3
    config.method.meta_weight_decay = 1e-4
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "step"
    config.method.repeat_metadata = False
    config.optimizer.warmup_epochs = 4  # .02 .04 .06 .08, then .1, as the program has it.
    config.optimizer.warmup_start = 0.02
    config.train.batch_size = 128
    probe, config.train.epochs, config.optimizer.milestones = LENGTHS[length]
    config.method.probe_epochs = probe
    config.log.figures_every = 20
    if length == "small":
        config.data.subset = 10_000
        config.data.metadata.per_class = 20
        config.network.name = "small_cnn"
        config.network.width = 16
        config.train.batch_size = 64
        config.optimizer.warmup_epochs = 0  # While it lasts, larger weights just learn faster.
        config.method.probe_batch_divisor = 2
        config.eval.every = 5
    return config
