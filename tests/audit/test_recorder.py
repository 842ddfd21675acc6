"""The recorder: equal to the trainer's sums, bounded in memory, in anyone's loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.audit import Recorder, find_label_issues
from jaxrobust.audit.scoring import auroc
from jaxrobust.errors import UserError
from jaxrobust.training import dynamics


def predictions(epochs, n, k, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), (epochs, n)).astype(np.float32)


@pytest.mark.parametrize("epochs", [1, 3, 8, 50])
def test_with_known_epochs_it_equals_what_the_trainer_gathers(epochs):
    n, k = 7, 3
    p, labels = predictions(epochs, n, k), np.arange(n) % k
    s, parts = dynamics.parts(n, k, epochs)
    sums = {
        "count": jnp.zeros((n, s)),
        "loss": jnp.zeros((n, s)),
        "probability": jnp.zeros((n, parts, k)),
    }
    recorder = Recorder(n, k, epochs=epochs)
    for epoch in range(epochs):
        for rows in (np.arange(4), np.arange(4, n)):
            batch = {"index": rows, "where": np.ones(len(rows), bool), "labels": labels[rows]}
            sums = dynamics.add(sums, batch, jnp.log(p[epoch, rows]), epoch * s // epochs)
            recorder.update(rows, np.log(p[epoch, rows]))
    count = np.asarray(sums["count"])
    last = dynamics.ends(s, parts)
    expected = np.cumsum(sums["probability"], 1) / np.cumsum(count, 1)[:, last - 1, None]
    np.testing.assert_allclose(recorder.probabilities, expected, rtol=1e-5)


def test_without_known_epochs_the_parts_are_means_over_beginnings_and_memory_stays():
    n, k, epochs = 5, 4, 100
    p, recorder = predictions(epochs, n, k), Recorder(5, 4)
    size = recorder._sum.nbytes
    for epoch in range(epochs):
        recorder.update(np.arange(n), p[epoch])
    assert recorder._sum.nbytes == size
    found = recorder.probabilities
    np.testing.assert_allclose(found[:, -1], p.mean(0), rtol=1e-5)
    lengths = [
        next(e for e in range(1, epochs + 1) if np.allclose(found[:, i], p[:e].mean(0), rtol=1e-5))
        for i in range(found.shape[1])
    ]
    assert lengths == sorted(lengths) and lengths[0] <= epochs // 4 and lengths[-1] == epochs


def test_logits_probabilities_and_other_frameworks_are_recognized():
    p = predictions(1, 4, 3)[0]
    expected = Recorder(4, 3)
    expected.update(range(4), p)
    for values in (np.log(p), jnp.log(jnp.asarray(p)), p.tolist(), p.round(2)):
        recorder = Recorder(4, 3)
        recorder.update(range(4), values)
        np.testing.assert_allclose(recorder.probabilities, expected.probabilities, atol=0.02)
    half = Recorder(4, 3)
    half.update(range(4), jnp.log(jnp.asarray(p)).astype(jnp.bfloat16))
    np.testing.assert_allclose(half.probabilities, expected.probabilities, atol=0.02)


def test_torch_tensors_are_detached():
    torch = pytest.importorskip("torch")
    p = predictions(1, 4, 3)[0]
    recorder = Recorder(4, 3)
    logits = torch.tensor(np.log(p), requires_grad=True) * 1.0
    recorder.update(torch.arange(4), logits)
    np.testing.assert_allclose(recorder.probabilities[:, 0], p, rtol=1e-5)


def test_what_was_never_recorded_is_unknown():
    recorder = Recorder(3, 2)
    recorder.update([0, 2], [[0.5, 0.5], [1.0, 0.0]])
    found = recorder.probabilities
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize(
    "index, values, says",
    [
        ([0, 1], [[0.5, 0.5]], "a row per index"),
        ([5], [[0.5, 0.5]], "index 5 is outside 0 to 2"),
        ([-1], [[0.5, 0.5]], "index -1 is outside"),
        ([0], [[np.nan, 0.5]], "NaN"),
        ([0, 1], [[0.5, 0.5], [0.3, 0.3]], "logits=True or False"),
    ],
)
def test_a_wrong_update_is_one_line(index, values, says):
    with pytest.raises(UserError, match=says) as error:
        Recorder(3, 2).update(index, values)
    assert "\n" not in str(error.value)


def test_an_empty_recorder_says_what_to_call():
    with pytest.raises(UserError, match="update"):
        _ = Recorder(3, 2).probabilities


def test_partial_fit_of_scikit_learn_finds_wrong_labels():
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(true)) < 0.2
    labels = np.where(wrong, (true + rng.integers(1, 10, len(true))) % 10, true)
    model = MLPClassifier((32,), random_state=0, learning_rate_init=0.01)
    recorder = Recorder(len(x), 10)
    for _ in range(6):
        model.partial_fit(x / 16, labels, classes=np.arange(10))
        recorder.update(np.arange(len(x)), model.predict_proba(x / 16))
    given = recorder.probabilities[:, -1][np.arange(len(x)), labels]
    assert auroc(~wrong, given) > 0.97


def test_find_label_issues_takes_a_recorder():
    true = np.arange(400) % 4
    wrong = np.arange(400) % 10 == 0
    labels, recorder = np.where(wrong, (true + 1) % 4, true), Recorder(400, 4)
    rng = np.random.default_rng(0)
    for epoch in range(8):  # Learns the truth first, then the wrong labels too.
        trust = 0.9 if epoch > 4 else 0.0
        p = 0.7 * (trust * np.eye(4)[labels] + (1 - trust) * np.eye(4)[true]) + 0.3 / 4
        p += 0.02 * rng.random(p.shape)
        recorder.update(np.arange(400), p / p.sum(1, keepdims=True))
    found = find_label_issues(labels, recorder=recorder)
    assert set(found.indices) == set(np.flatnonzero(wrong)) and list(found.scores) == ["dynamics"]
    same = find_label_issues(labels, training_probabilities=recorder.probabilities)
    np.testing.assert_array_equal(found.label_score, same.label_score)
    assert found != same and found == found  # Compared by identity: no array is asked for truth.
