"""Schedules by their formulas; optimizers against PyTorch's rule written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import config as configuration
from jaxrobust.training import schedules


def rates(schedule, epochs, steps):
    return np.array([float(schedule(e * steps)) for e in range(epochs)])


def test_cosine_by_epoch_is_constant_within_an_epoch_and_ends_near_zero():
    schedule = schedules.make_schedule("cosine", 0.1, stages=((10, 7),))
    np.testing.assert_allclose(
        rates(schedule, 10, 7), 0.05 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-5
    )
    assert schedule(6) == schedule(0) != schedule(7)


def test_cosine_per_step_falls_within_an_epoch():
    schedule = schedules.make_schedule("cosine", 0.1, stages=((10, 7),), per_step=True)
    np.testing.assert_allclose(schedule(6), 0.05 * (1 + np.cos(np.pi * 6 / 70)), rtol=1e-5)


def test_warm_up_rises_from_its_start_and_hands_over():
    schedule = schedules.make_schedule(
        "cosine", 0.1, stages=((25, 2),), warmup_epochs=5, warmup_start=0.01
    )
    found = rates(schedule, 25, 2)
    np.testing.assert_allclose(found[:6], [0.01, 0.028, 0.046, 0.064, 0.082, 0.1], rtol=1e-5)
    np.testing.assert_allclose(
        found[5:], 0.05 * (1 + np.cos(np.pi * np.arange(20) / 20)), rtol=1e-5
    )


def test_step_and_exponential():
    schedule = schedules.make_schedule(
        "step", 0.1, stages=((100, 3),), milestones=(80, 90), gamma=0.1
    )
    np.testing.assert_allclose(
        rates(schedule, 100, 3)[[79, 80, 89, 90]], [0.1, 0.01, 0.01, 0.001], rtol=1e-5
    )
    schedule = schedules.make_schedule("exponential", 0.4, stages=((9, 3),), gamma=0.97)
    np.testing.assert_allclose(rates(schedule, 9, 3), 0.4 * 0.97 ** np.arange(9), rtol=1e-5)


def test_stages_of_different_length_keep_the_epochs_apart():
    schedule = schedules.make_schedule("exponential", 1.0, stages=((2, 5), (3, 8)), gamma=0.5)
    starts = [0, 5, 10, 18, 26]
    np.testing.assert_allclose([schedule(s) for s in starts], 0.5 ** np.arange(5), rtol=1e-6)
    np.testing.assert_allclose(
        [schedule(s - 1) for s in starts[1:]], 0.5 ** np.arange(4), rtol=1e-6
    )


def test_sgd_is_pytorchs():
    lr, momentum, decay = 0.1, 0.9, 0.01
    for nesterov in (False, True):
        optimizer = schedules.make_optimizer(
            "sgd", lr, momentum=momentum, nesterov=nesterov, weight_decay=decay
        )
        p, buffer = np.array([1.0, -2.0]), np.zeros(2)
        params = jnp.asarray(p, jnp.float32)
        state = optimizer.init(params)
        for g in ([0.5, 1.0], [-1.0, 0.25], [2.0, 0.0]):
            updates, state = optimizer.update(jnp.asarray(g), state, params)
            params = optax.apply_updates(params, updates)
            d = np.array(g) + decay * p
            buffer = momentum * buffer + d
            p = p - lr * (d + momentum * buffer if nesterov else buffer)
            np.testing.assert_allclose(params, p, rtol=1e-5)


def test_clipping_comes_before_weight_decay():
    optimizer = schedules.make_optimizer("sgd", 1.0, momentum=0.0, weight_decay=1.0, clip_norm=1.0)
    params = jnp.array([3.0, 0.0])
    updates, _ = optimizer.update(jnp.array([30.0, 40.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-3.6, -0.8], rtol=1e-6)


def test_an_l1_penalty_is_part_of_the_loss_that_is_clipped():
    params = {"w": jnp.array([2.0, -3.0, 0.0]), "b": jnp.array([-0.5])}
    grads = {"w": jnp.array([0.1, 0.2, 0.3]), "b": jnp.array([0.4])}
    penalized = jax.grad(
        lambda p: sum(jnp.vdot(grads[k], p[k]) + 0.05 * jnp.sum(jnp.abs(p[k])) for k in p)
    )(jax.tree.map(lambda x: jnp.where(x == 0, 1e-9, x), params))
    penalized["w"] = penalized["w"].at[2].set(0.3)  # at zero the penalty has no slope
    norm = optax.tree.norm(penalized)
    optimizer = schedules.make_optimizer("sgd", 1.0, momentum=0.0, l1=0.05, clip_norm=0.3)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for key in params:
        np.testing.assert_allclose(updates[key], -0.3 * penalized[key] / norm, rtol=1e-6)


def test_adamw_decouples_the_decay_and_adam_does_not():
    params, g = jnp.array([10.0]), jnp.array([1e-3])
    moved = {}
    for name in ("adam", "adamw"):
        optimizer = schedules.make_optimizer(name, 0.1, weight_decay=0.01)
        moved[name] = optimizer.update(g, optimizer.init(params), params)[0]
    np.testing.assert_allclose(moved["adam"], -0.1, rtol=1e-3)
    np.testing.assert_allclose(moved["adamw"], -0.1 - 0.1 * 0.01 * 10, rtol=1e-3)


def test_a_warm_up_by_factor_multiplies_the_whole_schedule_in_every_step():
    """25 epochs of 2 steps, W = 5, from 0.01 to 0.1: by hand."""
    schedule = schedules.make_schedule(
        "cosine", 0.1, stages=((25, 2),), warmup_epochs=5, warmup_start=0.01, warmup="factor"
    )

    def by_hand(step):
        epoch = step // 2
        cosine = 0.5 * (1 + np.cos(np.pi * epoch / 25))
        return 0.1 * cosine * min(1.0, 0.1 + 0.9 * (step / 2) / 5)

    found = [float(schedule(i)) for i in range(50)]
    np.testing.assert_allclose(found, [by_hand(i) for i in range(50)], rtol=1e-5)
    assert abs(found[0] - 0.01) < 1e-8 and found[1] > found[0]


def test_curvenets_recipe_warms_up_as_its_program():
    made = configuration.load("cifar10_curvenet").optimizer
    schedule = schedules.make_schedule(
        "step",
        made.learning_rate,
        stages=((200, 3),),
        warmup_epochs=made.warmup_epochs,
        warmup_start=made.warmup_start,
        milestones=made.milestones,
        gamma=made.gamma,
    )
    found = [float(schedule(3 * epoch)) for epoch in (0, 1, 2, 3, 4, 79, 80, 100)]
    expected = [0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.01, 0.001]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
