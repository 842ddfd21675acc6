"""CIFAR-10 with any robust loss, on the schedule of Li et al. 2023 (DAL).

    python -m jaxrobust.main --config=cifar10_losses:gce --config.data.data_dir=TFDS_DIR \
        --config.data.labels_file=human_worst.npy --workdir=runs/cifar10_gce

ResNet-18, 150 epochs, batch 128, SGD 0.01, cosine by epoch; trains on all training data and
reports the last epoch. Hyper-parameters: what each loss's own paper gives for CIFAR-10, where it
gives any; else the loss's default. Noise is an override: --config.data.noise.kind=symmetric
--config.data.noise.rate=0.4, or a labels file as above.
"""

from jaxrobust.config import default_config, l1, set_loss

HYPER_PARAMETERS = {
    "dal": {"q_start": 0.6, "q_end": 1.5},
    "gce": {"q": 0.7},
    "sce": {"alpha": 0.1, "beta": 1.0},
    "nlnl": {"num_negatives": 1},
    "bi_tempered": {"t1": 0.7, "t2": 1.5},
    "nce_rce": {"alpha": 1.0, "beta": 1.0},
    "tce": {"order": 18},
    "agce": {"a": 0.6, "q": 0.6},
    "nce_agce": {"alpha": 1.0, "beta": 4.0, "a": 6.0, "q": 1.5},
    "ce_sr": {"tau": 0.5, "p": 0.1, "lamb": 1.2, "rho": 1.03},
    "js": {"pi": 0.7},
    "ldam": {"scale": 1.0},  # For plain logits; the paper's 30 is for cosines.
    "ame": {"a": 30.0},
    "jal_ce": {"alpha": 1.0, "beta": 1.0, "a": 30.0, **l1(5e-5)},
    "jal_fl": {"alpha": 1.0, "beta": 1.0, "a": 30.0, "gamma": 0.5, **l1(5e-5)},
    "anl_ce": {"alpha": 5.0, "beta": 5.0, "min_prob": 1e-7, **l1(5e-5, clip_norm=5.0)},
    "anl_fl": {
        "alpha": 5.0,
        "beta": 5.0,
        "gamma": 0.5,
        "min_prob": 1e-7,
        **l1(5e-5, clip_norm=5.0),
    },
    # Of symmetric noise; asymmetric: 0.02, 5, 1e3; instance-dependent: 0.045, 10, 1e5.
    "eps_softmax_ce_mae": {"alpha": 0.01, "beta": 5.0, "m": 1e5, "eps": 1e-8},
    "eps_softmax_fl_mae": {"alpha": 0.01, "beta": 5.0, "m": 1e5, "eps": 1e-8, "gamma": 0.1},
    "elr": {"beta": 0.7, "lamb": 3.0},  # Of symmetric noise; asymmetric: 0.9, 1.
    "selc": {"momentum": 0.9, "es": 40},
}


def get_config(loss="dal"):
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation.fraction = 0.0
    config.network.name = "resnet18"
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 1e-4
    config.train.epochs = 150
    config.train.batch_size = 128
    set_loss(config, loss, HYPER_PARAMETERS)
    return config
