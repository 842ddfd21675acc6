"""CurveNet: golden numbers, start, and class-centred curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError
from jaxrobust.objectives import CurveNet, class_centred, curve_weighted


def golden_phi(file):
    def net(names):
        return {
            f"dense_{i}": {k: file[f"{name}/{k}"] for k in ("kernel", "bias")}
            for i, name in enumerate(names)
        }

    return {
        "class_embedding": file["class_embedding"],
        "curve_net": net(["before_linear1", "before_linear2", "before_linear3"]),
        "weight_net": net(["linear1", "linear2", "linear3"]),
    }


@pytest.mark.golden
def test_golden_weights(golden, x64):
    file = dict(np.load(golden("curvenet.npz")))
    num_classes, hidden = file["class_embedding"].shape
    length = file["curves"].shape[1]
    phi, labels = golden_phi(file), jnp.asarray(file["labels"])
    net = CurveNet(num_classes, length, hidden)
    actual = net.apply({"params": phi}, file["curves"], labels)
    np.testing.assert_allclose(actual, file["weights"], rtol=1e-10)
    objective = curve_weighted(num_classes, length, hidden)
    logits = jnp.zeros((len(labels), num_classes))
    batch = {"labels": labels, "curve": jnp.asarray(file["curves"])}
    np.testing.assert_allclose(objective.weights(phi, logits, batch), file["weights"], rtol=1e-10)
    expected = file["weights"] * np.log(num_classes)
    np.testing.assert_allclose(objective.loss(phi, logits, batch), expected, rtol=1e-10)


@pytest.mark.golden
def test_golden_class_centred_curves(golden, x64):
    file = dict(np.load(golden("curvenet.npz")))
    centred = class_centred(
        jnp.asarray(file["raw_curves"]), jnp.asarray(file["labels"]), len(file["class_embedding"])
    )
    np.testing.assert_allclose(centred, file["class_centred_curves"], rtol=1e-10, atol=1e-10)


def test_starts_by_trusting_every_label():
    objective = curve_weighted(4, 20)
    rng = np.random.default_rng(0)
    batch = {"labels": jnp.arange(4), "curve": jnp.asarray(rng.normal(size=(4, 20)), jnp.float32)}
    phi = jax.jit(objective.init)(jax.random.key(0))
    weights = objective.weights(phi, jnp.zeros((4, 4)), batch)
    assert weights.shape == (4,)
    assert np.all(weights > 0.8) and np.all(weights < 1.02)


def test_base_loss_factor_and_bias():
    objective = curve_weighted(3, 5, 4, factor=0.0, bias=0.5, base_loss=losses.mean_absolute_error)
    phi = jax.jit(objective.init)(jax.random.key(0))
    batch = {"labels": jnp.array([1]), "curve": jnp.ones((1, 5))}
    np.testing.assert_allclose(objective.loss(phi, jnp.zeros((1, 3)), batch), [1 / 3], rtol=1e-6)


def test_curves_of_another_length_are_refused():
    objective = curve_weighted(3, 5, 4)
    phi = jax.jit(objective.init)(jax.random.key(0))
    batch = {"labels": jnp.array([1]), "curve": jnp.ones((1, 6))}
    with pytest.raises(UserError, match="length 6"):
        objective.weights(phi, jnp.zeros((1, 3)), batch)


def test_centring_leaves_classes_without_examples_alone():
    curves = jnp.array([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    centred = class_centred(curves, jnp.array([0, 0, 2]), 4)
    np.testing.assert_allclose(centred, [[-1, -2], [1, 2], [0, 0]])
