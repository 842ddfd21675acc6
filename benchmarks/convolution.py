"""Cost of convolving a map smaller than its kernel: XLA's convolution against `conv2d`'s product.

    OMP_WAIT_POLICY=passive python -m benchmarks.convolution [--rounds 9] [--tiny]

Times are the least of so many rounds, in milliseconds, compiled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrobust.networks.cpu import conv2d

# Name, batch, side of the map, channels, stride; kernels are 3 x 3.
CASES = (
    ("ResNet-50, 64 px, last stage", 8, 2, 512, 1),
    ("ResNet-50, 64 px, into the last stage", 8, 4, 512, 2),
    ("VGG-19, CIFAR, last stage", 128, 2, 512, 1),
    ("small CNN, digits, last block", 128, 2, 64, 1),
)


def xla(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """The convolution as XLA has it."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def milliseconds(rounds: int, function: Callable, *args: jax.Array) -> float:
    """Returns the least time of a compiled call."""
    compiled = jax.jit(function).lower(*args).compile()
    seen = []
    for _ in range(rounds + 1):  # The first warms up.
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        seen.append(time.perf_counter() - begin)
    return 1e3 * min(seen[1:])


def costs(conv: Callable, rounds: int, batch: int, side: int, channels: int, stride: int) -> list:
    """Returns the times of the convolution, and of its gradients by map and by kernel."""
    x, kernel = jnp.ones((batch, side, side, channels)), jnp.ones((3, 3, channels, channels))

    def forward(x, kernel):
        return conv(x, kernel, stride, (1, 1))

    def gradient(argument):
        return lambda *args: jax.grad(lambda *a: forward(*a).sum(), argument)(*args)

    return [milliseconds(rounds, f, x, kernel) for f in (forward, gradient(0), gradient(1))]


def main(arguments: list[str] | None = None) -> dict[str, dict[str, list[float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tiny", action="store_true", help="few channels, to see that it runs")
    args = parser.parse_args(arguments)
    found = {}
    print(f"{'':40}{'forward':>20}{'by the map':>20}{'by the kernel':>20}")
    print(f"{'':40}" + f"{'XLA':>10}{'ours':>10}" * 3)
    for name, batch, side, channels, stride in CASES:
        sizes = (batch, side, 4 if args.tiny else channels, stride)
        found[name] = {
            "xla": costs(xla, args.rounds, *sizes),
            "ours": costs(conv2d, args.rounds, *sizes),
        }
        pairs = zip(found[name]["xla"], found[name]["ours"], strict=True)
        print(f"{name:40}" + "".join(f"{a:10.2f}{b:10.2f}" for a, b in pairs), flush=True)
    return found


if __name__ == "__main__":
    main()
