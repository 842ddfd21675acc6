"""The benchmarks' networks in PyTorch; each is a sequence of the same stages as in JAX."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn


def mlp(sizes: Sequence[int] = (64, 256, 256, 10)) -> nn.Sequential:
    """Linear layers of these sizes, ReLU between."""
    hidden = [
        nn.Sequential(nn.Linear(a, b), nn.ReLU())
        for a, b in zip(sizes[:-2], sizes[1:-1], strict=True)
    ]
    return nn.Sequential(*hidden, nn.Linear(*sizes[-2:]))


def resnet32(num_classes: int = 10, width: int = 16, blocks: int = 5) -> nn.Sequential:
    """Stem, three stages, head, for images of 32 x 32; the shortcuts have no parameters."""
    return nn.Sequential(
        nn.Sequential(*_unit(3, width, 3), nn.ReLU()),
        *_stages(BasicBlock, width, [(width * 2**i, blocks) for i in range(3)]),
        _head(4 * width, num_classes),
    )


def resnet50(num_classes: int = 10, width: int = 64, blocks=(3, 4, 6, 3)) -> nn.Sequential:
    """Stem with pooling, four stages of bottlenecks (v1.5), head."""
    stem = nn.Sequential(*_unit(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    sizes = [(4 * width * 2**i, n) for i, n in enumerate(blocks)]
    return nn.Sequential(stem, *_stages(Bottleneck, width, sizes), _head(32 * width, num_classes))


NETWORKS = {"mlp": mlp, "resnet32": resnet32, "resnet50": resnet50}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm; zeros for new channels of the shortcut."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *_unit(before, channels, 3, stride), nn.ReLU(), *_unit(channels, channels, 3)
        )
        self.stride, self.missing = stride, (channels - before) // 2

    def forward(self, x):
        y = self.body(x)
        if self.missing:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.missing, self.missing))
        return F.relu(x + y)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with batch norm; a projection where sizes differ."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        inner = channels // 4
        self.body = nn.Sequential(
            *_unit(before, inner, 1),
            nn.ReLU(),
            *_unit(inner, inner, 3, stride),
            nn.ReLU(),
            *_unit(inner, channels, 1),
        )
        project = [] if before == channels else _unit(before, channels, 1, stride)
        self.shortcut = nn.Sequential(*project)

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.body(x))


def _unit(before: int, channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, channels, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _stages(block, before: int, sizes: Sequence[tuple[int, int]]) -> list[nn.Module]:
    stages = []
    for i, (channels, n) in enumerate(sizes):
        first = block(before, channels, 2 if i else 1)
        stages.append(nn.Sequential(first, *(block(channels, channels, 1) for _ in range(n - 1))))
        before = channels
    return stages


def _head(channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
