"""The benchmark of tiny convolutions runs, and times both ways of the same thing."""

import jax
import numpy as np

from benchmarks import convolution
from jaxrobust.networks.cpu import conv2d, is_tiny


def test_every_case_is_tiny_and_measured_both_ways(capsys):
    found = convolution.main(["--tiny", "--rounds", "1"])
    assert list(found) == [name for name, *_ in convolution.CASES]
    assert all(
        len(row[who]) == 3 and min(row[who]) > 0
        for row in found.values()
        for who in ("xla", "ours")
    )
    assert "VGG-19, CIFAR, last stage" in capsys.readouterr().out
    for _, _, side, _, stride in convolution.CASES:
        x = jax.random.normal(jax.random.key(0), (2, side, side, 4))
        kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 4))
        assert is_tiny(x, kernel, stride, (1, 1))
        np.testing.assert_allclose(
            conv2d(x, kernel, stride, (1, 1)),
            convolution.xla(x, kernel, stride, (1, 1)),
            rtol=1e-5,
            atol=1e-5,
        )
