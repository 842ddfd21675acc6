r"""The dynamic loss on CIFAR-10 as released (Jiang et al. 2023): ResNet-32, 325 epochs.

    python -m jaxrobust.main --config=cifar10_dynamic_loss --config.data.data_dir=TFDS_DIR \
        --config.data.imbalance.kind=exponential --config.data.imbalance.factor=0.1 \
        --config.data.noise.kind=uniform_by_class_size --config.data.noise.rate=0.2 --workdir=…

`cifar10_dynamic_loss:short` is the same in 60 epochs. Trains on all training data, chooses its
meta set from them, and reports the last epoch. Differs from the released program in what follows:
the label corrector is fitted in the warm-up on the strong view (there: the weak one, whose forward
pass also moves the running statistics of batch norm), and images are normalized by the training
data's own mean and deviation (there: by constants). Not run in full yet.
"""

from jaxrobust.config import default_config
from jaxrobust.errors import choose


def get_config(length="published"):
    choose("length", length, ("published", "short"))
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation.fraction = 0.0
    config.augment.kind = "strong"
    config.augment.cutout_kind = "gray"
    config.network.name = "resnet32"
    config.network.init = "torch"
    config.method.name = "dynamic_loss"
    config.method.repeat_metadata = False
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup_epochs = 5
    config.optimizer.warmup_start = 0.01
    config.optimizer.warmup = "factor"
    config.train.batch_size = 512
    config.train.epochs = 325 if length == "published" else 60
    config.log.figures_every = 5
    return config
