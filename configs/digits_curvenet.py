"""CurveNet on scikit-learn's digits: a probe, then a training with learned weights.

    python -m jaxrobust.main --config=digits_curvenet --workdir=runs/digits_curvenet

40 % of the labels are wrong, and the smallest class is a tenth of the largest. Ten clean examples a
class are held out as metadata. A finished run's probe serves others:
--config.probe_workdir=runs/digits_curvenet. The weights are put on the balanced softmax: on
cross-entropy, as published (`digits_curvenet:ce`), they also have to make up for the sizes of the
classes, and tell wrong labels from right ones better within a class than over all.
"""

from jaxrobust.config import load


def get_config(loss="balanced_softmax"):
    config = load(f"digits_losses:{loss}")
    config.data.noise.kind, config.data.noise.rate = "symmetric", 0.4
    config.data.imbalance.kind, config.data.imbalance.factor = "exponential", 0.1
    config.data.metadata.kind = "clean"
    config.data.metadata.per_class = 10
    config.method.name = "curvenet"
    config.method.meta_learning_rate = 1e-3
    config.method.meta_weight_decay = 1e-4
    config.method.meta_batch_size = 100
    config.method.probe_epochs = 40
    config.method.probe_batch_divisor = 2
    config.optimizer.nesterov = True
    config.optimizer.schedule = "step"
    config.optimizer.milestones = (40, 52)
    config.augment.kind = "crop_flip"
    config.augment.pad = 1
    config.train.batch_size = 32
    config.train.epochs = 60
    config.log.figures_every = 100
    return config
