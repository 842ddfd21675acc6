"""The recipe of digits_losses with plain cross-entropy.

python -m jaxrobust.main --config=digits_ce --workdir=runs/digits_ce
"""

from jaxrobust.config import load


def get_config():
    return load("digits_losses:ce")
