"""mini-WebVision (the first 50 classes) from a folder, on the schedule of Li et al. 2023 (DAL).

    python -m jaxrobust.main --config=webvision_losses:dal --config.data.path=FOLDER \
        --workdir=runs/webvision_dal

ResNet-50 at 224, 250 epochs, batch 4 x 128, SGD 0.4 with Nesterov, rate x 0.97 an epoch, gradient
norm clipped at 5; random resized crop, flip, color jitter. FOLDER holds train/, val/ (with a sub-
folder a class) or list files; see docs/data.md. Hyper-parameters: each loss's own paper's for
WebVision where it gives any, else the default. The random resized crop is taken from the central
256-pixel square of an image, in the released program from the whole image. The folder's val/ is
the test set: the last epoch is reported.
"""

from jaxrobust.config import default_config, l1, set_loss

HYPER_PARAMETERS = {
    "dal": {"q_start": 0.4, "q_end": 1.5},
    "gce": {"q": 0.6},
    "sce": {"alpha": 10.0, "beta": 1.0},
    "bi_tempered": {"t1": 0.7, "t2": 1.5},
    "nce_rce": {"alpha": 50.0, "beta": 0.1},
    "tce": {"order": 18},
    "agce": {"a": 1e-5, "q": 0.5},
    "nce_agce": {"alpha": 50.0, "beta": 0.1, "a": 2.5, "q": 3.0},
    "ce_sr": {"tau": 0.5, "p": 0.01, "lamb": 2.0, "rho": 1.02},
    "js": {"pi": 0.1},
    "ldam": {"scale": 1.0},  # For plain logits; the paper's 30 is for cosines.
    "ame": {"a": 30.0},
    "jal_ce": {"alpha": 50.0, "beta": 1.0, "a": 30.0},  # With L2 3e-5: the weight decay.
    "jal_fl": {"alpha": 50.0, "beta": 1.0, "a": 30.0, "gamma": 0.5},
    "anl_ce": {"alpha": 20.0, "beta": 1.0, "min_prob": 1e-7, **l1(5e-6, clip_norm=5.0)},
    "anl_fl": {
        "alpha": 20.0,
        "beta": 1.0,
        "gamma": 0.5,
        "min_prob": 1e-8,
        **l1(5e-6, clip_norm=5.0),
    },
    "eps_softmax_ce_mae": {"alpha": 0.015, "beta": 0.3, "m": 1e3, "eps": 1e-8},
    "eps_softmax_fl_mae": {"alpha": 0.015, "beta": 0.3, "m": 1e3, "eps": 1e-8, "gamma": 0.1},
    "elr": {"beta": 0.7, "lamb": 3.0},  # Of ELR+; ELR alone has no recipe.
    "selc": {"momentum": 0.9, "es": 40},
}


def get_config(loss="dal"):
    config = default_config()
    config.data.name = "folder"
    config.data.image_size = 256
    config.data.num_classes = 50
    config.data.on_unreadable = "skip"
    config.data.validation.fraction = 0.0
    config.augment.kind = "imagenet"
    config.network.name = "resnet50"
    config.optimizer.learning_rate = 0.4
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 3e-5
    config.optimizer.clip_norm = 5.0
    config.optimizer.schedule = "exponential"
    config.optimizer.gamma = 0.97
    config.train.epochs = 250
    config.train.batch_size = 512
    set_loss(config, loss, HYPER_PARAMETERS)
    return config
