"""Reference features of torchvision's and timm's modules with seeded weights, for tests/golden.

    python -m benchmarks.make_torch_goldens

Needs `torch`, `torchvision` and `timm`, not jaxrobust. The weights are drawn from a generator that
is seeded with each tensor's name, so that the golden holds names, shapes and features only.
Writes tests/golden/torch_features.npz.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent.parent / "tests" / "golden" / "torch_features.npz"
SIDES = {"resnet18": 64, "resnet34": 64, "resnet50": 64, "vit_small": 224}


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Returns a float32 tensor per name, whose features stay of the order of 1."""
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        value = rng.normal(size=shape)
        if len(shape) >= 2:
            value *= np.sqrt(1 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = 0.1 * value + (0.7 if name.endswith("weight") else 0)
        found[name] = value.astype(np.float32)
    return found


def images(side: int) -> np.ndarray:
    """Returns two uint8 images [2, side, side, 3]."""
    return np.random.default_rng(side).integers(0, 256, (2, side, side, 3)).astype(np.uint8)


def normalized(name: str) -> np.ndarray:
    """Returns the images [2, 3, side, side] as the published weights expect them."""
    x = images(SIDES[name]) / np.float32(255)
    mean, std = (
        ((0.5,) * 3,) * 2 if name == "vit_small" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return ((x - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2)


def main() -> None:
    import timm
    import torch
    import torchvision

    makers = {
        name: [getattr(torchvision.models, name), lambda name=name: timm.create_model(name)]
        for name in ("resnet18", "resnet34", "resnet50")
    }
    makers["vit_small"] = [lambda: timm.create_model("vit_small_patch16_224")]
    results = {}
    for name, several in makers.items():
        features = []
        for make in several:
            network = make().eval()
            shapes = {
                key: list(value.shape)
                for key, value in network.state_dict().items()
                if not key.endswith("num_batches_tracked")
            }
            tensors = {key: torch.from_numpy(v) for key, v in weights(shapes).items()}
            network.load_state_dict(tensors, strict=False)
            setattr(network, "head" if name == "vit_small" else "fc", torch.nn.Identity())
            with torch.inference_mode():
                features.append(network(torch.from_numpy(normalized(name))).numpy())
        apart = max(np.abs(value - features[0]).max() for value in features)
        print(
            name,
            features[0].shape,
            f"largest {np.abs(features[0]).max():.2f}",
            f"torchvision and timm differ by {apart:.1e}",
        )
        results[f"{name}_features"] = features[0]
        results[f"{name}_shapes"] = np.asarray(json.dumps(shapes))
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
    np.savez_compressed(FILE, versions=versions + f"timm {timm.__version__}", **results)


if __name__ == "__main__":
    main()
