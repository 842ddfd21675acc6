"""Closed forms of the losses of 2020 to 2025, of clipped logits, memories and views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError

K = 4
LOGITS = np.random.default_rng(0).normal(size=(6, K)).astype(np.float32) * 2
LABELS = np.array([0, 1, 2, 3, 2, 0])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
LOG_P = np.log(P)
HOT = np.eye(K, dtype=np.float32)[LABELS]
P_LABEL = P[np.arange(6), LABELS]


def assert_close(actual, desired, rtol=5e-6, atol=5e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def value(name, labels=LABELS, logits=LOGITS, **hyper):
    return losses.get(name)(logits, labels, **hyper)


def nce():
    return (HOT * LOG_P).sum(-1) / LOG_P.sum(-1)


def test_asymmetric_mean_error_is_the_mean_square_error_for_a_target_of_one():
    assert_close(value("ame", a=1.0), ((P - HOT) ** 2).mean(-1))
    assert_close(value("ame", a=5.0, q=1.0), np.abs(P - 5 * HOT).mean(-1))
    assert_close(value("ame", a=2.0, q=2.5), (np.abs(P - 2 * HOT) ** 2.5).mean(-1))


def test_joint_asymmetric_is_normalized_cross_entropy_plus_asymmetric_mean_error():
    assert_close(value("jal_ce", alpha=2.0, beta=0.0), 2 * nce())
    assert_close(value("jal_ce", alpha=2.0, beta=3.0, a=4.0), 2 * nce() + 3 * value("ame", a=4.0))
    hyper = {"alpha": 2.0, "beta": 3.0, "a": 4.0}
    assert_close(value("jal_fl", gamma=0.0, **hyper), value("jal_ce", **hyper))
    w = (1 - P) ** 2
    focal = (HOT * w * LOG_P).sum(-1) / (w * LOG_P).sum(-1)
    assert_close(value("jal_fl", alpha=1.0, beta=0.0, gamma=2.0), focal)


def test_the_focal_factor_takes_no_gradient():
    w = jnp.asarray((1 - P) ** 2)

    def held(z):
        log_p = jax.nn.log_softmax(z)
        return jnp.sum(jnp.sum(HOT * w * log_p, -1) / jnp.sum(w * log_p, -1))

    def of(name, **hyper):
        return jax.grad(lambda z: jnp.sum(value(name, logits=z, **hyper)))(LOGITS)

    assert_close(of("jal_fl", alpha=1.0, beta=0.0, gamma=2.0), jax.grad(held)(LOGITS))
    assert_close(of("anl_fl", alpha=1.0, beta=0.0, gamma=2.0), jax.grad(held)(LOGITS))


def test_active_negative_losses_by_hand():
    a = -np.log(1e-2)
    c = np.maximum(LOG_P, -a) + a
    negative = 1 - (HOT * c).sum(-1) / c.sum(-1)
    assert_close(value("anl_ce", alpha=2.0, beta=3.0, min_prob=1e-2), 2 * nce() + 3 * negative)
    hyper = {"alpha": 2.0, "beta": 3.0, "min_prob": 1e-2}
    assert_close(value("anl_fl", gamma=0.0, **hyper), value("anl_ce", **hyper))
    c = np.maximum(LOG_P, -a)
    margin = (1 - 1e-2) ** 2 * a + (1 - np.exp(c)) ** 2 * c
    negative = 1 - (HOT * margin).sum(-1) / margin.sum(-1)
    assert_close(value("anl_fl", alpha=0.0, beta=1.0, gamma=2.0, min_prob=1e-2), negative)


def test_the_relaxed_softmax_by_hand():
    m, eps = 3.0, 0.02
    s = np.maximum((P + m * np.eye(K)[P.argmax(-1)]) / (1 + m), eps)
    s_label = (HOT * s).sum(-1)
    hyper = {"m": m, "eps": eps, "alpha": 0.5, "beta": 0.7}
    mae = 2 * 0.7 * (1 - P_LABEL)
    assert_close(value("eps_softmax_ce_mae", **hyper), -0.5 * np.log(s_label) + mae)
    focal = -0.5 * (1 - s_label) ** 2 * np.log(s_label)
    assert_close(value("eps_softmax_fl_mae", gamma=2.0, **hyper), focal + mae)
    plain = value("eps_softmax_ce_mae", m=0.0, eps=1e-8, alpha=1.0, beta=0.0)
    assert_close(plain, -np.log(P_LABEL))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_clipped_logits_have_the_bound_as_norm(p):
    z = np.concatenate([LOGITS, 1e-3 * LOGITS])
    labels = np.tile(LABELS, 2)
    norm = (np.abs(z) ** p).sum(-1, keepdims=True) ** (1 / p)
    short = np.where(norm > 0.8, 0.8 * z / norm, z)
    clipped = losses.clip_logits(losses.cross_entropy, 0.8, p=p)
    assert_close(clipped(z, labels), losses.cross_entropy(short, labels))
    short = np.where(norm > 0.02, 0.8 * z / norm, z)  # as released: longer than T, to 1/T
    released = losses.clip_logits(losses.cross_entropy, 0.8, p=p, threshold=0.02)
    assert_close(released(z, labels), losses.cross_entropy(short, labels))
    assert (norm > 0.8).any() and (norm < 0.02).any()


def test_clipping_goes_around_any_loss_masks_rows_and_is_harmless_at_zero():
    where = np.array([True, False, True, True, True, True])
    spoilt = np.where(where[:, None], LOGITS, np.nan)

    def total(z, q):
        clipped = losses.clip_logits(losses.generalized_cross_entropy, 1.0)
        return jnp.sum(clipped(z, LABELS, q=q, where=where))

    assert np.isfinite(jax.grad(total)(spoilt, 0.5)).all()
    at_zero = jax.grad(total)(np.zeros_like(LOGITS), 0.5)
    base = jax.grad(lambda z: jnp.sum(value("gce", logits=z, q=0.5, where=where)))
    assert_close(at_zero, base(np.zeros_like(LOGITS)))
    by_name = losses.get("logit_clip_gce")(LOGITS, LABELS, tau=0.5, q=0.4)
    bound = losses.clip_logits(losses.generalized_cross_entropy, 0.5)
    assert_close(by_name, bound(LOGITS, LABELS, q=0.4))
    assert losses.settings("logit_clip_gce") == {"tau": 1.0, "p": 2.0, "threshold": None, "q": 0.7}
    assert losses.needs("logit_clip_nlnl") == ("key", "class_counts")
    with pytest.raises(UserError, match="use losses.clip_logits"):
        losses.get("logit_clip_ce_sr")
    with pytest.raises(UserError, match="tau must be above 0"):
        losses.clip_logits(losses.cross_entropy, 0.0)(LOGITS, LABELS)


def test_early_learning_regularization_by_hand():
    z, before = np.log(np.array([[0.8, 0.2]])), np.array([[0.1, 0.3]])
    after = losses.elr_update(before, z, beta=0.75)
    assert_close(after, 0.75 * before + 0.25 * np.array([[0.8, 0.2]]))
    inner = after[0, 0] * 0.8 + after[0, 1] * 0.2
    found = losses.elr(z, np.array([1]), targets=after, lamb=2.0)
    assert_close(found, [-np.log(0.2) + 2 * np.log(1 - inner)])
    assert_close(losses.elr(LOGITS, LABELS, targets=np.full((6, K), 0.2), lamb=0.0), value("ce"))
    certain = losses.elr_update(np.zeros((1, 2)), np.array([[1e4, -1e4]]), beta=0.0)
    assert_close(certain, [[1 - 1e-4, 1e-4]])


def test_self_ensemble_label_correction_by_hand():
    memory = losses.MEMORY_LOSSES["selc"]
    start = memory.init(LABELS, K)
    np.testing.assert_array_equal(start, HOT)
    assert_close(losses.selc_update(start, LOGITS, momentum=0.75), 0.75 * HOT + 0.25 * P)
    soft = 0.5 * HOT + 0.5 / K
    assert_close(losses.selc(LOGITS, LABELS, targets=soft), -(soft * LOG_P).sum(-1))
    assert_close(losses.selc(LOGITS, LABELS, targets=soft, corrected=False), value("ce"))
    for epoch, moves in ((2, False), (3, True)):  # es = 3: cross-entropy in epochs 1, 2 and 3.
        rows = memory.update(soft, LOGITS, epoch=epoch, momentum=0.5, es=3)
        assert_close(rows, 0.5 * soft + 0.5 * P if moves else soft)
        found = memory.loss(LOGITS, LABELS, rows=rows, epoch=epoch, momentum=0.5, es=3)
        assert_close(found, -(rows * LOG_P).sum(-1) if moves else value("ce"))


@pytest.mark.parametrize("name", losses.MEMORY_LOSSES)
def test_losses_with_a_memory_take_extremes_masks_and_classes_ruled_out(name):
    memory, labels = losses.MEMORY_LOSSES[name], np.array([1, 1, 1, 0])
    hyper = dict(memory.defaults)
    where = np.array([True, True, True, False])
    z = np.array([[-1e4, 1e4, 0], [1e4, -1e4, 0], [0, 2, -np.inf], [np.nan] * 3], np.float32)
    rows = memory.init(labels, 3)
    for epoch in (0, 100):

        def total(z, epoch=epoch):
            moved = memory.update(rows, z, epoch=epoch, **hyper)
            value = memory.loss(z, labels, rows=moved, epoch=epoch, where=where, **hyper)
            return jnp.sum(value), value

        gradient, value = jax.jit(jax.grad(total, has_aux=True))(z)
        assert np.isfinite(value).all() and np.isfinite(gradient).all() and value[3] == 0
        assert value[0] < value[1] and not gradient[3].any()
    with pytest.raises(UserError, match=r"targets must have shape \[6, 4\].*\[6, 3\]"):
        getattr(losses, name)(LOGITS, LABELS, targets=np.zeros((6, 3)))
    with pytest.raises(UserError, match=r"targets must have shape \[6, 4\].*\[5, 4\]"):
        getattr(losses, f"{name}_update")(np.zeros((5, 4)), LOGITS)
    keyword = "beta" if name == "elr" else "momentum"
    with pytest.raises(UserError, match=f"{keyword} must be at least 0 and at most 1; got 1.5"):
        getattr(losses, f"{name}_update")(np.zeros((6, 4)), LOGITS, **{keyword: 1.5})


def test_divergence_of_views():
    one = losses.generalized_jensen_shannon(LOGITS[None], LABELS, weights=[0.3, 0.7])
    assert_close(one, value("js", pi=0.3))
    twice = losses.generalized_jensen_shannon(
        np.stack([LOGITS, LOGITS]), LABELS, weights=[0.3, 0.2, 0.5]
    )
    assert_close(twice, one)
    other = np.roll(LOGITS, 1, axis=-1)
    found = losses.generalized_jensen_shannon(
        np.stack([LOGITS, other]), LABELS, weights=[0.3, 0.2, 0.5], scaled=False
    )
    q = np.roll(P, 1, axis=-1)
    m = 0.3 * HOT + 0.2 * P + 0.5 * q
    label = -0.3 * np.log((HOT * m).sum(-1))
    assert_close(found, label + (0.2 * P * np.log(P / m) + 0.5 * q * np.log(q / m)).sum(-1))
    soft = losses.generalized_jensen_shannon(np.stack([LOGITS, other]), HOT)
    assert_close(soft, losses.generalized_jensen_shannon(np.stack([LOGITS, other]), LABELS))


def test_divergence_of_views_masks_bears_extremes_and_refuses_what_does_not_fit():
    z = np.array([[[-1e4, 1e4], [np.nan, 0], [-np.inf, 0]]] * 2, np.float32)
    z[1, 0] = [1e4, -1e4]
    labels, where = np.array([1, 5, 1]), np.array([True, False, True])

    def total(z):
        value = losses.generalized_jensen_shannon(z, labels, where=where)
        return jnp.sum(value), value

    gradient, value = jax.grad(total, has_aux=True)(z)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    assert value[1] == 0 and value[2] == 0 and value[0] > 0
    for weights, message in (
        ([0.5, 0.5], r"shape \[3\]"),
        ([0.5, 0.3, 0.3], "sum to 1"),
        ([1.0, 0.0, 0.0], "positive"),
    ):
        with pytest.raises(UserError, match=message):
            losses.generalized_jensen_shannon(np.stack([LOGITS] * 2), LABELS, weights=weights)
    with pytest.raises(UserError, match=r"\[M, ..., K\]"):
        losses.generalized_jensen_shannon(LOGITS[0], LABELS[0])
