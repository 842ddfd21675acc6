"""What every network promises: size, types, stages that compose, errors."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import networks
from jaxrobust.errors import UserError

# name -> (shape of an example, sizes that make it small)
SMALL = {
    "mlp": ((6,), {"hidden": (8, 4)}),
    "small_cnn": ((8, 8, 1), {"width": 4}),
    "small_vgg": ((8, 8, 3), {"width": 4, "hidden": 8}),
    "resnet32": ((8, 8, 3), {"width": 4, "blocks": 1}),
    "resnet18": ((8, 8, 3), {"width": 4, "blocks": 1}),
    "resnet50": ((32, 32, 3), {"width": 4, "blocks": (1, 1)}),
    "wrn28_10": ((8, 8, 3), {"width": 8, "blocks": 1}),
    "vgg19_bn": ((32, 32, 3), {"width": 2}),
}
# name -> (shape of an example, classes, parameters), as published where it is
FULL = {
    "mlp": ((64,), 10, 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
    "small_cnn": ((8, 8, 1), 10, 9 * (32 + 32 * 64 + 64 * 128) + 2 * 224 + 1290),
    "small_vgg": (
        (32, 32, 3),
        10,
        9 * (3 * 24 + 24 * 48 + 48 * 96) + 2 * 168 + 16 * 96 * 256 + 256 + 2570,
    ),
    "resnet32": ((32, 32, 3), 10, 464_154),
    "resnet18": ((32, 32, 3), 10, 11_173_962),
    "wrn28_10": ((32, 32, 3), 10, 36_479_194),
    "resnet50": ((224, 224, 3), 1000, 25_557_032),
    "vgg19_bn": ((64, 64, 3), 10, 20_035_018),
    "resnet34": ((224, 224, 3), 1000, 21_797_672),
    "vit_small": ((224, 224, 3), 1000, 22_050_664),
    "efficientnet_lite0": ((224, 224, 3), 1000, 4_652_008),
    "inception_resnet_v2": ((299, 299, 3), 1000, 55_843_464),
}


@functools.cache
def shapes(name):
    shape, num_classes, _ = FULL.get(name, ((32, 32, 3), 10, None))
    network = networks.make(name, num_classes)
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    return network, x, *jax.eval_shape(network.init, jax.random.key(0), x)


@functools.cache
def small(name):
    shape, sizes = SMALL[name]
    network = networks.make(name, 3, **sizes)
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    return network, x, *network.init(jax.random.key(0), x)


@pytest.mark.parametrize("name", FULL)
def test_number_of_parameters_is_the_published_one(name):
    assert networks.count_parameters(shapes(name)[2]) == FULL[name][2]


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_stages_are_the_parameters_keys_and_logits_are_float32(name):
    network, x, params, state = shapes(name)
    assert set(network.stages) == set(params)
    assert set(state) <= set(params)
    logits, new = jax.eval_shape(lambda *a: network.apply(*a, True), params, state, x)
    assert logits.shape == (2, FULL.get(name, (0, 10))[1]) and logits.dtype == jnp.float32
    assert jax.tree.map(lambda a: (a.shape, a.dtype), new) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_full_size_apply_is_the_same_program_as_its_stages_one_by_one(name):
    network, x, params, state = shapes(name)

    def one_by_one(params, state, x):
        for i, stage in enumerate(network.stages):
            x, state = network.run({stage: params[stage]}, state, x, True, i, i + 1)
        return x, state

    def program(f):
        return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(f)(params, state, x)))

    assert program(one_by_one) == program(lambda *a: network.apply(*a, True))


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_apply_is_the_bottom_then_the_top_exactly(name):
    network, x, params, state = small(name)
    for train in (True, False):
        logits, new = network.apply(params, state, x, train)
        for split in range(len(network.stages) + 1):
            top = {stage: params[stage] for stage in network.stages[split:]}
            features, half = network.run(params, state, x, train, 0, split)
            again, both = network.run(top, half, features, train, split)
            np.testing.assert_array_equal(again, logits)
            jax.tree.map(np.testing.assert_array_equal, both, new)


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_running_part_leaves_the_other_stages_statistics(name):
    network, x, params, state = small(name)
    _, new = network.run(params, state, x, True, 0, 1)
    first = network.stages[0]
    for stage in state:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), new[stage], state[stage])
        assert all(jax.tree.leaves(same)) == (stage != first)
    _, evaluated = network.apply(params, state, x, False)
    jax.tree.map(np.testing.assert_array_equal, evaluated, state)


def dtypes(tree):
    return {a.dtype.name for a in jax.tree.leaves(tree)}


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_keeps_parameters_statistics_and_logits_float32(name):
    shape, sizes = SMALL[name]
    network = networks.make(name, 3, dtype=jnp.bfloat16, **sizes)
    x = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), x)
    result = jax.eval_shape(lambda *a: network.apply(*a, True), params, state, x)
    assert dtypes((params, state, result)) == {"float32"}
    features, _ = jax.eval_shape(lambda *a: network.run(*a, True, 0, 1), params, state, x)
    assert features.dtype == jnp.bfloat16


def test_bfloat16_computes_nearly_the_same():
    network, x, params, state = small("small_cnn")
    half = networks.make("small_cnn", 3, dtype=jnp.bfloat16, **SMALL["small_cnn"][1])
    expected, _ = network.apply(params, state, x, True)
    logits, _ = half.apply(params, state, x, True)
    assert np.abs(logits - expected).max() > 0
    np.testing.assert_allclose(logits, expected, atol=0.05)


@pytest.mark.parametrize("name", SMALL)
def test_float64_is_float64_throughout(x64, name):
    shape, sizes = SMALL[name]
    network = networks.make(name, 3, dtype=jnp.float64, **sizes)
    x = jax.ShapeDtypeStruct((4, *shape), jnp.float64)
    params, state = jax.eval_shape(network.init, jax.random.key(0), x)
    result = jax.eval_shape(lambda *a: network.apply(*a, True), params, state, x)
    assert dtypes((params, state, result)) == {"float64"}


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_a_batch_of_one(name):
    network, x, params, state = small(name)
    logits, state = network.apply(params, state, x[:1], True)
    assert logits.shape == (1, 3)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((logits, state)))


def test_initial_parameters_depend_on_the_key_and_the_shape_of_an_example_only():
    network, x, params, _ = small("small_cnn")
    again, _ = network.init(jax.random.key(0), jax.ShapeDtypeStruct((9, 8, 8, 1), jnp.uint8))
    other, _ = network.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    kernel = params["block2"]["unit"]["conv"]["kernel"]
    assert not np.allclose(kernel, other["block2"]["unit"]["conv"]["kernel"])


def test_initial_scales_are_those_of_the_original_programs():
    params = small("resnet32")[2]
    kernel = params["stage3"]["block1"]["unit2"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 16)), rtol=0.06)
    assert np.abs(kernel).max() > 2.6 * kernel.std()  # not truncated
    head = params["head"]["linear"]
    np.testing.assert_allclose(head["kernel"].std(), np.sqrt(2 / 16), rtol=0.3)
    np.testing.assert_array_equal(head["bias"], 0)
    network, x, _, _ = shapes("resnet18")  # uniform
    assert "erf_inv" not in str(jax.make_jaxpr(network.init)(jax.random.key(0), x))


def test_initializations_of_resnet32_are_those_of_the_released_programs():
    """Squared sums of many draws against the distributions' moments."""
    x = jnp.zeros((1, 8, 8, 3))
    fan = 9 * 32

    def drawn(init):
        params, _ = networks.make("resnet32", 3, width=16, blocks=2, init=init).init(
            jax.random.key(0), x
        )
        unit = params["stage2"]["block2"]["unit2"]
        return unit["conv"]["kernel"], unit["norm"]["scale"], params["head"]["linear"]["kernel"]

    kernel, scale, head = drawn("he")
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan), rtol=0.03)
    np.testing.assert_array_equal(scale, 1)
    kernel, scale, head = drawn("torch")
    assert 0.99 < np.abs(kernel).max() * np.sqrt(fan) <= 1  # uniform within 1/sqrt(fan in)
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(3 * fan), rtol=0.03)
    assert 0.9 < np.abs(head).max() * np.sqrt(64) <= 1
    np.testing.assert_array_equal(scale, 1)
    kernel, scale, head = drawn("normal_0.02")
    np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.03)
    assert np.abs(kernel).max() > 2.6 * 0.02  # not truncated
    np.testing.assert_allclose(scale.mean(), 1, atol=0.02)
    np.testing.assert_allclose(scale.std(), 0.02, rtol=0.4)
    np.testing.assert_allclose(head.std(), np.sqrt(2 / 64), rtol=0.2)
    with pytest.raises(UserError, match="Did you mean 'torch'"):
        networks.make("resnet32", 3, init="torhc")


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_gradient_descent_fits_eight_examples(name):
    network, x, params, state = small(name)
    x, labels = jnp.concatenate([x, -x]), jnp.arange(8) % 3

    @jax.jit
    def step(params, state):
        def loss(params):
            logits, new = network.apply(params, state, x, True)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), new, value

    losses = []
    for _ in range(60):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.1 < 0.7 < losses[0]


def test_the_perceptron_flattens_images():
    network = networks.make("mlp", 3, hidden=())
    x = jax.random.normal(jax.random.key(0), (5, 2, 3, 4))
    params, state = network.init(jax.random.key(0), x)
    logits, state = network.apply(params, state, x, True)
    head = params["head"]["linear"]
    np.testing.assert_allclose(
        logits, np.asarray(x).reshape(5, 24) @ np.asarray(head["kernel"]), rtol=1e-5, atol=1e-6
    )
    assert state == {} and network.stages == ("head",)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: networks.make("resnett32", 10), "Did you mean 'resnet32'"),
        (lambda: networks.make("small_cnn", 10, widht=8), "no 'widht'. Did you mean 'width'"),
        (lambda: networks.make("mlp", 0), "at least one class"),
        (lambda: networks.make("mlp", 2, hidden=(8, 0)), "hidden sizes must be positive"),
        (lambda: networks.make("small_cnn", 2, width=0), "width must be positive"),
        (lambda: networks.width_of("inception_resnet_v2", 4), "fixed"),
        (lambda: networks.width_of("mpl", 4), "Did you mean 'mlp'"),
    ],
)
def test_wrong_use_is_one_clear_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [n for n in networks.NETWORKS if n != "mlp"])
def test_a_table_or_a_tiny_image_is_refused_with_the_shape(name):
    network = networks.make(name, 10)
    with pytest.raises(UserError, match=rf"'{name}' needs images.*\(1, 64\)"):
        network.init(jax.random.key(0), jnp.zeros((3, 64)))


@pytest.mark.parametrize(
    "name, smallest, sizes",
    [
        ("vgg19_bn", 32, {}),
        ("efficientnet_lite0", 32, {}),
        ("inception_resnet_v2", 75, {"blocks": (1, 1, 1)}),
    ],
)
def test_the_smallest_image(name, smallest, sizes):
    network = networks.make(name, 10, **sizes)
    too_small = jax.ShapeDtypeStruct((1, smallest - 1, smallest, 3), jnp.float32)
    with pytest.raises(UserError, match=f"at least {smallest} x {smallest}"):
        jax.eval_shape(network.init, jax.random.key(0), too_small)
    enough = jax.ShapeDtypeStruct((1, smallest, smallest, 3), jnp.float32)
    jax.eval_shape(network.init, jax.random.key(0), enough)


def test_the_width_setting():
    assert networks.width_of("mlp", 7) == {"hidden": (7, 7)}
    for name in (
        "small_cnn",
        "small_vgg",
        "resnet32",
        "resnet18",
        "resnet50",
        "wrn28_10",
        "vgg19_bn",
    ):
        assert networks.width_of(name, 7) == {"width": 7}
