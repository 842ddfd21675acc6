"""Meta-Weight-Net (Shu et al. 2019) on digits, with the metadata of digits_curvenet.

    python -m jaxrobust.main --config=digits_meta_weight_net --workdir=runs/digits_mwn

An example's weight is learned from its loss; hidden width 100 as in the paper, the rest as there.
`digits_meta_weight_net:balanced_softmax` puts the weights on another loss.
"""

from jaxrobust.config import load


def get_config(loss="ce"):
    config = load(f"digits_curvenet:{loss}")
    config.method.name = "meta_weight_net"
    config.method.hidden = 100
    return config
