"""Agreement with consistency: the selection by hand, stages, two networks, resuming, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TINY, assert_same, settings, train_until_killed

import jaxrobust
from jaxrobust import main, networks
from jaxrobust.data import batches
from jaxrobust.errors import UserError
from jaxrobust.methods import Consistency, agreement, make_loss
from jaxrobust.methods._agreement import aligned, targets
from jaxrobust.runs import predict
from jaxrobust.runs.experiment import assemble
from jaxrobust.training.metrics_log import read_rows

AGREEMENT = TINY | {
    "method.name": "agreement",
    "method.warmup_epochs": 2,
    "method.consistency_from": 4,
    "method.average_decay": 0.5,
    "train.epochs": 6,
}


def plain(key, x):
    return x


def method(count=1, **options):
    network = networks.make("small_cnn", 3, width=2)
    x = jax.random.normal(jax.random.key(3), (8, 4, 4, 1))
    labels = jnp.arange(8, dtype=jnp.int32) % 3
    made = agreement(
        network,
        make_loss("ce", {}, epochs=3, class_counts=jnp.array([3, 3, 2])),
        optax.sgd(0.1, momentum=0.9),
        plain,
        plain,
        example=x,
        num_examples=8,
        num_classes=3,
        batch_size=8,
        epochs=3,
        warmup_epochs=1,
        first_epochs=2,
        networks=count,
        **options,
    )
    return network, made, batches.take({"x": x, "labels": labels}, jnp.arange(8))


def test_a_class_predicted_too_often_must_be_predicted_more_surely():
    p = jnp.array([[0.6, 0.4], [0.9, 0.1]])
    q = aligned(p, jnp.array([0.75, 0.25]))
    np.testing.assert_allclose(q, [[0.8 / 2.4, 1.6 / 2.4], [0.75, 0.25]], rtol=1e-6)


def test_who_trains_on_what():
    q = jnp.array([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    given = jnp.array([0, 0, 0])
    settings = Consistency(confidence=0.8, weight=0.5)
    labels, weight, selected = targets(q, given, settings, jnp.bool_(False), second=False)
    assert weight.tolist() == [1, 0, 0] and selected.tolist() == [True, False, False]
    labels, weight, selected = targets(q, given, settings, jnp.bool_(False), second=True)
    assert labels.tolist() == [0, 1, 1] and weight.tolist() == [1, 0, 0.5]
    labels, weight, selected = targets(q, given, settings, jnp.bool_(True), second=True)
    assert labels.tolist() == [0, 0, 0] and weight.tolist() == [1, 1, 1]


def test_one_step_of_the_first_stage_by_hand():
    network, made, batch = method(settings=Consistency(average=0.9, marginal=0.5))
    state = made.init(jax.random.key(1))._replace(step=jnp.int32(1000))
    teacher = state.memory["teacher"]
    p = np.asarray(jax.nn.softmax(network.apply(*teacher, batch["x"], False)[0]))
    marginal = 0.5 / 3 + 0.5 * p.mean(0)
    q = p / marginal
    q /= q.sum(1, keepdims=True)
    selected = q.argmax(1) == np.asarray(batch["labels"])
    assert 0 < selected.sum() < 8

    def loss(params):
        logits, _ = network.apply(params, state.network_state, batch["x"], True)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return jnp.sum(jnp.where(selected, value, 0)) / 8

    grads = jax.grad(loss)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    step = made.stages[0].passes[0].step
    after, info = step(state, batch, None, jax.random.key(5), jnp.int32(1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected
    )
    np.testing.assert_allclose(after.memory["marginal"][0], marginal, rtol=1e-5)
    np.testing.assert_allclose(info.scalars["selected"], selected.mean(), rtol=1e-6)
    np.testing.assert_allclose(after.memory["agreement"], np.where(selected, 1, 0.5))
    moved = jax.tree.map(
        lambda a, w: 0.9 * a + 0.1 * w, teacher, (after.params, after.network_state)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        after.memory["teacher"],
        moved,
    )
    warm, info = step(state, batch, None, jax.random.key(5), jnp.int32(0))
    assert info.scalars["selected"] == 1


def test_each_of_two_networks_learns_from_the_selection_of_the_other():
    network, made, batch = method(2, settings=Consistency(average=0.9, marginal=0.0))
    state = made.init(jax.random.key(1))._replace(step=jnp.int32(1000))
    first, second = state.params, state.memory["second"][0]
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), first, second)
    assert not all(jax.tree.leaves(same))
    # An average that is sure of class 0 everywhere, with m = p: q is flat, its argmax is class 0.
    sure = jax.tree.map(jnp.zeros_like, state.memory["teacher"][0])
    memory = state.memory | {"teacher": (sure, state.memory["teacher"][1])}
    step = made.stages[0].passes[0].step
    after, info = step(state._replace(memory=memory), batch, None, jax.random.key(5), jnp.int32(1))

    def loss(params, stats, chosen):
        logits, _ = network.apply(params, stats, batch["x"], True)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return jnp.sum(jnp.where(chosen, value, 0)) / 8

    by_first = np.asarray(batch["labels"]) == 0
    params, stats, _ = state.memory["second"]
    expected = jax.tree.map(
        lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, stats, by_first)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after.memory["second"][0],
        expected,
    )


@pytest.mark.parametrize("count", [1, 2])
def test_it_selects_the_right_labels_and_beats_cross_entropy_on_the_digits(tmp_path, count):
    small = {"method.networks": count, "train.epochs": 20, "method.consistency_from": 12}
    small |= {"method.average_decay": 0.9, "method.warmup_epochs": 4, "network.width": 128}
    jaxrobust.train(settings(small=AGREEMENT | small), tmp_path / "a")
    plain = {"method.name": "supervised"}
    jaxrobust.train(settings(small=AGREEMENT | small | plain), tmp_path / "ce")
    rows = {name: read_rows(tmp_path / name / "metrics.jsonl")[-1] for name in ("a", "ce")}
    assert rows["a"]["weight_auroc"] > 0.9
    assert rows["a"]["test_accuracy"] > rows["ce"]["test_accuracy"] + 0.03
    assert rows["a"]["train_used"] > rows["a"]["train_selected"] > 0.4


@pytest.mark.parametrize("count, mixup", [(1, 1.0), (2, None)])
def test_killed_within_an_epoch_it_goes_on_bit_for_bit(tmp_path, count, mixup):
    small = {"method.networks": count, "train.loop": "step", "checkpoint.every_steps": 1}
    small |= {"train.batch_size": 400, "train.epochs": 3, "method.consistency_from": 2}
    small |= {"method.warmup_epochs": 1, "train.mixup_alpha": mixup}
    made = settings(small=AGREEMENT | small)
    jaxrobust.train(made, tmp_path / "whole")
    train_until_killed(made, tmp_path / "killed", 5)
    jaxrobust.train(made, tmp_path / "killed")
    ends = [predict.open_workdir(tmp_path / name)[1]["state"] for name in ("whole", "killed")]
    assert_same(ends[0].params, ends[1].params)
    assert_same(ends[0].memory, ends[1].memory)


def test_average_and_marginal_follow_from_the_first_step_on():
    """In step t the decay is at most 1 - 1/t: the first step takes the network as it is."""
    _, made, batch = method(settings=Consistency(average=0.99, marginal=0.99))
    state, weights = made.init(jax.random.key(1)), []
    step = jax.jit(made.stages[0].passes[0].step)
    for _ in range(3):
        state, _ = step(state, batch, None, jax.random.key(5), jnp.int32(0))
        weights.append(state.params)
    mean = jax.tree.map(lambda *w: sum(w) / 3, *weights)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        state.memory["teacher"][0],
        mean,
    )


def test_extreme_images_give_finite_steps_and_rows_that_fill_up_count_nothing():
    network, made, batch = method(2, mixup_alpha=None)
    state = made.init(jax.random.key(1))._replace(step=jnp.int32(1000))
    step = jax.jit(made.stages[1].passes[0].step)
    huge = batch | {"x": 1e4 * batch["x"]}
    after, info = step(state, huge, None, jax.random.key(5), jnp.int32(2))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((after, info)))
    where = jnp.arange(8) < 5
    padded = batch | {"where": where, "index": jnp.array([0, 1, 2, 3, 4, 0, 1, 2])}
    other = padded | {"labels": jnp.where(where, batch["labels"], 2)}
    ends = [step(state, b, None, jax.random.key(5), jnp.int32(1))[0] for b in (padded, other)]
    assert_same(ends[0].memory["agreement"], ends[1].memory["agreement"])
    assert (ends[0].memory["agreement"][5:] == 1).all()


def test_four_devices_train_as_one_does(four_devices):
    one, four = four_devices("agreement")[0]
    np.testing.assert_allclose(four, one, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize(
    "more, said",
    [
        ({"method.consistency_from": 9}, "consistency_from=9 and train.epochs=6 must not"),
        ({"method.warmup_epochs": 5}, "warmup_epochs=5, method.consistency_from=4"),
        ({"loss.name": "elr"}, "loss.name=elr has a memory"),
        ({"train.drop_last": True}, "train.drop_last is for method.name=supervised"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more, said):
    with pytest.raises(UserError, match=said):
        assemble(settings(small=AGREEMENT | more))


def test_a_third_network_is_one_line(capsys):
    command = ["main", "--config=digits_losses:ce", "--config.method.networks=3", "--workdir=w"]
    assert main.run(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "method.networks=3: must be in [1, 2]" in said


def test_the_estimator_takes_it_and_trusts_the_right_labels_more():
    rng = np.random.default_rng(0)
    true = np.arange(300) % 3
    x = rng.normal(size=(300, 5)).astype(np.float32)
    x[np.arange(300), true] += 4
    wrong = rng.random(300) < 0.3
    given = np.where(wrong, (true + rng.integers(1, 3, 300)) % 3, true)
    model = jaxrobust.RobustClassifier("agreement", epochs=20, random_state=0).fit(x, given)
    assert (model.predict(x) == true).mean() > 0.9
    assert model.sample_weight_[~wrong].mean() > model.sample_weight_[wrong].mean() + 0.3
