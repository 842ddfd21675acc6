"""The dynamic loss on ANIMAL-10N (Song et al. 2019) from a folder: VGG-19 with batch norm.

    python -m jaxrobust.main --config=animal10n_dynamic_loss --config.data.path=FOLDER \
        --workdir=runs/animal10n_dynamic_loss

50,000 web images of ten easily confused animals, 64 x 64, about 8 % wrong labels. FOLDER holds
train/ and test/ with a sub-folder a class, or list files; see docs/data.md. Batch 128, 100 epochs,
SGD 0.1 divided by 5 at epochs 50 and 75: the data set's usual protocol. What concerns the
dynamic loss is as released for CIFAR. Not run yet.
"""

from jaxrobust.config import load


def get_config():
    config = load("cifar10_dynamic_loss")
    config.data.name = "folder"
    config.data.image_size = 64
    config.data.num_classes = 10
    config.data.on_unreadable = "skip"
    config.network.name = "vgg19_bn"
    config.augment.pad = 8
    config.augment.cutout = 32
    config.optimizer.warmup_epochs = 0
    config.optimizer.schedule = "step"
    config.optimizer.milestones = (50, 75)
    config.optimizer.gamma = 0.2
    config.train.batch_size = 128
    config.train.epochs = 100
    return config
