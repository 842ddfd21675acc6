"""The dynamic loss on ImageNet-LT (Liu et al. 2019): ResNet-50, 1,000 classes of 5 to 1,280 images.

    python -m jaxrobust.main --config=imagenet_lt_dynamic_loss --workdir=runs/imagenet_lt \
        --config.data.path=FOLDER/ImageNet_LT_train.txt

The published list file of "path label" lines, those of the other splits beside it; see
docs/data.md. From TFDS instead, with the same profile of class sizes made here:
--config.data.name=imagenet2012 --config.data.imbalance.kind=exponential
--config.data.imbalance.factor=0.0039. Labels are clean: the margins do the work. Batch 256, 90
epochs, SGD 0.1, cosine. The look-ahead leaves out the stem and the first two stages. The published
run has not been made, nor any from TFDS. What has: the whole recipe on 130 made-up JPEG files with
list files, 8 classes of 5 to 40 images, at 64 x 64, in batches of 8 for 3 epochs
(--config.data.image_size=64 --config.data.num_classes=8 --config.train.batch_size=8
--config.train.epochs=3 --config.method.warmup_epochs=1 --config.optimizer.warmup_epochs=1), on
a CPU.
"""

from jaxrobust.config import load


def get_config():
    config = load("cifar10_dynamic_loss")
    config.data.name = "folder"
    config.data.image_size = 256
    config.data.num_classes = 1000
    config.network.name = "resnet50"
    config.augment.kind = "imagenet"
    config.method.skip_stages = 3
    config.eval.many_above = 100
    config.eval.few_below = 20
    config.train.batch_size = 256
    config.train.epochs = 90
    return config
