"""CIFAR-100 with any robust loss, on the schedule of Li et al. 2023 (DAL).

    python -m jaxrobust.main --config=cifar100_losses:gce --config.data.data_dir=TFDS_DIR \
        --config.data.noise.kind=symmetric --config.data.noise.rate=0.4 --workdir=runs/cifar100_gce

As cifar10_losses, with the hyper-parameters that each loss's own paper gives for CIFAR-100.
"""

from jaxrobust.config import l1, load, set_loss

HYPER_PARAMETERS = {
    "dal": {"q_start": 0.6, "q_end": 1.5},
    "gce": {"q": 0.7},
    "sce": {"alpha": 6.0, "beta": 0.1},
    "nlnl": {"num_negatives": 110},
    "bi_tempered": {"t1": 0.7, "t2": 1.5},
    "nce_rce": {"alpha": 10.0, "beta": 0.1},
    "tce": {"order": 18},
    "agce": {"a": 0.6, "q": 0.6},
    "nce_agce": {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0},
    "ce_sr": {"tau": 0.5, "p": 0.01, "lamb": 10.0, "rho": 1.02},
    "js": {"pi": 0.5},
    "ldam": {"scale": 1.0},  # For plain logits; the paper's 30 is for cosines.
    "ame": {"a": 20.0},
    "jal_ce": {"alpha": 5.0, "beta": 1.0, "a": 20.0, **l1(5e-6)},
    "jal_fl": {"alpha": 5.0, "beta": 1.0, "a": 20.0, "gamma": 0.5, **l1(5e-6)},
    "anl_ce": {"alpha": 10.0, "beta": 1.0, "min_prob": 1e-7, **l1(5e-7, clip_norm=5.0)},
    "anl_fl": {
        "alpha": 10.0,
        "beta": 1.0,
        "gamma": 0.5,
        "min_prob": 1e-7,
        **l1(5e-7, clip_norm=5.0),
    },
    # Of symmetric noise 0.4; docs/losses/eps_softmax_ce_mae.md has the others.
    "eps_softmax_ce_mae": {"alpha": 0.03, "beta": 1.0, "m": 1e4, "eps": 1e-8},
    "eps_softmax_fl_mae": {"alpha": 0.03, "beta": 1.0, "m": 1e4, "eps": 1e-8, "gamma": 0.1},
    "elr": {"beta": 0.9, "lamb": 7.0},
    "selc": {"momentum": 0.9, "es": 20},  # Of symmetric noise 0.4.
}


def get_config(loss="dal"):
    config = load("cifar10_losses:ce")
    config.data.name = "cifar100"
    set_loss(config, loss, HYPER_PARAMETERS)
    return config
