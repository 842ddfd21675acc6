"""Features of images for models of tables: pixels of small ones, a pretrained network of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SMALL = 16  # pixels: images of a shorter side are their own features
NETWORK, IMAGE_SIZE = "efficientnet_lite0", 128


def width(shape: tuple[int, ...]) -> int:
    """Returns the number of features F of images of shape (H, W, C)."""
    return int(np.prod(shape)) if min(shape[:2]) < SMALL else 1280


def of(x: Any, progress: Callable[[int, int, float], None] | None = None) -> np.ndarray:
    """Returns float32 [N, F].

    Args:
      x: uint8 [N, H, W, C], or a sequence of N such images that is indexed by number.
      progress: see `networks.pretrained.features`.
    """
    height, width = np.asarray(x[0]).shape[:2]
    if min(height, width) < SMALL:
        pixels = np.stack([np.asarray(x[i]) for i in range(len(x))])
        return pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    from jaxrobust.networks import pretrained

    return pretrained.features(NETWORK, x, image_size=IMAGE_SIZE, progress=progress)
