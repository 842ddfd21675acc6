"""Values and gradients of the papers' released programs."""

import functools
import json

import jax
import numpy as np
import pytest

from jaxrobust import losses

# Where the source adds 1e-6 inside a logarithm: (absolute for values, for gradients).
EXACT = (1e-10, 1e-10)
GUARDED = {"dal": (5e-5, 1e-8), "bi_tempered": (1e-5, 1e-5)}


def evaluate(golden, dtype):
    """(case, value, gradient, value and gradient to reproduce) of every case."""
    listed = json.loads(golden("losses.json").read_text())
    arrays = np.load(golden("losses.npz"))
    assert listed
    for classes in {case["num_classes"] for case in listed}:
        cases = [case for case in listed if case["num_classes"] == classes]
        labels = arrays[f"labels_c{classes}"]

        # One program for all losses, which share much of their work, compiled in a hurry.
        @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def run(logits, cases=cases, labels=labels):
            def total(logits, case):
                values = losses.get(case["loss"])(logits, labels, **case["params"])
                return losses.mean(values), values

            return [jax.grad(total, has_aux=True)(logits, case) for case in cases]

        results = run(arrays[f"logits_c{classes}"].astype(dtype))
        for case, (gradient, value) in zip(cases, results, strict=True):
            key = case["key"]
            yield case, value, gradient, arrays[f"{key}_value"], arrays[f"{key}_grad"]


@pytest.mark.golden
def test_losses_reproduce_the_released_programs_in_float64(golden, x64):
    for case, value, gradient, expected, expected_gradient in evaluate(golden, np.float64):
        atol, gradient_atol = GUARDED.get(case["loss"], EXACT)
        named = {"rtol": 1e-10, "err_msg": case["key"]}
        np.testing.assert_allclose(value, expected, atol=atol, **named)
        np.testing.assert_allclose(gradient, expected_gradient, atol=gradient_atol, **named)


@pytest.mark.golden
def test_losses_reproduce_the_released_programs_in_float32(golden):
    for case, value, gradient, expected, expected_gradient in evaluate(golden, np.float32):
        atol, _ = GUARDED.get(case["loss"], (1e-5, None))
        named = {"rtol": 1e-5, "err_msg": case["key"]}
        np.testing.assert_allclose(value, expected, atol=atol, **named)
        scale = np.abs(expected_gradient).max()
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5 * scale, **named)
