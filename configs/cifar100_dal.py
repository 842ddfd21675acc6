r"""The recipe of cifar100_losses with the dynamics-aware loss (DAL).

    python -m jaxrobust.main --config=cifar100_dal --workdir=runs/cifar100_dal \
        --config.data.data_dir=TFDS_DIR
"""

from jaxrobust.config import load


def get_config():
    return load("cifar100_losses:dal")
