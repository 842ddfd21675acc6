r"""The recipe of cifar100_losses with plain cross-entropy.

    python -m jaxrobust.main --config=cifar100_ce --workdir=runs/cifar100_ce \
        --config.data.data_dir=TFDS_DIR
"""

from jaxrobust.config import load


def get_config():
    return load("cifar100_losses:ce")
