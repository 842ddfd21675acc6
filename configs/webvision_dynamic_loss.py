"""The dynamic loss on mini-WebVision (the first 50 classes) from a folder: Inception-ResNet-v2.

    python -m jaxrobust.main --config=webvision_dynamic_loss --config.data.path=FOLDER \
        --workdir=runs/webvision_dynamic_loss

FOLDER as for webvision_losses. Batch 32, 100 epochs, SGD 0.01 divided by 10 after epoch 50: the
protocol that papers with this network share. The look-ahead leaves out the stem and the first stage
of the network (--config.method.skip_stages=0 for all of it). The published run has not been made.
What has: the warm-up alone, on 54 made-up JPEG files of 4 classes with list files, at 80 x 80, in
batches of 8 (--config.data.image_size=80 --config.data.num_classes=4 --config.train.batch_size=8
--config.train.epochs=2 --config.method.warmup_epochs=1), on a CPU; not yet the steps after it.
"""

from jaxrobust.config import load


def get_config():
    config = load("cifar10_dynamic_loss")
    config.data.name = "folder"
    config.data.image_size = 256
    config.data.num_classes = 50
    config.data.on_unreadable = "skip"
    config.network.name = "inception_resnet_v2"
    config.augment.kind = "imagenet"
    config.method.skip_stages = 2
    config.optimizer.learning_rate = 0.01
    config.optimizer.warmup_epochs = 0
    config.optimizer.schedule = "step"
    config.optimizer.milestones = (50,)
    config.train.batch_size = 32
    config.train.epochs = 100
    return config
