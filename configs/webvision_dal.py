r"""The recipe of webvision_losses with the dynamics-aware loss (DAL).

    python -m jaxrobust.main --config=webvision_dal --workdir=runs/webvision_dal \
        --config.data.path=FOLDER
"""

from jaxrobust.config import load


def get_config():
    return load("webvision_losses:dal")
