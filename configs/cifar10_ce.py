r"""The recipe of cifar10_losses with plain cross-entropy.

    python -m jaxrobust.main --config=cifar10_ce --workdir=runs/cifar10_ce \
        --config.data.data_dir=TFDS_DIR
"""

from jaxrobust.config import load


def get_config():
    return load("cifar10_losses:ce")
