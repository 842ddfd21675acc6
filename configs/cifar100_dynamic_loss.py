r"""The dynamic loss on CIFAR-100 with the settings released for CIFAR-10: ResNet-32, 325 epochs.

    python -m jaxrobust.main --config=cifar100_dynamic_loss --config.data.data_dir=TFDS_DIR \
        --config.data.imbalance.kind=exponential --config.data.imbalance.factor=0.1 \
        --config.data.noise.kind=uniform_by_class_size --config.data.noise.rate=0.2 --workdir=…

Jiang et al. 2023 released a data set file for CIFAR-100, but no configuration of a run.
`cifar100_dynamic_loss:short` is the same in 60 epochs. Not run yet.
"""

from jaxrobust.config import load


def get_config(length="published"):
    config = load(f"cifar10_dynamic_loss:{length}")
    config.data.name = "cifar100"
    return config
