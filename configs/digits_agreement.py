"""Agreement with consistency on scikit-learn's digits: noisy labels, no clean metadata.

    python -m jaxrobust.main --config=digits_agreement --workdir=runs/digits_agreement

40 % of the labels are drawn anew; other noise: --config.data.noise.kind=pair_flip
--config.data.noise.rate=0.3. `digits_agreement:two` trains two networks that select for each other.
The strong view is a mild random crop, the weak one the image as it is.
"""

from jaxrobust.config import load
from jaxrobust.errors import choose


def get_config(networks="one"):
    choose("number of networks", networks, ("one", "two"))
    config = load("digits_losses:ce")
    config.data.noise.kind, config.data.noise.rate = "symmetric", 0.4
    config.method.name = "agreement"
    config.method.networks = 1 if networks == "one" else 2
    config.method.warmup_epochs = 5
    config.augment.kind = "crop_flip"
    config.augment.pad = 1
    config.log.figures_every = 100
    return config
