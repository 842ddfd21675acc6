"""Losses and weights for unequal classes, a class without examples included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError

LOGITS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])
COUNTS = np.array([100, 10, 1])


def cross_entropy(logits):
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -shifted[np.arange(5), LABELS]


def test_ldam_takes_the_margin_of_the_label_from_its_logit():
    margins = 0.5 * (1 / COUNTS) ** 0.25
    moved = LOGITS - np.eye(3)[LABELS] * margins[LABELS][:, None]
    got = losses.get("ldam")(LOGITS, LABELS, class_counts=COUNTS)
    np.testing.assert_allclose(got, cross_entropy(30 * moved), rtol=1e-5, atol=1e-5)
    wide = losses.get("ldam")(LOGITS, LABELS, class_counts=COUNTS, max_margin=1.0, scale=2.0)
    expected = cross_entropy(2 * (2 * moved - LOGITS))
    np.testing.assert_allclose(wide, expected, rtol=1e-5, atol=1e-5)


def test_logit_adjustment_adds_the_log_prior():
    prior = np.log(COUNTS / 111)
    got = losses.get("logit_adjusted")(LOGITS, LABELS, class_counts=COUNTS, tau=0.5)
    np.testing.assert_allclose(got, cross_entropy(LOGITS + 0.5 * prior), rtol=1e-5)
    balanced = losses.get("balanced_softmax")(LOGITS, LABELS, class_counts=COUNTS)
    np.testing.assert_allclose(balanced, cross_entropy(LOGITS + prior), rtol=1e-5)


@pytest.mark.parametrize("name", ["logit_adjusted", "balanced_softmax", "ce"])
def test_equal_classes_need_no_adjustment(name):
    extra = {} if name == "ce" else {"class_counts": np.full(3, 7)}
    got = losses.get(name)(LOGITS, LABELS, **extra)
    np.testing.assert_allclose(got, cross_entropy(LOGITS), rtol=1e-5)


@pytest.mark.parametrize("counts", [[100, 10, 0], [0, 0, 0], [0, 5, 5]])
@pytest.mark.parametrize("name", ["ldam", "logit_adjusted", "balanced_softmax", "nlnl"])
def test_a_class_without_examples_counts_like_the_rarest_present(name, counts):
    extra = {"complementary_labels": (LABELS[:, None] + 1) % 3} if name == "nlnl" else {}
    loss = losses.get(name)
    rarest = min((n for n in counts if n), default=1)
    got = loss(LOGITS, LABELS, class_counts=counts, **extra)
    filled = loss(LOGITS, LABELS, class_counts=[n or rarest for n in counts], **extra)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, filled)


def test_class_counts_must_match_the_classes():
    for name in ("ldam", "logit_adjusted", "balanced_softmax"):
        with pytest.raises(UserError, match=r"class_counts .*\[3\].*\[5, 3\].*\[2\]"):
            losses.get(name)(LOGITS, LABELS, class_counts=[1, 2])


def test_effective_number_weights():
    counts = np.array([5000, 500, 50, 5])
    raw = (1 - 0.9999) / (1 - 0.9999**counts)
    got = losses.effective_number_weights(counts)
    np.testing.assert_allclose(got, raw * 4 / raw.sum(), rtol=1e-5)
    np.testing.assert_allclose(losses.effective_number_weights(counts, beta=0.0), np.ones(4))
    traced = jax.jit(losses.effective_number_weights)(counts, 0.99)
    raw = 1 / (1 - 0.99**counts)
    np.testing.assert_allclose(traced, raw * 4 / raw.sum(), rtol=1e-4)
    absent = losses.effective_number_weights([10, 5, 0])
    np.testing.assert_array_equal(absent, losses.effective_number_weights([10, 5, 5]))
    with pytest.raises(UserError, match="beta must be at least 0 and below 1; got 1"):
        losses.effective_number_weights(counts, beta=1)
    with pytest.raises(UserError, match=r"\[K\]; got shape \[1, 4\]"):
        losses.effective_number_weights(counts[None])


def test_deferred_weights_start_with_their_epoch():
    weights = jnp.array([0.5, 1.5])
    by_epoch = jax.jit(jax.vmap(lambda e: losses.deferred_weights(e, 2, weights)))(np.arange(4))
    np.testing.assert_array_equal(by_epoch, [[1, 1], [1, 1], [0.5, 1.5], [0.5, 1.5]])
