"""Mistakes that would leave every result plausible: one test for the meaning of each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import settings, train_until_killed
from sklearn.datasets import load_digits, load_iris

import jaxrobust
from jaxrobust import RobustClassifier, losses, networks
from jaxrobust.audit import find_label_issues
from jaxrobust.audit.scoring import against_truth
from jaxrobust.bilevel import make_bilevel
from jaxrobust.data import batches, label_noise, splits
from jaxrobust.data.examples import Examples, Source
from jaxrobust.data.prepare import prepare
from jaxrobust.errors import RunError
from jaxrobust.objectives import Objective
from jaxrobust.runs import build_method, experiment
from jaxrobust.training import checkpoints
from jaxrobust.training.metrics_log import read_rows


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


# Selection


def rows_of(workdir, name):
    return np.array([row[name] for row in read_rows(workdir / "metrics.jsonl")])


@pytest.fixture
def misleading(tmp_path):
    """Settings of a run on digits whose test labels are drawn by lot: the better the network, the
    higher its test loss. The learning rate rises at the third epoch: the last is not the best."""
    digits, rng = load_digits(), np.random.default_rng(0)
    x = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    np.savez(
        tmp_path / "d.npz",
        x=x[:1200],
        y=digits.target[:1200],
        x_test=x[1200:],
        y_test=rng.integers(0, 10, len(x) - 1200),
    )
    return settings(
        data__name="npz",
        data__path=str(tmp_path / "d.npz"),
        data__noise__rate=0.2,
        train__epochs=5,
        eval__select="negative_log_likelihood",
        augment__kind="none",
        optimizer__schedule="step",
        optimizer__milestones=(2,),
        optimizer__gamma=20.0,
    )


def test_the_epoch_of_the_smallest_validation_loss_is_selected_whatever_the_test_data_say(
    misleading, tmp_path
):
    found = jaxrobust.train(misleading, tmp_path / "w")
    validation, test = (
        rows_of(tmp_path / "w", f"{part}_negative_log_likelihood")
        for part in ("validation", "test")
    )
    assert validation.argmin() not in (0, 4, test.argmin(), test.argmax(), validation.argmax())
    assert found["selection_split"] == "validation"
    assert found["selected"]["epoch"] == validation.argmin() + 1


def test_a_resumed_run_remembers_the_best_epoch(misleading, tmp_path):
    train_until_killed(misleading, tmp_path / "w", lambda place: place["epoch"] == 4)
    found = jaxrobust.train(misleading, tmp_path / "w")
    validation = rows_of(tmp_path / "w", "validation_negative_log_likelihood")
    assert validation.argmin() < 3 and found["selected"]["epoch"] == validation.argmin() + 1


# Data


def test_normalization_is_measured_on_the_training_images_alone(tmp_path):
    """Test images are ten times as bright."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (80, 8, 8, 1)).astype(np.uint8)
    y = np.arange(80) % 2
    np.savez(tmp_path / "d.npz", x=x, y=y, x_test=x * 10, y_test=y)
    made = experiment.assemble(
        settings(data__name="npz", data__path=str(tmp_path / "d.npz"), train__batch_size=16)
    )
    images = np.asarray(made.data.train.x, np.float64) / 255
    np.testing.assert_allclose(made.scale[0], images.mean(), rtol=1e-5)
    np.testing.assert_allclose(made.scale[1], images.std(), rtol=1e-5)


def test_every_use_of_the_seed_has_a_key_of_its_own(monkeypatch):
    used, key_for = [], splits.key_for

    def recording(seed, purpose):
        used.append(tuple(np.asarray(jax.random.key_data(key_for(seed, purpose)))))
        return key_for(seed, purpose)

    monkeypatch.setattr(splits, "key_for", recording)
    labels = (np.arange(300) % 3).astype(np.int32)
    source = Source("s", Examples(np.zeros((300, 2)), labels), None, None, ("a", "b", "c"))
    prepare(
        source,
        seed=0,
        subset=240,
        noise_kind="symmetric",
        noise_rate=0.4,
        imbalance_kind="exponential",
        imbalance_factor=0.5,
        metadata_kind="noisy",
        metadata_per_class=3,
    )
    assert len(used) == len(set(used)) == 5


def test_instance_noise_mistakes_examples_alike_in_the_way_of_their_class():
    """Of two classes with the same features, one is not mistaken for what the other is."""
    n, direction = 8000, np.array([1.0, -1.0, 0.5, 2.0, -0.5, 1.5])
    side, true = np.arange(n) % 2, (np.arange(n) // 2) % 2
    x = np.where(side[:, None] == 1, direction, -direction).astype(np.float32)
    given = label_noise.instance_dependent(x, true, 0.5, 6, jax.random.key(0))
    shares = []
    for kind in (0, 1):
        among = given[(side == 1) & (true == kind) & (given > 1)]
        shares.append(np.bincount(among, minlength=6)[2:] / len(among))
    assert np.abs(shares[0] - shares[1]).sum() / 2 > 0.25


def test_metadata_come_in_another_order_in_every_round():
    rounds = np.asarray(batches.cycled(jax.random.key(0), jnp.arange(12), 12, 4)).reshape(4, 12)
    assert (np.sort(rounds, axis=1) == np.arange(12)).all()
    assert len({tuple(r) for r in rounds}) == 4


def remembering(outputs):
    """A network that keeps the examples of its last training step as they came into it."""

    def init(key, x):
        params = {"w": jnp.zeros((int(np.prod(x.shape[1:])), outputs))}
        return {"all": params}, {"all": {"seen": jnp.zeros(x.shape)}}

    def run(params, state, x, train, start=0, stop=None):
        logits = x.reshape(len(x), -1) @ params["all"]["w"]
        return logits, ({"all": {"seen": x}} if train else state)

    return networks.Network(init, lambda p, s, x, train: run(p, s, x, train), run, ("all",))


def seen_last(x, y, epochs, **options):
    model = RobustClassifier(
        network=remembering, loss="ce", epochs=epochs, random_state=0, **options
    ).fit(x, y)
    return np.asarray(model.batch_stats_["all"]["seen"])


def test_every_epoch_has_other_batches(iris):
    x, y = iris
    one, two = (seen_last(x, y, epochs, batch_size=30) for epochs in (1, 2))
    assert {tuple(row) for row in one} != {tuple(row) for row in two}


@pytest.mark.filterwarnings(r"ignore:[\s\S]*\[(collapsed|not_learned)\]")
def test_every_epoch_has_other_views():
    """All images are equal: what differs was drawn."""
    x = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (32, 1, 1, 1))
    one, two = (
        seen_last(x, np.arange(32) % 2, epochs, batch_size=32, augment="crop_flip")
        for epochs in (1, 2)
    )
    assert not np.array_equal(one, two)


# Networks


def test_evaluation_takes_the_running_statistics(iris):
    """An example's prediction does not depend on those beside it, or on whether others are."""
    x, y = iris
    model = RobustClassifier(network=normalizing, epochs=3, random_state=0).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(x)[:5], model.predict_proba(x[:5]), rtol=1e-4)
    made = experiment.assemble(settings(train__batch_size=64), network=normalizing(10))
    state = made.method.init(jax.random.key(0))
    shown = np.asarray(made.data.test.x)
    few, many = (made.forward(state.params, state.batch_stats, x) for x in (shown[:5], shown[:40]))
    np.testing.assert_allclose(few, many[:5], rtol=1e-4, atol=1e-6)


def normalizing(outputs):
    import flax.linen as nn

    class Normalizing(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(8)(x.reshape(x.shape[0], -1))
            return nn.Dense(outputs)(nn.BatchNorm(use_running_average=not train)(x))

    return networks.from_linen(Normalizing())


# Methods and bilevel step


def test_the_weights_of_curvenet_freeze_at_the_first_drop_of_the_learning_rate():
    config = settings(
        "digits_curvenet:ce", train__epochs=7, optimizer__milestones=(3, 5), method__probe_epochs=2
    )
    stages = experiment.assemble(config).method.stages
    assert [stage.epochs for stage in stages[-2:]] == [3, 4]


def test_weight_decay_of_the_weighing_net_enters_adams_gradient():
    """Without a gradient Adam then steps by the learning rate, whatever the parameter's size."""
    config = settings(
        "digits_curvenet:ce", method__meta_weight_decay=0.1, method__meta_learning_rate=0.01
    )
    optimizer, params = build_method._meta_optimizer(config), jnp.array([1.0, 100.0])
    updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.01, -0.01], rtol=1e-4)


def test_the_real_step_draws_its_pseudo_labels_again():
    """Both losses are taken at the same parameters: they differ by what was drawn."""

    def observe(key, logits, batch):
        return batch | {"drawn": jax.random.uniform(key, (len(logits),))}

    def loss(phi, logits, batch):
        return jnp.exp(phi) * batch["drawn"] * losses.cross_entropy(logits, batch["labels"])

    objective = Objective(
        lambda key: jnp.zeros(()), loss, observe, lambda phi, logits, batch: batch["drawn"]
    )
    bilevel = make_bilevel(
        lambda p, s, x, train: (x @ p, s), objective, optax.sgd(0.1), optax.sgd(0.0)
    )
    x, labels = jnp.eye(4), jnp.arange(4) % 3
    state = bilevel.init(jax.random.key(0), jnp.zeros((4, 3)))
    batch = {"x": x, "labels": labels}
    _, info = bilevel.step(state, batch, batch, jax.random.key(1))
    np.testing.assert_allclose(info.loss, np.log(3) * info.weights.mean(), rtol=1e-5)
    assert abs(float(info.inner_loss - info.loss)) > 0.01


@pytest.mark.parametrize("skip", [1, 2])
def test_as_many_stages_are_skipped_as_was_asked_for(skip):
    network, ran = networks.make("mlp", 3, hidden=(6, 5)), []

    def run(params, state, x, train, start=0, stop=None):
        ran.append((start, stop, train))
        return network.run(params, state, x, train, start, stop)

    objective = Objective(
        lambda key: jnp.zeros(3),
        lambda phi, logits, batch: phi[batch["labels"]] * logits.sum(-1),
    )
    bilevel = make_bilevel(
        network._replace(run=run), objective, optax.sgd(0.1), optax.sgd(0.1), skip=skip
    )
    batch = {"x": jnp.ones((4, 2)), "labels": jnp.arange(4) % 3}
    state = bilevel.init(jax.random.key(0), *network.init(jax.random.key(1), batch["x"]))
    ran.clear()
    jax.eval_shape(bilevel.step, state, batch, batch)
    assert {part for part in ran if part[:2] != (0, None)} == {(0, skip, False), (skip, None, True)}


# Checkpoints


def test_files_that_are_not_those_of_the_digest_are_refused(tmp_path, monkeypatch):
    """Every file can be read, but other bytes were digested than those that were written."""
    manager = checkpoints.Checkpoints(tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_hash", lambda path: 64 * "0")
        manager.save(1, {"w": jnp.arange(3.0)}, {"epoch": 1})
    with pytest.raises(RunError, match="can be read"):
        manager.restore({"w": jnp.zeros(3)})


# Estimator


def test_sample_weights_count_in_proportion(iris):
    x, y = iris
    weight = np.random.default_rng(0).uniform(0.1, 1, len(x))
    one, eight = (
        RobustClassifier(epochs=4, loss="ce", random_state=0).fit(x, y, weight * times)
        for times in (1, 8)
    )
    np.testing.assert_allclose(one.predict_proba(x), eight.predict_proba(x), rtol=1e-4)


def test_fewer_epochs_bring_the_milestones_forward(iris):
    model = RobustClassifier("curvenet", epochs=6)
    config = model._make_config(np.asarray(iris[0]), np.asarray(iris[1]))
    assert config.train.epochs == 6
    assert 0 < min(config.optimizer.milestones) and max(config.optimizer.milestones) < 6


@pytest.mark.filterwarnings(r"ignore:[\s\S]*\[not_learned\]")
def test_a_pixel_is_rounded_to_the_nearest_byte():
    x = (np.arange(64 * 40) % 251).reshape(40, 8, 8).astype(np.uint8)
    model = RobustClassifier(network="mlp", epochs=1, random_state=0).fit(x, np.arange(40) % 2)
    near = np.where(np.arange(64).reshape(8, 8) % 2, 0.4, -0.4)
    pixels = np.clip(x[:5].astype(float), 1, 250)
    np.testing.assert_array_equal(model.predict_proba(pixels + near), model.predict_proba(pixels))


# Audit


def test_the_true_noise_matrix_has_a_row_per_true_class():
    """Half of class 0 is given label 1, none of class 1 label 0."""
    true = np.repeat([0, 1], 60)
    given = np.where(np.arange(120) < 30, 1, true)
    issues = find_label_issues(given, probabilities=0.8 * np.eye(2)[true] + 0.1)
    found = against_truth(issues, true, {})
    np.testing.assert_allclose(found["noise_matrix"], [[0.5, 0.5], [0, 1]])
