"""Learning to reweight (Ren et al. 2018) on scikit-learn's digits, metadata as in digits_curvenet.

    python -m jaxrobust.main --config=digits_learning_to_reweight --workdir=runs/digits_l2rw

Every batch gets its own weights, from how its examples' gradients agree with the metadata's.
`digits_learning_to_reweight:balanced_softmax` puts the weights on another loss.
"""

from jaxrobust.config import load


def get_config(loss="ce"):
    config = load(f"digits_curvenet:{loss}")
    config.method.name = "learning_to_reweight"
    return config
