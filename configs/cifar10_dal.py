r"""The recipe of cifar10_losses with the dynamics-aware loss (DAL).

    python -m jaxrobust.main --config=cifar10_dal --workdir=runs/cifar10_dal \
        --config.data.data_dir=TFDS_DIR
"""

from jaxrobust.config import load


def get_config():
    return load("cifar10_losses:dal")
