"""Forward pass of EfficientNet-Lite0 compared with PyTorch's, interleaved in one process.

    python -m benchmarks.efficientnet [--images 32] [--size 128] [--rounds 5] [--threads N]

Needs `torch` and `efficientnet-lite-pytorch`. Both compute the logits of the same images with the
same weights; the ratio is of the medians (above 1: JAX is faster), in milliseconds per image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrobust.networks import NETWORKS, cpu, pretrained


def jax_forward(images: np.ndarray) -> Callable[[], Any]:
    """Returns a function that computes logits [N, 1000], compiled."""
    network = NETWORKS["efficientnet_lite0"](1000)
    params, state = pretrained.variables("efficientnet_lite0")

    # A new function each time: JAX keeps what it has traced before the switch was turned.
    def logits(params, state, x):
        return network.apply(params, state, x, False)[0]

    x = jax.numpy.asarray(images)
    compiled = jax.jit(logits).lower(params, state, x).compile()
    return lambda: np.asarray(compiled(params, state, x))


def torch_forward(images: np.ndarray, threads: int | None) -> Callable[[], Any]:
    """Returns a function that computes logits [N, 1000] with PyTorch, channels last."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    if threads:
        torch.set_num_threads(threads)
    network = (
        EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=str(pretrained.packaged_file("efficientnet_lite0"))
        )
        .eval()
        .to(memory_format=torch.channels_last)
    )
    x = torch.from_numpy(images.transpose(0, 3, 1, 2))

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(x).numpy()

    return run


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32, help="images per call")
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of PyTorch (default: its own choice)")
    parser.add_argument("--plain", action="store_true", help="also without the work-arounds")
    args = parser.parse_args(arguments)
    shape = (args.images, args.size, args.size, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    runs = {"JAX": jax_forward(images)}
    if args.plain:
        with cpu.switched_off():
            runs["JAX, XLA's own convolutions"] = jax_forward(images)
    runs["PyTorch"] = torch_forward(images, args.threads)
    outputs = {name: run() for name, run in runs.items()}
    apart = np.abs(outputs["JAX"] - outputs["PyTorch"]).max()
    print(f"largest difference of a logit: {apart:.1e}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - begin) / args.images)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        ratio = medians["PyTorch"] / value
        print(f"{name:30}{value:8.2f} ms per image{ratio:8.2f} x PyTorch's speed")
    return medians


if __name__ == "__main__":
    main()
