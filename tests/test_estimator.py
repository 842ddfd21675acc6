"""`RobustClassifier`: what scikit-learn asks of an estimator, and what ours adds to it."""

import datetime
import pickle
import re
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from jaxrobust import RobustClassifier, losses, networks
from jaxrobust.audit import find_label_issues
from jaxrobust.data import statistics
from jaxrobust.errors import UserError

QUICK = {"train.xla_options": ("xla_backend_optimization_level=0",)}
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "Batches are drawn at random: a row twice and "
    "a row of weight two give the same gradient on average, not in every step.",
    "check_sample_weight_equivalence_on_sparse_data": "The same.",
}


class Small(nn.Module):
    """A user's own module."""

    outputs: int = 10

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.outputs)(nn.BatchNorm(use_running_average=not train)(x))


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def digits():
    """300 images of four kinds, float 0 ... 16, with names for labels."""
    data = load_digits(n_class=4)
    names = np.array(["zero", "one", "two", "three"])
    return data.images[:300], names[data.target[:300]]


def small(**changes):
    return RobustClassifier(**{"epochs": 15, "random_state": 0, "settings": QUICK} | changes)


@pytest.mark.slow
# scikit-learn's labels drawn at random cannot be learned, which the estimator says.
@pytest.mark.filterwarnings(r"ignore:[\s\S]*\[(not_learned|never_predicted|below_majority)\]")
def test_scikit_learn_accepts_it():
    found = check_estimator(
        small(epochs=8), expected_failed_checks=EXPECTED_FAILURES, on_fail="raise", on_skip=None
    )
    passed = {check["check_name"] for check in found if check["status"] == "passed"}
    assert len(passed) > 40
    assert {c["check_name"] for c in found if c["status"] == "xfail"} == set(EXPECTED_FAILURES)


def test_the_documentation_lists_the_checks_that_fail_with_their_reasons():
    page = (Path(__file__).parents[1] / "docs" / "estimator.md").read_text()
    listed = re.findall(r"^\| `(check_\w+)` \| (.*) \|$", page, re.M)
    assert dict(listed) == EXPECTED_FAILURES


def test_images_and_names_of_classes(digits):
    X, y = digits
    model = small(network="mlp", epochs=30).fit(X, y)
    assert model.classes_.tolist() == ["one", "three", "two", "zero"]
    assert model.n_features_in_ == 64
    p = model.predict_proba(X)
    assert p.shape == (300, 4) and p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(1)])
    assert model.score(X, y) > 0.95
    assert model.label_issues_.num_issues < 0.02 * 300  # no label is wrong
    with_channel = model.predict_proba(X[..., None])
    np.testing.assert_array_equal(with_channel, p)


def test_pixels_mean_what_they_meant_in_fit(digits):
    X, y = digits
    of_bytes = small(network="mlp", epochs=2).fit(np.round(X * 15), y)
    dark = np.zeros((1, 8, 8)) + (np.arange(8) == 3)  # 0 and 1 of 255
    np.testing.assert_array_equal(
        of_bytes.predict_proba(dark), of_bytes.predict_proba(dark.astype(np.uint8))
    )
    of_shares = small(network="mlp", epochs=2).fit(X / 16, y)
    np.testing.assert_array_equal(
        of_shares.predict_proba(X / 16),
        of_shares.predict_proba(np.round(X / 16 * 255).astype(np.uint8)),
    )
    with pytest.raises(UserError, match=r"shape \[8, 4, 1\]"):
        of_bytes.predict(X[:, :, :4])
    with pytest.raises(UserError, match=r"\[0, 255\] or \[0, 1\]"):
        of_bytes.predict(-X)
    with pytest.raises(UserError, match="NaN"):
        small().fit(np.where(X > 15, np.nan, X), y)


def test_it_says_which_labels_are_wrong(digits):
    X, y = digits
    wrong = np.random.default_rng(0).random(300) < 0.2
    following = dict(
        zip(["zero", "one", "two", "three"], ["one", "two", "three", "zero"], strict=True)
    )
    given = np.where(wrong, [following[name] for name in y], y)
    model = small(network="mlp", epochs=20).fit(X, given)
    issues = model.label_issues_
    assert roc_auc_score(wrong, -issues.label_score) > 0.95
    assert wrong[issues.indices[:20]].all()
    assert issues.class_names == tuple(model.classes_)
    assert model.sample_weight_[wrong].mean() < model.sample_weight_[~wrong].mean()
    np.testing.assert_allclose(model.noise_matrix_.sum(1), 1)
    assert 0.1 < issues.noise_rate < 0.3


def test_noise_hurts_cross_entropy_more_than_a_robust_loss(digits):
    X, y = digits
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(300) < 0.5, rng.permutation(y), y)
    score = {
        loss: small(network="mlp", epochs=60, loss=loss).fit(X, noisy).score(X, y)
        for loss in ("ce", "gce")
    }
    assert score["gce"] > score["ce"] + 0.05


def test_it_works_in_pipelines_searches_and_pickles(iris):
    X, y = iris
    pipe = make_pipeline(StandardScaler(), small())
    p = cross_val_predict(pipe, X, y, cv=3, method="predict_proba")
    assert (p.argmax(1) == y).mean() > 0.8
    search = GridSearchCV(small(), {"epochs": [1, 15]}, cv=2).fit(X, y)
    assert search.best_params_["epochs"] == 15
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))


def test_the_examples_are_measured_once(iris, monkeypatch):
    seen, moments = [], statistics.moments
    monkeypatch.setattr(statistics, "moments", lambda *a: seen.append(1) or moments(*a))
    model = small(epochs=1).fit(*iris)
    model.predict(iris[0])
    assert len(seen) == 1


def test_images_are_predicted_out_of_sample_by_their_names(digits):
    X, y = digits
    model = small(network="mlp", epochs=20)
    named = cross_val_predict(model, X, y, cv=2)
    assert named.dtype == y.dtype and (named == y).mean() > 0.9
    p = cross_val_predict(model, X, y, cv=2, method="predict_proba")
    assert p.shape == (300, 4)
    np.testing.assert_array_equal(np.unique(y)[p.argmax(1)], named)
    found = find_label_issues(np.where(np.arange(300) < 9, "three", y), probabilities=p)
    assert set(found.indices) >= set(np.flatnonzero((np.arange(300) < 9) & (named != "three")))


def test_the_seed_decides(iris):
    X, y = iris
    a, b, c = (small(random_state=s).fit(X, y).predict_proba(X) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_weights_of_zero_take_an_example_out_of_the_loss(iris):
    X, y = iris
    wrong = np.where(np.arange(150) % 3 == 0, (y + 1) % 3, y)
    weight = np.where(wrong == y, 1.0, 0.0)
    other = np.where(wrong == y, wrong, (wrong + 1) % 3)
    fitted = [small(loss="ce").fit(X, labels, weight) for labels in (wrong, other)]
    np.testing.assert_array_equal(*(m.predict_proba(X) for m in fitted))
    assert fitted[0].score(X, y) > small(loss="ce").fit(X, wrong).score(X, y)
    np.testing.assert_array_equal(
        small().fit(X, y, np.full(150, 3.0)).predict_proba(X), small().fit(X, y).predict_proba(X)
    )


@pytest.mark.parametrize(
    "network",
    [
        Small(4),
        Small,
        networks.from_linen(Small(4)),
        lambda k: networks.mlp(k, hidden=(16,)),
    ],
)
def test_a_network_of_ones_own(digits, network):
    X, y = digits
    model = small(network=network, epochs=5).fit(X, y)
    assert model.score(X, y) > 0.5
    if isinstance(network, Small):
        assert "BatchNorm_0" in model.batch_stats_["network"]
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(model)).predict(X), model.predict(X)
        )
        assert isinstance(clone(model).network, Small)


def test_the_dynamic_loss_from_arrays_with_weights(digits):
    X, y = digits
    seen = y != "zero"
    model = small(method="dynamic_loss", network="mlp", epochs=12)
    with pytest.warns(UserWarning, match=r"Classes: zero\. .*\[never_predicted\]"):
        model.fit(X, y, seen)
    assert model.config_["method"]["warmup_epochs"] == 1
    assert model.history_[-1]["epoch"] == 12 and "train_meta_loss" in model.history_[-1]
    assert model.score(X[seen], y[seen]) > 0.9
    assert "zero" not in model.predict(X)
    assert "corrector" in model.label_issues_.scores


@pytest.mark.parametrize("method", ["curvenet", "learning_to_reweight"])
def test_methods_that_weight_choose_their_metadata_from_the_data(digits, method):
    X, y = digits
    model = small(method=method, network="mlp", epochs=4, augment="none").fit(X, y)
    assert model.score(X, y) > 0.5
    assert "train_meta_loss" in {key for row in model.history_ for key in row}
    assert model.config_["data"]["metadata"]["kind"] == "none"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "dynamic_los"}, "Did you mean 'dynamic_loss'"),
        ({"loss": "gcee"}, "'gce'"),
        ({"network": "mpl"}, "mlp"),
        ({"network": Small(7)}, "7.* outputs an example; there are 3 classes"),
        ({"settings": {"loss.qq": 1.0}}, "No setting 'loss.qq'"),
        ({"settings": {"data.noise.rate": 0.4}}, "'data.noise.rate' has no meaning"),
        ({"settings": {"loss.q_end": "x"}}, "expected float"),
        ({"epochs": -1}, "train.epochs=-1"),
        ({"augment": "crop_flip"}, "images"),
    ],
)
def test_wrong_parameters_are_one_clear_line(iris, changes, message):
    with pytest.raises(UserError, match=message) as error:
        small(**changes).fit(*iris)
    assert "\n" not in str(error.value)


def test_wrong_data_is_refused(iris):
    X, y = iris
    with pytest.raises(NotFittedError):
        small().predict(X)
    with pytest.raises(UserError, match="one class"):
        small().fit(X, np.zeros(150))
    with pytest.raises(ValueError, match="non-zero"):
        small().fit(X, y, np.zeros(150))
    with pytest.raises(ValueError, match="inconsistent numbers"):
        small().fit(np.zeros((3, 8, 8)), [0, 1])


def test_the_default_takes_mixed_columns_missing_labels_annotators_and_groups(iris):
    x, true = iris
    names = np.array(["a", "b", "c"], object)
    wrong = np.arange(150) % 6 == 0
    given = names[np.where(wrong, (true + 1) % 3, true)]
    given[[3, 77]] = None
    columns = {f"n{i}": x[:, i] for i in range(4)} | {"color": np.array(list("rgb"))[true]}
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(columns)
    frame.loc[5, "n2"] = np.nan
    with pytest.warns(UserWarning, match="2 of 150 examples have no label"):
        model = RobustClassifier(random_state=0).fit(frame, given, groups=np.arange(150) // 2)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert (model.predict(frame[frame.columns[::-1]]) == names[true]).mean() > 0.95
    issues = model.label_issues_
    assert len(issues) == 148 and 3 not in issues.index and wrong[issues.indices[:15]].all()
    votes = np.stack([true, true, np.where(wrong, (true + 1) % 3, true)], 1).astype(float)
    votes[::7, 1] = np.nan
    crowd = RobustClassifier(random_state=0).fit(x, votes)
    assert crowd.classes_.tolist() == [0, 1, 2] and "annotators" in crowd.label_issues_.scores


def test_rare_classes_are_neither_lost_nor_flagged_wholesale():
    rng = np.random.default_rng(0)
    true = rng.choice(5, 1200, p=[0.83, 0.07, 0.05, 0.04, 0.01])
    x = rng.normal(size=(1200, 6))
    x[:, :5] += 4 * np.eye(5)[true]
    given = np.where(rng.random(1200) < 0.05, rng.integers(0, 5, 1200), true)
    model = RobustClassifier(random_state=0).fit(x, given)
    named, flagged = model.predict(x), model.label_issues_.is_label_issue
    for c in range(5):
        assert (named[true == c] == c).mean() > 0.7
        assert flagged[(given == c) & (true == c)].mean() <= 0.2


def test_a_setting_of_a_network_means_a_network_and_one_entry_can_be_searched(iris):
    model = small(loss="gce", settings={"loss.q": 0.5} | QUICK)
    model.set_params(**{"settings__loss.q": 0.9})
    assert model.get_params()["settings"]["loss.q"] == 0.9
    fitted = model.set_params(epochs=np.int64(1)).fit(*iris)
    assert fitted.blend_ is None and fitted.config_["method"]["name"] == "supervised"


def test_a_network_meets_rare_classes_more_often_and_one_that_collapsed_says_so():
    """Classes of 83, 7, 5, 4 and 1 %: DAL on plain batches learns the largest class alone."""
    rng = np.random.default_rng(0)
    y = rng.choice(5, 1500, p=[0.83, 0.07, 0.05, 0.04, 0.01])
    x = rng.normal(size=(1500, 5)) + 3 * np.eye(5)[y]
    model = RobustClassifier("supervised", epochs=20, random_state=0)
    kept = clone(model).fit(x, y)
    assert kept.config_["data"]["balance"] == "sqrt"
    assert any("data.balance=sqrt" in note for note in kept.notes_)
    assert balanced_accuracy_score(y, kept.predict(x)) > 0.6
    lost = model.set_params(settings={"data.balance": "none"})
    with pytest.warns(UserWarning, match=r"\[(not_learned|never_predicted)\]"):
        lost.fit(x, y)
    found = lost.label_issues_
    assert "never_predicted" in found.codes
    for c in range(1, 5):
        assert found.is_label_issue[y == c].mean() <= 0.5


X = np.random.default_rng(0).normal(size=(60, 3)) + 3 * (np.arange(60) % 3)[:, None]
Y = np.arange(60) % 3


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y + 0.5, r"Unknown label type: continuous. Row 0 of y is .*expected one label"),
        (np.eye(3)[Y], r"one-hot rows: pass y.argmax\(axis=1\)"),
        ([[1], [1, 2], [0]] * 20, "lists of several lengths.*multi-label"),
        (Y.astype(complex), "complex numbers"),
        ([None] * 60, "no example has a label"),
        ([datetime.date(2020, 1, 1 + v) for v in Y], "Row 0 of y is datetime.date"),
    ],
    ids=["fractions", "one-hot", "lists", "complex", "none", "dates"],
)
def test_labels_that_are_no_classes_are_refused_in_one_line(y, message):
    with pytest.raises(UserError, match=message) as caught:
        RobustClassifier().fit(X, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nothing", ["", "NULL", "nan", "None"])
def test_texts_that_stand_for_a_missing_label_are_left_out(nothing):
    y = np.array(["ant", "bee", "cat"])[Y].astype("U8")
    y[:5] = nothing
    model = RobustClassifier(loss="ce", epochs=1, settings=QUICK)
    with pytest.warns(UserWarning, match="5 of 60 examples have no label"):
        model.fit(X, y)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([b"ant", b"bee", b"cat"])[Y], ["ant", "bee", "cat"]),
        (np.array([2**70, 2**70 + 1, 5], object)[Y], [5, 2**70, 2**70 + 1]),
        (np.array([1, "b", 2.0], object)[Y], ["1", "2", "b"]),
        (np.ma.array(Y, mask=Y == 2), [0, 1]),
    ],
    ids=["bytes", "beyond 64 bits", "mixed", "masked"],
)
@pytest.mark.filterwarnings("ignore:20 of 60 examples")
def test_labels_of_unusual_types_are_classes(y, classes):
    model = RobustClassifier(loss="ce", epochs=1, settings=QUICK).fit(X, y)
    assert model.classes_.tolist() == classes
    assert set(model.predict(X[:5])) <= {*classes}


@pytest.mark.parametrize("offset", [1e8, 1.7e9])
@pytest.mark.parametrize("scale", [1.0, 1e290])
def test_a_network_sees_features_whatever_their_offset_and_magnitude(offset, scale):
    moved = (X + offset) * scale if scale == 1 else X * scale
    model = RobustClassifier(loss="ce", epochs=15, random_state=0, settings=QUICK).fit(moved, Y)
    assert model.score(moved, Y) > 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": ["seed"]}, r"settings=\['seed'\]: pass a dictionary"),
        ({"network": 3}, "network=3: pass a name .*mlp.* a linen module"),
        ({"network": lambda classes: classes}, "network=3: pass a name"),
        ({"loss": losses.cross_entropy}, "loss='cross_entropy' is no name. Pass its name, 'ce'"),
        ({"loss": "CE"}, "Did you mean 'ce'"),
        ({"random_state": np.random.default_rng(0)}, "random_state is a Generator: pass an int"),
        ({"random_state": -1}, "random_state is -1: pass an integer from 0"),
    ],
)
def test_parameters_of_other_types_are_one_clear_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        RobustClassifier(**{"epochs": 1} | changes).fit(X, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [np.array, jnp.float32])
def test_settings_may_be_scalar_arrays(wrap):
    model = RobustClassifier(epochs=1, settings=QUICK | {"optimizer.weight_decay": wrap(0.25)})
    assert model.fit(X, Y).config_["optimizer"]["weight_decay"] == 0.25


def test_frames_in_another_order_or_with_a_name_twice_are_refused():
    pd = pytest.importorskip("pandas")
    with pytest.raises(UserError, match=r"same index in different orders: pass y.loc\[X.index\]"):
        RobustClassifier().fit(pd.DataFrame(X), pd.Series(Y)[::-1])
    with pytest.raises(UserError, match="more than once: 'a'"):
        RobustClassifier().fit(pd.DataFrame(X, columns=list("aab")), Y)
    with pytest.raises(UserError, match=r"pass a table, such as pandas.DataFrame\(X\)"):
        RobustClassifier().fit({"a": X[:, 0]}, Y)


def test_a_masked_value_is_a_missing_one():
    masked = np.ma.array(X, mask=(np.arange(180) % 7 == 0).reshape(60, 3))
    model = RobustClassifier(epochs=1, settings=QUICK).fit(masked, Y)
    missing = np.where(masked.mask, np.nan, X)
    np.testing.assert_array_equal(model.predict_proba(masked), model.predict_proba(missing))


def test_one_example_per_class_is_too_few_to_be_judged():
    with pytest.raises(UserError, match="No class has two examples"):
        RobustClassifier().fit(X[:3], Y[:3])
