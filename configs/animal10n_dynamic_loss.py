r"""The dynamic loss on ANIMAL-10N (Song et al. 2019) from a folder: VGG-19 with batch norm.

    python -m jaxrobust.main --config=animal10n_dynamic_loss --config.data.path=FOLDER \
        --workdir=runs/animal10n_dynamic_loss

50,000 web images of ten easily confused animals, 64 x 64, about 8 % wrong labels. FOLDER holds
train/ and test/ with a sub-folder a class, or list files; see docs/data.md. The published archive
has files LABEL_NUMBER.jpg in training/ and testing/: in FOLDER, make lists of them, and use
--config.data.path=FOLDER/training.txt.

    for s in training testing; do ls $s | sed "s,\([0-9]*\)_.*,$s/& \1," > $s.txt; done

Batch 128, 100 epochs, SGD 0.1 divided by 5 at epochs 50 and 75: the data set's usual protocol.
Momentum 0.9, weight decay 5e-4, AutoAugment and Cutout are chosen here; Jiang et al. released no
configuration for this data set. What concerns the dynamic loss is as released for CIFAR. The
published run has not been made. What has: the whole recipe on 160 made-up 64 x 64 JPEG files seen
at 32 x 32, in batches of 8 for 3 epochs (--config.data.image_size=32 --config.augment.cutout=16
--config.augment.pad=4 --config.train.batch_size=8 --config.train.epochs=3
--config.method.warmup_epochs=1), on a CPU.
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
