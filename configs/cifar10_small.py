r"""CIFAR-10 on a CPU: 10,000 of its training images and a small CNN, with any robust loss.

    python -m jaxrobust.main --config=cifar10_small:dal --config.data.data_dir=TFDS_DIR \
        --config.data.labels_file=human_worst.npy --workdir=runs/cifar10_small_dal

`cifar10_small:dynamic_loss` is the dynamic loss with the settings for small data that
digits_dynamic_loss explains. Not the published jobs (those are cifar10_losses and
cifar10_dynamic_loss): a check on real images and real label noise in about two minutes on one
core. Three convolutions of 16 to 64 channels, a higher rate, shorter, and without augmentation.
"""

from jaxrobust.config import load


def get_config(loss="dal"):
    dynamic = loss == "dynamic_loss"
    config = load(f"cifar10_losses:{'ce' if dynamic else loss}")
    config.data.subset = 10_000
    config.network.name = "small_cnn"
    config.network.width = 16
    config.optimizer.learning_rate = 0.05
    config.train.epochs = 40
    config.train.batch_size = 64
    config.augment.kind = "none"
    config.eval.every = 5
    if dynamic:
        config.method = load("digits_dynamic_loss").method
        config.method.warmup_epochs = 5
    return config
