r"""The recipe of webvision_losses with plain cross-entropy.

    python -m jaxrobust.main --config=webvision_ce --workdir=runs/webvision_ce \
        --config.data.path=FOLDER
"""

from jaxrobust.config import load


def get_config():
    return load("webvision_losses:ce")
