"""Mean and standard deviation of examples, however many there are and wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

_CHUNK = 1 << 21  # values in float64 at a time: 16 MiB
_THREADS = 8  # that read and decode what is not an array


def statistics(x: Any, sample: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation as a view takes them, see `augment.make_view`.

    float32 [C] of images, those of uint8 images in 0..1; float32 [D] of features. See `moments`.
    """
    unit = np.float32(255 if x.dtype == np.uint8 else 1)
    mean, deviation = (v.astype(np.float32) for v in moments(x, sample))
    return mean / unit, deviation / unit


def moments(x: Any, sample: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation, float64 [C], in the units of `x`.

    Taken over `sample` evenly spaced examples, some at a time; a channel or feature that never
    changes gets deviation 1.

    Args:
      x: [N, ..., C], an array, or anything with `len`, `shape` and `[i]`, read by several threads.
    """
    n, mean, squares = 0, np.zeros(x.shape[-1]), np.zeros(x.shape[-1])
    for part in _parts(x, sample):
        axes = tuple(range(part.ndim - 1))
        own, count = part.mean(axes, dtype=np.float64), part[..., 0].size
        apart = own - mean
        # Sums of squares about the mean add up (Chan, Golub & LeVeque 1983, eq. 2.1).
        squares += ((part - own) ** 2).sum(axes) + apart**2 * (n * count / (n + count))
        n += count
        mean += apart * (count / n)
    deviation = np.sqrt(squares / n)
    return mean, np.where(deviation > 0, deviation, 1)


def _parts(x: Any, sample: int) -> Iterator[np.ndarray]:
    """Yields the sampled examples, as many at a time as make up a chunk."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), sample)).astype(np.int64))
    size = max(1, _CHUNK // int(np.prod(x.shape[1:])))
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    if isinstance(x, (np.ndarray, jax.Array)):
        yield from (np.asarray(x[chunk]) for chunk in chunks)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for chunk in chunks:
            yield np.stack(list(pool.map(lambda i: np.asarray(x[i]), chunk.tolist())))
