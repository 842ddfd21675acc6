"""The recipe of digits_losses with the dynamics-aware loss (DAL).

python -m jaxrobust.main --config=digits_dal --workdir=runs/digits_dal
"""

from jaxrobust.config import load


def get_config():
    return load("digits_losses:dal")
