"""The dynamic loss: golden numbers, and what each part promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError
from jaxrobust.objectives import LabelCorrector, MarginGenerator, dynamic_loss, sample_labels

K, R, B = 5, 12, 9
PHI = functools.cache(lambda: jax.jit(dynamic_loss(K, R, 8).init)(jax.random.key(0)))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "labels": jnp.asarray(rng.integers(0, K, B), jnp.int32),
        "rank": jnp.asarray(rng.integers(0, R, B), jnp.int32),
        "index": jnp.asarray(rng.permutation(100)[:B], jnp.int32),
        "pseudo_labels": jnp.asarray(rng.integers(0, K, B), jnp.int32),
    }


@pytest.fixture
def logits():
    return jnp.asarray(np.random.default_rng(1).normal(size=(B, K)) * 2, jnp.float32)


def golden_phi(file):
    """The reference's parameters under this package's names."""

    def net(name):
        return {
            f"dense_{i}": {k: file[f"{name}/dense_{i}/{k}"] for k in ("kernel", "bias")}
            for i in range(3)
        }

    return {
        "corrector": {
            "rank_embedding": file["rank_embedding"],
            "rank_weight_net": net("rank_weight_net"),
        },
        "margin": {
            "class_embedding": file["class_embedding"],
            "margin_net": net("margin_generator"),
        },
    }


@pytest.mark.golden
def test_golden(golden, x64):
    file = dict(np.load(golden("dynamic_loss.npz")))
    phi = golden_phi(file)
    num_ranks, hidden = file["rank_embedding"].shape
    num_classes = file["logits"].shape[1]
    objective = dynamic_loss(num_classes, num_ranks, hidden)
    batch = {k: jnp.asarray(file[k]) for k in ("labels", "rank", "pseudo_labels")}
    soft = batch | {"pseudo_labels": jax.nn.softmax(file["logits"])}
    for actual, name in (
        (objective.rank_weights(phi), "rank_weight_per_class"),
        (objective.margins(phi), "margin"),
        (objective.corrected_labels(phi, batch), "corrected_labels_hard"),
        (objective.corrected_labels(phi, soft), "corrected_labels_warmup"),
    ):
        np.testing.assert_allclose(actual, file[name], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        LabelCorrector(num_classes, num_ranks, hidden).apply({"params": phi["corrector"]}),
        file["rank_weight_per_class"],
        rtol=1e-10,
    )
    np.testing.assert_allclose(
        MarginGenerator(num_classes, hidden).apply({"params": phi["margin"]}),
        file["margin"],
        rtol=1e-10,
    )


def test_loss_is_the_base_loss_of_margined_logits_and_corrected_labels(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    target = objective.corrected_labels(phi, batch)
    expected = -jnp.sum(target * jax.nn.log_softmax(logits + objective.margins(phi)[None]), -1)
    np.testing.assert_allclose(objective.loss(phi, logits, batch), expected, rtol=1e-5)


def test_any_base_loss(batch, logits):
    objective = dynamic_loss(K, R, 8, base_loss=losses.mean_absolute_error, margin=False)
    phi = jax.jit(objective.init)(jax.random.key(0))
    expected = losses.mean_absolute_error(logits, objective.corrected_labels(phi, batch))
    np.testing.assert_allclose(objective.loss(phi, logits, batch), expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_every_loss_takes_corrected_labels_and_margins(batch, logits, name):
    """Also those that the method refuses for want of epoch or key, where they are bound."""
    bound = functools.partial(losses.get(name), **losses.at_epoch(name, {}, 3, 4))
    if "class_counts" in losses.needs(name):
        bound = functools.partial(bound, class_counts=jnp.arange(1.0, K + 1))
    if "key" in losses.needs(name):
        bound = functools.partial(bound, key=jax.random.key(0))
    if name == "bi_tempered":
        bound = functools.partial(bound, num_iters=1)
    objective, phi = dynamic_loss(K, R, 8, base_loss=bound), PHI()
    target = objective.corrected_labels(phi, batch)
    expected = bound(logits + objective.margins(phi)[None], target)
    np.testing.assert_allclose(objective.loss(phi, logits, batch), expected, rtol=1e-5)


def test_initial_scales_are_xaviers_uniform_for_embeddings_and_normal_for_kernels():
    objective = dynamic_loss(10)
    phi = jax.jit(objective.init)(jax.random.key(0))
    for part, name, fans, net in (
        ("corrector", "rank_embedding", 100 + 64, "rank_weight_net"),
        ("margin", "class_embedding", 1 + 64, "margin_net"),
    ):
        embedding, bound = np.asarray(phi[part][name]), np.sqrt(6 / fans)
        assert np.abs(embedding).max() <= bound < 1.05 * np.abs(embedding).max()
        np.testing.assert_allclose(embedding.std(), bound / np.sqrt(3), rtol=0.15)
        for i, outputs in enumerate((64, 64, 10)):
            kernel = np.asarray(phi[part][net][f"dense_{i}"]["kernel"])
            deviation = np.sqrt(2 / (64 + outputs))
            assert kernel.shape == (64, outputs)
            np.testing.assert_allclose(kernel.std(), deviation, rtol=0.06)
            # Beyond what uniform numbers of this deviation reach.
            assert 2.2 * deviation < np.abs(kernel).max()
            bias = np.asarray(phi[part][net][f"dense_{i}"]["bias"])
            last = {"corrector": 3.98, "margin": 1.0}[part]
            np.testing.assert_array_equal(bias, np.full(outputs, np.float32(last * (i == 2))))


def test_starts_by_trusting_labels_and_with_margins_near_one():
    objective = dynamic_loss(10)
    phi = jax.jit(objective.init)(jax.random.key(0))
    g, m = objective.rank_weights(phi), objective.margins(phi)
    assert g.shape == (100, 10) and m.shape == (10,)
    np.testing.assert_allclose(g, jax.nn.sigmoid(3.98), atol=0.03)
    np.testing.assert_allclose(m, 1.0, atol=1.5)
    assert phi["margin"]["margin_net"]["dense_0"]["kernel"].shape == (64, 64)
    np.testing.assert_array_equal(phi["margin"]["margin_net"]["dense_2"]["bias"], 1.0)


def test_shared_weight_is_the_same_for_all_classes():
    objective = dynamic_loss(K, R, 8, shared_weight=True)
    g = objective.rank_weights(jax.jit(objective.init)(jax.random.key(0)))
    assert g.shape == (R, K)
    np.testing.assert_array_equal(g, jnp.broadcast_to(g[:, :1], (R, K)))


def test_without_corrector_the_given_label_is_the_target(batch, logits):
    objective = dynamic_loss(K, R, 8, corrector=False)
    phi = jax.jit(objective.init)(jax.random.key(0))
    assert objective.observe is None and objective.weights is None and set(phi) == {"margin"}
    expected = losses.cross_entropy(logits + objective.margins(phi)[None], batch["labels"])
    np.testing.assert_array_equal(objective.loss(phi, logits, batch), expected)
    np.testing.assert_array_equal(objective.rank_weights(phi), np.ones((R, K)))


def test_without_margin_nothing_is_added(batch, logits):
    objective = dynamic_loss(K, R, 8, margin=False)
    phi = jax.jit(objective.init)(jax.random.key(0))
    assert set(phi) == {"corrector"}
    np.testing.assert_array_equal(objective.margins(phi), np.zeros(K))
    expected = losses.cross_entropy(logits, objective.corrected_labels(phi, batch))
    np.testing.assert_array_equal(objective.loss(phi, logits, batch), expected)


def test_weights_are_read_at_rank_and_given_label(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    g = objective.rank_weights(phi)
    expected = [g[r, c] for r, c in zip(batch["rank"], batch["labels"], strict=True)]
    np.testing.assert_array_equal(objective.weights(phi, logits, batch), np.stack(expected))


def test_fitting_loss_uses_the_soft_prediction_and_moves_only_the_corrector(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    w = objective.weights(phi, logits, batch)
    p = jax.nn.softmax(logits)[jnp.arange(B), batch["labels"]]
    expected = -jnp.log(w + (1 - w) * p + 1e-8)
    np.testing.assert_allclose(objective.fitting_loss(phi, logits, batch), expected, rtol=1e-5)
    grads = jax.grad(lambda f, z: objective.fitting_loss(f, z, batch).sum(), (0, 1))(phi, logits)
    assert all(not np.any(g) for g in jax.tree.leaves(grads[0]["margin"]))
    assert np.any(grads[0]["corrector"]["rank_embedding"]) and not np.any(grads[1])


def test_margin_loss_takes_the_given_labels(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    expected = losses.cross_entropy(logits + objective.margins(phi)[None], batch["labels"])
    actual = objective.margin_loss(phi, logits, batch["labels"])
    np.testing.assert_array_equal(actual, expected)


def test_the_base_loss_reads_what_changes_from_the_batch(batch, logits):
    objective = dynamic_loss(K, R, 8, base_loss=losses.dynamics_aware, reads=("q", "lamb"))
    phi = jax.jit(objective.init)(jax.random.key(0))
    target, z = objective.corrected_labels(phi, batch), logits + objective.margins(phi)[None]
    for q, lamb in ((0.6, 0.0), (1.4, 0.5)):
        expected = losses.dynamics_aware(z, target, q=q, lamb=lamb)
        actual = objective.loss(phi, logits, batch | {"q": q, "lamb": lamb})
        np.testing.assert_array_equal(actual, expected)


def test_mixup_mixes_corrected_labels(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    partner, share = jnp.arange(B)[::-1], jnp.full((B,), 0.7)
    target = objective.corrected_labels(phi, batch)
    expected = objective.margin_loss(phi, logits, 0.7 * target + 0.3 * target[::-1])
    mixed = batch | {"mix_partner": partner, "mix_share": share}
    np.testing.assert_allclose(objective.loss(phi, logits, mixed), expected, rtol=1e-5)


def test_pseudo_labels_follow_the_softmax():
    z = jnp.broadcast_to(jnp.log(jnp.array([0.2, 0.5, 0.3])), (20_000, 3))
    drawn = sample_labels(jax.random.key(0), z)
    assert drawn.dtype == jnp.int32
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, [0.2, 0.5, 0.3], atol=0.02)


def test_a_pseudo_label_depends_on_the_example_not_on_its_place(batch, logits):
    key = jax.random.key(3)
    all_at_once = sample_labels(key, logits, batch["index"])
    backwards = sample_labels(key, logits[::-1], batch["index"][::-1])
    np.testing.assert_array_equal(all_at_once, backwards[::-1])
    alone = sample_labels(key, logits[4:5], batch["index"][4:5])
    np.testing.assert_array_equal(all_at_once[4:5], alone)


def test_observed_pseudo_labels_carry_no_gradient(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))

    def loss(z):
        seen = objective.observe(jax.random.key(1), z, batch)
        return objective.corrected_labels(phi, seen).sum() + 0 * z.sum()

    np.testing.assert_array_equal(jax.grad(loss)(logits), np.zeros((B, K)))


def test_a_masked_row_leaves_no_trace(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    where = jnp.arange(B) != 2
    masked = batch | {"where": where}

    def total(phi, z):
        return losses.mean(objective.loss(phi, z, masked), where=where)

    value, grads = jax.value_and_grad(total, (0, 1))(phi, logits.at[2].set(jnp.nan))
    expected = jax.value_and_grad(total, (0, 1))(phi, logits)
    for a, b in zip(jax.tree.leaves((value, grads)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_of_one(batch, logits):
    objective = dynamic_loss(K, R, 8)
    phi = jax.jit(objective.init)(jax.random.key(0))
    one = {k: v[:1] for k, v in batch.items()}
    expected = objective.loss(phi, logits, batch)[:1]
    np.testing.assert_allclose(objective.loss(phi, logits[:1], one), expected, rtol=1e-6)


@pytest.mark.parametrize("wrong", [dict(corrector=False, margin=False), dict(num_ranks=0)])
def test_wrong_use_is_told(wrong):
    with pytest.raises(UserError, match="dynamic_loss"):
        dynamic_loss(K, **wrong)


def test_fitting_without_a_corrector_is_told(batch, logits):
    objective = dynamic_loss(K, corrector=False)
    with pytest.raises(UserError, match="nothing to fit"):
        objective.fitting_loss(jax.jit(objective.init)(jax.random.key(0)), logits, batch)
