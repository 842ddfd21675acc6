"""The same steps in PyTorch, the meta-step with `higher` as CurveNet's released program uses it.

Symbols as in `benchmarks.meta_step`. Written for the comparison; needs torch and higher.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import higher
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_networks import NETWORKS


class CurveNet(nn.Module):
    """The weight of an example, from its loss curve and its given label."""

    def __init__(self, num_classes: int, length: int, h: int = 64):
        super().__init__()
        self.curve = nn.Sequential(
            nn.Linear(length, 2 * h),
            nn.ReLU(),
            nn.Linear(2 * h, 2 * h),
            nn.ReLU(),
            nn.Linear(2 * h, h),
            nn.ReLU(),
        )
        self.embedding = nn.Embedding(num_classes, h)
        self.weight = nn.Sequential(
            nn.Linear(h, 2 * h), nn.ReLU(), nn.Linear(2 * h, h), nn.ReLU(), nn.Linear(h, 1)
        )

    def forward(self, curves, labels):
        features = self.curve(curves) + 2 * self.embedding(labels)
        return torch.sigmoid(self.weight(features))[:, 0] + 0.02


def make_steps(network: str, batch: dict, meta_batch: dict, skips: tuple[int, ...] = ()):
    """Returns variant -> a function that takes one step; `batch` holds NumPy arrays."""

    def tensors(data):
        data = {k: torch.from_numpy(v) for k, v in data.items()}
        if data["x"].ndim == 4:
            data["x"] = data["x"].permute(0, 3, 1, 2).contiguous()
        return data

    batch, meta_batch = tensors(batch), tensors(meta_batch)
    length = batch["curve"].shape[1]

    def fresh():
        model, net = NETWORKS[network](), CurveNet(10, length)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4)
        return model.train(), net, optimizer, torch.optim.Adam(net.parameters(), 1e-3)

    def plain() -> Callable[[], None]:
        model, net, optimizer, _ = fresh()
        return lambda: _real_step(model, net, optimizer, batch)

    def meta(skip: int) -> Callable[[], None]:
        model, net, optimizer, meta_optimizer = fresh()

        def step():
            _meta_step(model, net, optimizer, meta_optimizer, batch, meta_batch, skip)
            _real_step(model, net, optimizer, batch)

        return step

    steps = {"torch_plain": plain(), "torch_higher": meta(0)}
    return steps | {f"torch_higher_skip{s}": meta(s) for s in skips}


def _real_step(model, net, optimizer, batch):
    loss = F.cross_entropy(model(batch["x"]), batch["labels"], reduction="none")
    with torch.no_grad():
        weights = net(batch["curve"], batch["labels"])
    optimizer.zero_grad()
    (loss * weights).mean().backward()
    optimizer.step()


def _meta_step(model, net, optimizer, meta_optimizer, batch, meta_batch, skip):
    with higher.innerloop_ctx(model, optimizer) as (ahead, look_ahead):
        for stage in list(ahead.children())[:skip]:
            stage.eval()
            for parameter in stage.parameters():
                parameter.requires_grad = False
        loss = F.cross_entropy(ahead(batch["x"]), batch["labels"], reduction="none")
        look_ahead.step((loss * net(batch["curve"], batch["labels"])).mean())
        meta_optimizer.zero_grad()
        F.cross_entropy(ahead(meta_batch["x"]), meta_batch["labels"]).backward()
        meta_optimizer.step()


def seconds(step: Callable[[], None], times: int) -> float:
    """Returns the mean time of a step."""
    start = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - start) / times
