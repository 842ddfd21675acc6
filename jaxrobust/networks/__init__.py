"""Networks for images and tables, behind one small record of pure functions.

The names below are loaded when first used: reading `NETWORKS` imports neither JAX nor Flax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxrobust.registry import Registry

if TYPE_CHECKING:
    from jaxrobust.networks.build import make as make
    from jaxrobust.networks.build import width_of as width_of
    from jaxrobust.networks.network import Network as Network
    from jaxrobust.networks.network import count_parameters as count_parameters
    from jaxrobust.networks.network import from_linen as from_linen

NETWORKS = Registry(
    {
        "mlp": "jaxrobust.networks.small:mlp",
        "small_cnn": "jaxrobust.networks.small:small_cnn",
        "small_vgg": "jaxrobust.networks.small:small_vgg",
        "resnet32": "jaxrobust.networks.resnet:resnet32",
        "resnet18": "jaxrobust.networks.resnet:resnet18",
        "resnet34": "jaxrobust.networks.resnet:resnet34",
        "wrn28_10": "jaxrobust.networks.resnet:wrn28_10",
        "resnet50": "jaxrobust.networks.resnet:resnet50",
        "vgg19_bn": "jaxrobust.networks.vgg:vgg19_bn",
        "efficientnet_lite0": "jaxrobust.networks.efficientnet:efficientnet_lite0",
        "vit_small": "jaxrobust.networks.vit:vit_small",
        "inception_resnet_v2": "jaxrobust.networks.inception:inception_resnet_v2",
    }
)
"""The networks by name: `(num_classes, *, dtype, axis_name, **sizes) -> Network`; see `make`.

`--config.network.name` takes these names. Each network is also an attribute of this package.
"""

__all__ = ["NETWORKS", "Network", "count_parameters", "from_linen", "make", "width_of"]

_LAZY = {
    "Network": "jaxrobust.networks.network",
    "count_parameters": "jaxrobust.networks.network",
    "from_linen": "jaxrobust.networks.network",
    "make": "jaxrobust.networks.build",
    "width_of": "jaxrobust.networks.build",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in NETWORKS:
        return NETWORKS[name]
    raise AttributeError(f"module 'jaxrobust.networks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *NETWORKS})
