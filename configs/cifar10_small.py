r"""CIFAR-10 on a CPU: 10,000 of its training images and a small CNN, with any robust loss.

    python -m jaxrobust.main --config=cifar10_small:dal --config.data.data_dir=TFDS_DIR \
        --config.data.labels_file=human_worst.npy --workdir=runs/cifar10_small_dal

Not the published job (that is cifar10_losses): a check on real images and real label noise. The
network is small, the rate higher, training shorter and without augmentation.
"""

from jaxrobust.config import load


def get_config(loss="dal"):
    config = load(f"cifar10_losses:{loss}")
    config.data.subset = 10_000
    config.network.name = "small_cnn"
    config.network.width = 16
    config.optimizer.learning_rate = 0.1
    config.train.epochs = 30
    config.augment.kind = "none"
    config.eval.every = 5
    return config
