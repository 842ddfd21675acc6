"""A user's own linen module as a Network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.errors import UserError
from jaxrobust.networks import from_linen


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, dtype=jnp.bfloat16)(x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(5)(x)))


def test_one_module_is_one_stage_and_gives_float32_logits():
    network, x = from_linen(Plain()), jnp.ones((4, 6))
    params, state = network.init(jax.random.key(0), x)
    logits, new = network.apply(params, state, x, True)
    assert network.stages == tuple(params) == ("network",)
    assert logits.dtype == jnp.float32 and state == new == {}


def test_several_modules_run_in_the_order_given():
    network, x = from_linen({"second_name": Normed(), "a_name": Plain()}), jnp.ones((4, 6))
    params, state = network.init(jax.random.key(0), x)
    assert network.stages == ("second_name", "a_name")
    assert set(state) == {"second_name"}
    features, new = network.run(params, state, x, True, 0, 1)
    assert features.shape == (4, 5)
    logits, _ = network.run(params, new, features, True, 1)
    np.testing.assert_array_equal(logits, network.apply(params, state, x, True)[0])
    mean = new["second_name"]["BatchNorm_0"]["mean"]
    assert not np.allclose(mean, state["second_name"]["BatchNorm_0"]["mean"])


def test_params_of_a_jitted_step_may_come_back_in_another_order():
    network, x = from_linen({"z": Normed(), "a": Plain()}), jnp.ones((4, 6))
    params, state = network.init(jax.random.key(0), x)
    reordered = jax.jit(lambda p: p)(params)
    np.testing.assert_array_equal(
        network.apply(reordered, state, x, False)[0], network.apply(params, state, x, False)[0]
    )


def test_wrong_use():
    with pytest.raises(UserError, match="no module"):
        from_linen({})
    network = from_linen(Plain())
    with pytest.raises(UserError, match=r"\[B, ...\], not shape \(6,\)"):
        network.init(jax.random.key(0), jnp.ones((6,)))
    params, state = network.init(jax.random.key(0), jnp.ones((4, 6)))
    for start, stop in ((0, 2), (-1, None), (1, 0)):
        with pytest.raises(UserError, match="there are 1: network"):
            network.run(params, state, jnp.ones((4, 6)), True, start, stop)
