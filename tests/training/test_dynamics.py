"""What is recorded of each example is what the steps showed; recording changes no training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.data import batches
from jaxrobust.methods import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.training import dynamics
from jaxrobust.training.dynamics import gathered
from jaxrobust.training.loop import Feed, Place, Runner

N, K, EPOCHS, BATCH = 10, 3, 8, 4  # the last batch of an epoch is filled up with two examples


def logits_of(index, epoch):
    return jnp.sin(index[:, None] * 3.0 + jnp.arange(K)[None] * 2.0 + epoch) * 4


def method():
    """One whose logits are known: they depend on the example and the epoch only."""

    def init(key):
        del key
        return TrainState(jnp.int32(0), {}, {}, {}, {}, {}, {"own": jnp.float32(0)}, {})

    def step(state, batch, meta_batch, key, epoch):
        memory = {"own": state.memory["own"] + 1}
        logits = logits_of(batch["index"], epoch)
        loss = {"loss": jnp.float32(0) + state.memory["own"]}
        return state._replace(step=state.step + 1, memory=memory), StepInfo(logits, loss)

    def order(state, key, epoch):
        return batches.shuffled(key, jnp.arange(N, dtype=jnp.int32), BATCH)

    def prepare(state, logits, key, epoch):
        return state._replace(memory={"own": state.memory["own"] + 100})

    return Method(init, (Stage("a", EPOCHS, (Pass("train", step, order, prepare),)),))


def fresh():
    return method().init(jax.random.key(0))._replace(dynamics=dynamics.empty(N, K, EPOCHS))


@pytest.mark.parametrize("loop", ["epoch", "step"])
def test_means_over_the_parts_of_the_training(loop):
    labels = np.arange(N) % K
    feed = Feed({"labels": jnp.asarray(labels), "x": jnp.zeros((N, 2))})
    runner = Runner(method(), feed, lambda *a: None, jax.random.key(0), loop=loop)
    state, place = fresh(), Place()
    for _ in range(EPOCHS):
        state, _ = runner.epoch(state, place, lambda *_: None)
    z = np.stack([logits_of(jnp.arange(N), e) for e in range(EPOCHS)], 1)
    log_p = np.asarray(jax.nn.log_softmax(z))
    found = gathered(state)
    assert found.curves.shape == (N, EPOCHS) and found.probabilities.shape == (N, 4, K)
    np.testing.assert_allclose(found.curves, -log_p[np.arange(N), :, labels], rtol=1e-5)
    for part, end in enumerate([1, 2, 4, 8]):
        expected = np.exp(log_p)[:, :end].mean(1)
        np.testing.assert_allclose(found.probabilities[:, part], expected, rtol=1e-5)
    assert float(state.memory["own"]) == EPOCHS * (3 + 100)


@pytest.mark.parametrize(
    "s, p, expected",
    [
        (32, 4, [4, 8, 16, 32]),
        (12, 4, [1, 3, 6, 12]),
        (4, 4, [1, 2, 3, 4]),
        (13, 1, [13]),
        (2, 2, [1, 2]),
    ],
)
def test_parts_of_the_predictions_double(s, p, expected):
    assert dynamics.ends(s, p).tolist() == expected


def test_examples_not_met_are_nan():
    state = fresh()
    batch = {
        "index": jnp.array([1, 2]),
        "where": jnp.array([True, False]),
        "labels": jnp.array([0, 1]),
    }
    added = dynamics.add(state.dynamics, batch, jnp.zeros((2, K)), jnp.int32(0))
    found = gathered(state._replace(dynamics=added))
    np.testing.assert_allclose(found.curves[1, 0], np.log(K), rtol=1e-6)
    np.testing.assert_allclose(found.probabilities[1, 0], 1 / K, rtol=1e-6)
    assert np.isnan(found.curves[2]).all() and np.isnan(found.probabilities[[0, 2]]).all()
    assert np.isnan(found.curves[1, 1:]).all()


def test_without_sums_nothing_is_recorded_and_the_training_is_the_same():
    ends = []
    for start in (fresh(), fresh()._replace(dynamics={})):
        feed = Feed({"labels": jnp.arange(N) % K, "x": jnp.zeros((N, 2))})
        runner = Runner(method(), feed, lambda *a: None, jax.random.key(0), loop="epoch")
        state, row = runner.epoch(start, Place(), lambda *_: None)
        ends.append((state.memory["own"], row))
    assert ends[0] == ends[1] and state.dynamics == {}


def test_a_stage_that_starts_anew_keeps_what_was_recorded():
    made = method()
    stage = made.stages[0]._replace(epochs=4)
    again = stage._replace(name="b", start=lambda state, key: made.init(key))
    feed = Feed({"labels": jnp.arange(N) % K, "x": jnp.zeros((N, 2))})
    two = made._replace(stages=(stage, again))
    runner = Runner(two, feed, lambda *a: None, jax.random.key(0), loop="epoch")
    state, place = fresh(), Place()
    for _ in range(EPOCHS):
        state, _ = runner.epoch(state, place, lambda *_: None)
    assert np.isfinite(gathered(state).curves).all() and int(state.step) == 4 * 3


@pytest.mark.parametrize(
    "n, k, epochs, expected",
    [
        (50_000, 10, 200, (32, 4)),
        (50_000, 100, 200, (32, 1)),
        (100, 10, 1, (1, 1)),
        (100, 10, 3, (2, 2)),
        (65_000, 50, 250, (32, 2)),
        (1_281_167, 1000, 90, (13, 0)),
    ],
)
def test_parts_are_fewer_where_there_are_more_examples(n, k, epochs, expected):
    assert dynamics.parts(n, k, epochs) == expected
