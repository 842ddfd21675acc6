"""Your own images: a folder with a sub-folder per class, or a CSV file of paths and labels.

    python -m jaxrobust.main --config=images --config.data.path=photos

Nothing is known or asked about how many labels are wrong, nothing is planted, and no example is
held out: each is judged by models that have not seen it. Writes label_issues.csv and report.html,
and a classifier that --mode=predict uses. Measured defaults: docs/own_data.md.

Images are features of EfficientNet-Lite0 with the installed ImageNet weights, at 128 pixels: the
shorter side is resized, the square in the center kept. Other weights: network.name and
network.pretrained. A linear layer on these features is trained by another method with
--config.method.name=dynamic_loss, and the whole network with --config.network.freeze=False.

Images that cannot be read are an error that names the setting which skips them.
"""

from jaxrobust.config import default_config


def get_config():
    config = default_config()
    config.data.name = "folder"
    config.data.test_fraction = 0.0
    config.data.validation.fraction = 0.0
    config.data.image_size = 128
    config.network.name = "efficientnet_lite0"
    config.network.pretrained = "installed"
    config.method.name = "blend"
    # Of the other methods.
    config.method.fit_steps = 0
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-4
    config.train.epochs = 30
    config.train.batch_size = 32
    config.log.figures_every = 10
    return config
