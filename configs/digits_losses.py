"""scikit-learn's digits (8 x 8, embedded: no download) with any robust loss.

    python -m jaxrobust.main --config=digits_losses:gce --config.data.noise.kind=symmetric \
        --config.data.noise.rate=0.4 --workdir=runs/digits_gce

A small CNN for 100 epochs, about half a minute on two CPU cores. 10 % of the noisy training data
select an epoch; last and selected are both reported.
"""

from jaxrobust.config import default_config, load_values, set_loss

HYPER_PARAMETERS = load_values("cifar10_losses", "HYPER_PARAMETERS")


def get_config(loss="dal"):
    config = default_config()
    config.data.name = "digits"
    config.network.name = "small_cnn"
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 1e-4
    config.train.epochs = 100
    config.train.batch_size = 64
    config.eval.many_above = 50
    config.eval.few_below = 30
    set_loss(config, loss, HYPER_PARAMETERS)
    return config
