r"""CIFAR-10 on a CPU: 10,000 of its training images and a small CNN, with any robust loss.

    python -m jaxrobust.main --config=cifar10_small:dal --config.data.data_dir=TFDS_DIR \
        --config.data.labels_file=human_worst.npy --workdir=runs/cifar10_small_dal

Not the published job (that is cifar10_losses): a check on real images and real label noise that
takes minutes. The rate is higher, training shorter and without augmentation, so that 20 epochs
show what memorising does.
"""

from jaxrobust.config import load


def get_config(loss="dal"):
    config = load(f"cifar10_losses:{loss}")
    config.data.subset = 10_000
    config.network.name = "small_cnn"
    config.network.width = 32
    config.optimizer.learning_rate = 0.05
    config.train.epochs = 20
    config.augment.kind = "none"
    config.eval.every = 5
    return config
