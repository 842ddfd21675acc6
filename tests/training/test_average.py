"""The moving average of the weights: a hand-rolled loop, runs, resuming, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TINY, assert_same, settings, train_until_killed

import jaxrobust
from jaxrobust import config as configuration
from jaxrobust import main, networks
from jaxrobust.errors import UserError
from jaxrobust.methods import make_loss, supervised
from jaxrobust.runs import predict
from jaxrobust.runs.experiment import assemble
from jaxrobust.runs.fit import init_state
from jaxrobust.training import average
from jaxrobust.training.loop import Feed, Place, Runner
from jaxrobust.training.metrics_log import read_rows

DECAY = 0.9
EMA = TINY | {"train.ema": DECAY}


def plain(key, x):
    return x


def small_method(epochs=2):
    network = networks.make("small_cnn", 3, width=2)
    loss = make_loss("ce", {}, epochs=epochs, class_counts=jnp.ones(3))
    x = jax.random.normal(jax.random.key(3), (10, 4, 4, 1))
    method = supervised(
        network,
        loss,
        optax.sgd(0.1, momentum=0.9),
        plain,
        example=x[:4],
        num_examples=10,
        batch_size=4,
        epochs=epochs,
    )
    return method, Feed({"x": x, "labels": jnp.arange(10, dtype=jnp.int32) % 3})


@pytest.mark.parametrize("loop", ["epoch", "step"])
def test_it_equals_a_hand_rolled_loop_batch_statistics_as_well(loop):
    """The weights after every step are seen by the loop's own pause."""
    method, feed = small_method()
    states = []
    runner = Runner(method, feed, None, jax.random.key(0), loop="step")
    state, place = jax.jit(method.init)(jax.random.key(1)), Place()
    first = jax.device_get((state.params, state.network_state))
    for _ in range(2):
        state, _ = runner.epoch(
            state,
            place,
            lambda s, p: states.append(jax.device_get((s.params, s.network_state))),
        )
    assert len(states) == 6 and first[1]
    expected = first
    for weights in states:
        expected = jax.tree.map(lambda a, w: DECAY * a + (1 - DECAY) * w, expected, weights)

    runner = Runner(method, feed, None, jax.random.key(0), loop=loop, ema=DECAY)
    state, place = jax.jit(method.init)(jax.random.key(1)), Place()
    state = state._replace(average=average.start(state))
    for _ in range(2):
        state, _ = runner.epoch(state, place, lambda *_: None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        average.weights(state),
        expected,
    )


def test_decay_0_is_the_last_weights_and_whole_numbers_are_taken_over():
    method, _ = small_method()
    state = jax.jit(method.init)(jax.random.key(1))
    state = state._replace(network_state={"count": jnp.int32(1), **state.network_state})
    kept = average.start(state)
    after = state._replace(network_state=state.network_state | {"count": jnp.int32(5)})
    after = after._replace(params=jax.tree.map(lambda p: p + 1, state.params))
    assert_same(average.move(kept, after, 0.0)["params"], after.params)
    assert int(average.move(kept, after, 0.9)["network_state"]["count"]) == 5
    assert average.move({}, after, 0.9) == {}


def test_a_run_evaluates_it_next_to_the_last_weights(tmp_path):
    results = jaxrobust.train(settings(small=EMA), tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["ema_test_accuracy"] == results["ema"]["accuracy"]
    assert rows[-1]["test_accuracy"] == results["last"]["accuracy"]
    assert results["ema"]["negative_log_likelihood"] != results["last"]["negative_log_likelihood"]
    assert predict.evaluate(tmp_path, save=False)["ema"] == results["ema"]
    kept = predict.open_workdir(tmp_path)[1]["state"].average
    experiment = assemble(settings(small=EMA))
    x = np.asarray(experiment.data.test.x)[:7]
    p = jaxrobust.load(tmp_path, which="ema").predict_proba(x)
    logits = experiment.forward(kept["params"], kept["network_state"], jnp.asarray(x))
    np.testing.assert_allclose(p, jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)


def test_the_other_weights_train_as_without_it(tmp_path, gallery):
    jaxrobust.train(settings(small=EMA), tmp_path)
    with_it = predict.open_workdir(tmp_path)[1]["state"]
    without = predict.open_workdir(gallery(settings()))[1]["state"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        with_it.params,
        without.params,
    )


@pytest.mark.parametrize("recipe", ["digits_losses:ce", "digits_curvenet:ce"])
def test_killed_within_an_epoch_it_goes_on_bit_for_bit(tmp_path, recipe):
    """Also where a stage starts with a fresh network, with which the average starts anew."""
    small = EMA | {"train.loop": "step", "checkpoint.every_steps": 1, "train.batch_size": 400}
    small |= {"train.epochs": 2, "method.probe_epochs": 2, "method.meta_batch_size": 16}
    small |= {"optimizer.milestones": (1,)} if "curvenet" in recipe else {}
    made = settings(recipe, small=small)
    jaxrobust.train(made, tmp_path / "whole")
    train_until_killed(made, tmp_path / "killed", 5)
    jaxrobust.train(made, tmp_path / "killed")
    ends = [predict.open_workdir(tmp_path / name)[1]["state"] for name in ("whole", "killed")]
    assert_same(ends[0].average, ends[1].average)
    assert_same(ends[0].params, ends[1].params)
    start = init_state(assemble(made)).average["params"]
    leaves = zip(jax.tree.leaves(start), jax.tree.leaves(ends[0].average["params"]), strict=True)
    assert any(not np.array_equal(a, b) for a, b in leaves)


def test_four_devices_average_as_one_does(four_devices):
    one, four = four_devices("average")[0]
    np.testing.assert_allclose(four, one, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("value", ["1", "-0.1"])
def test_a_decay_out_of_range_is_one_line(value, capsys):
    command = ["main", "--config=digits_losses:ce", f"--config.train.ema={value}", "--workdir=w"]
    assert main.run(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "train.ema" in said and "[0, 1)" in said


@pytest.mark.parametrize(
    "name, value", [("train.ema", 0.9), ("train.mixup_alpha", 1.0), ("eval.label_wave", True)]
)
def test_where_no_network_trains_it_is_refused(name, value):
    made = configuration.load("table")
    made.update_from_flattened_dict({name: value})
    assert made.method.name == "blend"
    with pytest.raises(UserError, match=f"{name} is of a network's training.*Leave it out"):
        configuration.validate(made)


def test_the_estimator_predicts_with_it():
    x, labels = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    x[:, 0] += 3 * labels

    def fitted(**extra):
        model = jaxrobust.RobustClassifier(
            "supervised", loss="ce", epochs=3, random_state=0, settings=extra
        )
        return model.fit(x.astype(np.float32), labels)

    plain_model, averaged = fitted(), fitted(**{"train.ema": 0.99})
    assert not np.allclose(averaged.predict_proba(x[:5]), plain_model.predict_proba(x[:5]))
