r"""CurveNet on CIFAR-100 as released (Jiang et al. 2022): ResNet-32, 300 + 200 epochs.

    python -m jaxrobust.main --config=cifar100_curvenet --config.data.data_dir=TFDS_DIR \
        --config.data.imbalance.kind=exponential --config.data.imbalance.factor=0.05 \
        --config.data.noise.kind=uniform_by_class_size --config.data.noise.rate=0.4 --workdir=…

1,000 clean images, 10 a class, are held out as metadata. `cifar100_curvenet:short` is the same in
60 + 50 epochs. Not run yet.
"""

from jaxrobust.config import load
from jaxrobust.errors import choose


def get_config(length="published"):
    choose("length", length, ("published", "short"))
    config = load(f"cifar10_curvenet:{length}")
    config.data.name = "cifar100"
    config.data.metadata.per_class = 10
    return config
