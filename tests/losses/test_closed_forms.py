"""Special cases in which a loss is another one, or a number worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError
from jaxrobust.losses import negative

CLASSES = 4
LOGITS = np.random.default_rng(0).normal(size=(6, CLASSES)).astype(np.float32) * 2
LABELS = np.array([0, 1, 2, 3, 2, 0])
SOFT = np.random.default_rng(1).dirichlet(np.ones(CLASSES), 6).astype(np.float32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
P_LABEL = P[np.arange(6), LABELS]


def assert_close(actual, desired, rtol=2e-6, atol=2e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def value(name, labels=LABELS, logits=LOGITS, **hyper):
    return losses.get(name)(logits, labels, **hyper)


def test_cross_entropy_and_mean_absolute_error():
    assert_close(value("ce"), -np.log(P_LABEL))
    assert_close(value("ce", SOFT), -(SOFT * np.log(P)).sum(-1))
    assert_close(value("mae"), 1 - P_LABEL)
    assert_close(value("mae", SOFT), np.abs(SOFT - P).sum(-1) / 2)


def test_reverse_cross_entropy_takes_log_zero_as_log_1e_minus_4():
    assert_close(value("rce"), -np.log(1e-4) * (1 - P_LABEL))
    assert_close(value("rce", SOFT), -(P * np.log(np.maximum(SOFT, 1e-4))).sum(-1))


@pytest.mark.parametrize("name", ["mae", "rce", "nce", "nce_rce"])
def test_symmetric_losses_sum_to_a_constant_over_all_labels(name):
    total = sum(value(name, np.full(6, k)) for k in range(CLASSES))
    per_wrong = -np.log(1e-4)
    expected = {
        "mae": CLASSES - 1,
        "rce": per_wrong * (CLASSES - 1),
        "nce": 1,
        "nce_rce": 10 + 0.1 * per_wrong * (CLASSES - 1),
    }
    assert_close(total, np.full(6, expected[name]))


@pytest.mark.parametrize("name", ["ce", "nce", "gce", "tce", "agce", "nce_agce", "focal"])
def test_on_distributions_these_losses_are_the_expectation_over_labels(name):
    by_label = np.stack([value(name, np.full(6, k)) for k in range(CLASSES)], axis=-1)
    assert_close(value(name, SOFT), (SOFT * by_label).sum(-1), rtol=1e-5)


def test_generalized_cross_entropy_between_cross_entropy_and_absolute_error():
    assert_close(value("gce", q=1.0), 1 - P_LABEL)
    assert_close(value("gce", q=2.0), (1 - P_LABEL**2) / 2)
    assert_close(value("gce", q=0), -np.log(P_LABEL))
    assert_close(value("gce", q=1e-7), -np.log(P_LABEL), rtol=1e-5)


def test_generalized_cross_entropy_at_a_traced_q_of_zero():
    def loss(logits, q):
        return jnp.sum(value("gce", logits=logits, q=q))

    to_logits, to_q = jax.jit(jax.grad(loss, argnums=(0, 1)))(LOGITS, 0.0)
    assert_close(to_logits, P - np.eye(CLASSES)[LABELS])
    assert_close(to_q, -np.sum(np.log(P_LABEL) ** 2) / 2)
    curvature = jax.jit(jax.grad(jax.grad(loss, argnums=1), argnums=1))(LOGITS, 0.0)
    assert_close(curvature, -np.sum(np.log(P_LABEL) ** 3) / 3)


def test_generalized_cross_entropy_keeps_its_gradient_where_p_is_tiny():
    logits = np.array([0.0, 40.0, 0.0])
    gradient = jax.grad(lambda z: value("gce", 0, z, q=0.5))(jnp.asarray(logits, jnp.float32))
    assert_close(gradient[0], -np.exp(-20.0), rtol=1e-5, atol=0)


def test_sums_of_two_losses():
    parts = {"alpha": 0.3, "beta": 0.7}
    assert_close(value("sce", **parts), 0.3 * value("ce") + 0.7 * value("rce"))
    assert_close(value("nce_rce", **parts), 0.3 * value("nce") + 0.7 * value("rce"))
    agce = value("agce", a=2.0, q=1.5)
    assert_close(value("nce_agce", a=2.0, q=1.5, **parts), 0.3 * value("nce") + 0.7 * agce)


def test_normalized_cross_entropy():
    assert_close(value("nce"), np.log(P_LABEL) / np.log(P).sum(-1))


def test_asymmetric_generalized_cross_entropy():
    assert_close(value("agce", a=2.0, q=0.5), (3**0.5 - (2 + P_LABEL) ** 0.5) / 0.5)
    assert_close(value("agce", a=2.0, q=0), np.log(3 / (2 + P_LABEL)))
    assert_close(value("agce", a=0, q=0.7), value("gce", q=0.7))
    to_a = jax.grad(lambda a: jnp.sum(value("agce", a=a, q=0.7)))(0.0)
    assert_close(to_a, np.sum(1 - P_LABEL**-0.3), rtol=1e-5)


def test_taylor_cross_entropy_of_every_order():
    assert_close(value("tce", order=1), 1 - P_LABEL)
    assert_close(value("tce", order=2), (1 - P_LABEL) + (1 - P_LABEL) ** 2 / 2)
    assert_close(value("tce", order=20_000), value("ce"), rtol=1e-5)


def test_taylor_cross_entropy_differentiates_at_a_traced_order():
    def loss(z, order):
        return value("tce", 0, z, order=order)

    orders = np.array([1, 2, 5])
    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(LOGITS[0], orders)
    curvatures = jax.jit(jax.vmap(jax.hessian(loss), (None, 0)))(LOGITS[0], orders)
    p, toward = P[0], np.eye(CLASSES)[0] - P[0]  # toward: the gradient of log p₀
    for order, gradient, curvature in zip(orders, gradients, curvatures, strict=True):
        slope, bend = (1 - p[0]) ** order - 1, -order * (1 - p[0]) ** (order - 1) * p[0]
        assert_close(gradient, slope * toward)
        expected = bend * np.outer(toward, toward) - slope * (np.diag(p) - np.outer(p, p))
        assert_close(curvature, expected)
    assert jax.grad(loss, argnums=1)(LOGITS[0], 3.0) == 0


def test_jensen_shannon_between_cross_entropy_and_absolute_error(x64):
    logits = LOGITS.astype(np.float64)
    assert_close(value("js", logits=logits, pi=1e-6), value("ce"), rtol=1e-5)
    # The error of this limit shrinks like 1/log(1 − π).
    assert_close(value("js", logits=logits, pi=1 - 1e-13), value("mae"), rtol=5e-2)
    middle = (P + SOFT) / 2
    divergence = SOFT * np.log(SOFT / middle) + P * np.log(P / middle)
    assert_close(value("js", SOFT, pi=0.5), divergence.sum(-1) / 2 / (0.5 * np.log(2)))
    assert_close(value("js", P), np.zeros(6))


def test_bi_tempered_logistic():
    assert_close(value("bi_tempered", t1=1.0, t2=1.0), value("ce"))
    relative = (SOFT * np.log(SOFT / P)).sum(-1)
    assert_close(value("bi_tempered", SOFT, t1=1.0, t2=1.0), relative, rtol=1e-5)
    mean_square = ((P - np.eye(CLASSES)[LABELS]) ** 2).sum(-1) / 2
    assert_close(value("bi_tempered", t1=0.0, t2=1.0), mean_square)
    # exp_2(z) = 1/(1 − z): with two equal logits it is ½, and log_½ ½ = 2 (√½ − 1).
    half = value("bi_tempered", 0, np.zeros(2, np.float32), t1=0.5, t2=2.0)
    assert_close(half, -2 * (0.5**0.5 - 1) - (1 - 2 * 0.5**1.5) / 1.5)


def test_sparse_regularization_sees_the_direction_of_the_logits_only():
    unit = LOGITS / np.linalg.norm(LOGITS, axis=-1, keepdims=True)
    assert_close(value("ce_sr", lamb=0, tau=0.25), value("ce", logits=unit * 4))
    for scale in (3, 3e-3):
        assert_close(value("ce_sr", logits=LOGITS * np.float32(scale)), value("ce_sr"), rtol=1e-5)
    p = np.exp(unit * 2) / np.exp(unit * 2).sum(-1, keepdims=True)
    sparsity = (p**0.3).sum(-1)
    assert_close(value("ce_sr", p=0.3, lamb=2), value("ce_sr", lamb=0) + 2 * sparsity, rtol=1e-5)


def test_sparse_regularization_of_a_zero_initialised_head():
    gradient = jax.grad(lambda z: value("ce_sr", 0, z, lamb=0.0))(jnp.zeros(CLASSES))
    assert gradient[0] < 0 < gradient[1] and np.abs(gradient).max() < 1e4


def test_dynamics_aware_is_generalized_cross_entropy_plus_bootstrapping():
    entropy = -(P * np.log(P)).sum(-1)
    gce = value("gce", q=1.2)
    assert_close(value("dal", q=1.2, lamb=0), gce)
    assert_close(value("dal", q=1.2, lamb=0.4), gce + 0.4 * entropy / (1.2 * np.log(CLASSES)))
    hard = -np.log(P.max(-1))
    expected = gce + 0.4 * hard / (1.2 * np.log(CLASSES))
    assert_close(value("dal", q=1.2, lamb=0.4, hard=True), expected)


def test_dynamics_aware_starts_from_cross_entropy_at_a_traced_q_of_zero():
    def loss(q, lamb, hard):
        return jnp.sum(value("dal", q=q, lamb=lamb, hard=hard))

    got, to_q = jax.jit(jax.value_and_grad(loss))(0.0, 0.0, True)
    assert_close(got, -np.log(P_LABEL).sum())
    assert_close(to_q, -np.sum(np.log(P_LABEL) ** 2) / 2)


def test_focal():
    assert_close(value("focal", gamma=0), value("ce"))
    assert_close(value("focal", gamma=2), -((1 - P_LABEL) ** 2) * np.log(P_LABEL))
    certain = np.array([50.0, 0, 0, 0], np.float32)
    assert np.isfinite(jax.grad(lambda z: value("focal", 0, z, gamma=0.5))(certain)).all()


def test_negative_learning_by_hand():
    negatives = np.array([[1, 1, 3]] * 6)
    labels = np.array([0, 2, 2, 0, 2, 0])
    log_not = np.log(1 - P)
    total = log_not[:, 1] * 2 + log_not[:, 3]
    assert_close(value("nlnl", labels, complementary_labels=negatives), -total)
    weights = np.where(labels == 0, 1, 8 / 2)
    got = value("nlnl", labels, complementary_labels=negatives, class_counts=[8, 4, 2, 0])
    assert_close(got, -weights * total, rtol=1e-5)


def test_negative_learning_of_more_draws_than_classes():
    few, many = np.array([[1, 2, 3]] * 6), np.array([[1, 2, 3] * 2 + [9, -1]] * 6)
    labels = np.zeros(6, int)
    once = value("nlnl", labels, complementary_labels=few)
    assert_close(value("nlnl", labels, complementary_labels=many), 2 * once)
    several, one = (
        jax.grad(lambda z, m=m: value("nlnl", labels, z, complementary_labels=m).sum())(LOGITS)
        for m in (many, few)
    )
    assert_close(several, 2 * one)


@pytest.mark.parametrize("classes, drawn", [(2, 7), (3, 1), (10, 110), (200, 5)])
def test_complementary_labels_are_drawn_from_all_other_classes(classes, drawn):
    labels = jnp.arange(600) % classes
    found = np.asarray(negative.draw_complementary(jax.random.key(1), labels, classes, drawn))
    assert found.shape == (600, drawn) and found.min() >= 0 and found.max() < classes
    offsets = (found - np.asarray(labels)[:, None]) % classes
    count = np.bincount(offsets.ravel(), minlength=classes)
    assert count[0] == 0 and count[1:].sum() == found.size
    mean = found.size / (classes - 1)
    assert np.abs(count[1:] - mean).max() <= 5 * np.sqrt(mean) and count[1:].min() > 0


@pytest.mark.parametrize("t2", [1.25, 1.5, 2.0])
def test_bi_tempered_by_whole_powers_equals_the_general_way(t2):
    def both(t):
        def loss(z):
            return value("bi_tempered", np.zeros(6, int), z, t2=t).sum()

        along = jax.jvp(jax.grad(loss), (LOGITS,), (jnp.ones_like(LOGITS).at[:, 0].set(2.0),))
        return loss(LOGITS), *along

    for quick, general in zip(both(t2), both(jnp.float32(t2)), strict=True):
        np.testing.assert_allclose(quick, general, rtol=2e-5, atol=2e-6)


def test_negative_learning_gives_up_on_what_it_cannot_unlearn():
    certain = jnp.array([0.0, 30.0])
    loss, gradient = jax.value_and_grad(
        lambda z: value("nlnl", 0, z, complementary_labels=np.array([1]))
    )(certain)
    assert_close(loss, -np.log(1e-5))
    np.testing.assert_array_equal(gradient, [0, 0])


def test_negative_learning_draws_every_other_class_alike():
    key, count = jax.random.key(0), 3000
    logits = np.tile(np.log([1.0, 2, 4, 8]), (count, 1))  # every class has a loss of its own
    losses_of = -np.log(1 - np.array([1, 2, 4, 8]) / 15)
    for given in (0, 3):
        labels = np.full(count, given)
        loss = value("nlnl", labels, logits, key=key, num_negatives=1)
        share = np.mean(np.isclose(loss[:, None], losses_of, atol=1e-4), axis=0)
        assert share[given] == 0
        assert_close(np.delete(share, given), np.full(3, 1 / 3), atol=0.03)
    again = value("nlnl", key=key, num_negatives=5)
    np.testing.assert_array_equal(value("nlnl", key=key, num_negatives=5), again)
    assert (value("nlnl", key=jax.random.key(1), num_negatives=5) != again).any()


def test_negative_learning_says_what_it_lacks():
    with pytest.raises(UserError, match="key= or complementary_labels="):
        value("nlnl")
    with pytest.raises(UserError, match="key= or complementary_labels="):
        value("nlnl", key=jax.random.key(0), complementary_labels=np.zeros((6, 1), int))
    with pytest.raises(UserError, match=r"\[6, 2\].*\[6, 4\].*\[5, 2\]"):
        value("nlnl", complementary_labels=np.zeros((5, 2), int))
    with pytest.raises(UserError, match="num_negatives must be .* at least 1"):
        value("nlnl", key=jax.random.key(0), num_negatives=0)
