"""Transition matrices, drawing labels, instance-dependent noise, flip maps."""

import re

import jax
import numpy as np
import pytest

from jaxrobust.data import flip_maps, label_noise
from jaxrobust.errors import UserError

COUNTS = np.array([900, 300, 100, 20])


def matrix(kind, rate=0.3, k=4, **more):
    return label_noise.transition_matrix(kind, rate, k, **more)


@pytest.mark.golden
def test_symmetric_matrices_are_the_reference_s(golden):
    reference = np.load(golden("noise_and_imbalance.npz"))
    cases = [k for k in reference if k.startswith("symmetric_rate")]
    assert cases
    for case in cases:
        k, rate = len(reference[case]), float(case.removeprefix("symmetric_rate"))
        np.testing.assert_allclose(matrix("symmetric", rate, k), reference[case], atol=1e-10)


@pytest.mark.golden
def test_matrices_by_class_size_are_the_reference_s(golden):
    reference = np.load(golden("noise_and_imbalance.npz"))
    cases = [k for k in reference if k.startswith("uniform_by_class_size")]
    assert cases
    for case in cases:
        want = reference[case]
        imbalance, rate = re.search(r"imb([\d.e-]+)_rate([\d.e-]+)", case).groups()
        profile = re.compile(rf"counts_c{len(want)}_max\d+_imb{re.escape(imbalance)}")
        sizes = [reference[k] for k in reference if profile.fullmatch(k)]
        if not sizes:  # the file tells them otherwise: every row holds them off its diagonal
            sizes = [np.where(np.eye(len(want))[0], want[1], want[0])]
        ours = [
            matrix("uniform_by_class_size", float(rate), len(want), class_counts=s) for s in sizes
        ]
        nearest = min(ours, key=lambda m: np.abs(m - want).max())
        np.testing.assert_allclose(nearest, want, atol=1e-10, err_msg=case)


@pytest.mark.golden
def test_the_flips_of_cifar10_are_the_reference_s(golden):
    reference = np.load(golden("noise_and_imbalance.npz"))
    cases = [k for k in reference if k.startswith("cifar10_flip_rate")]
    assert cases
    for case in cases:
        rate = float(case.removeprefix("cifar10_flip_rate"))
        ours = matrix("asymmetric", rate, 10, flip_map=flip_maps.CIFAR10_FLIPS)
        np.testing.assert_allclose(ours, reference[case], atol=1e-10)
        np.testing.assert_array_equal(ours, matrix("asymmetric", rate, 10))


KINDS = [
    ("none", {}),
    ("symmetric", {}),
    ("symmetric_exclusive", {}),
    ("uniform_by_class_size", {"class_counts": COUNTS}),
    ("asymmetric", {"flip_map": {0: 2, 2: 0, 3: 1}}),
    ("pair_flip", {}),
]


@pytest.mark.parametrize("kind, more", KINDS)
def test_matrices_are_row_stochastic(kind, more):
    t = matrix(kind, 0.0 if kind == "none" else 0.3, **more)
    assert t.shape == (4, 4) and t.dtype == np.float64 and (t >= 0).all()
    np.testing.assert_allclose(t.sum(1), 1)


def test_rows_are_true_and_columns_given_classes():
    t = matrix("pair_flip", 0.2, 3)
    np.testing.assert_allclose(t, [[0.8, 0.2, 0], [0, 0.8, 0.2], [0.2, 0, 0.8]])
    t = matrix("asymmetric", 0.2, 3, flip_map={2: 0})
    np.testing.assert_allclose(t, [[1, 0, 0], [0, 1, 0], [0.2, 0, 0.8]])
    np.testing.assert_allclose(matrix("symmetric_exclusive", 0.2, 3)[1], [0.1, 0.8, 0.1])


@pytest.mark.parametrize("rate", [0.2, 0.8])
@pytest.mark.parametrize("kind", ["symmetric", "symmetric_exclusive", "uniform_by_class_size"])
def test_the_share_that_really_changes(kind, rate):
    shares = COUNTS / COUNTS.sum()
    want = {
        "symmetric": rate * (1 - 1 / 4),
        "symmetric_exclusive": rate,
        "uniform_by_class_size": rate * (1 - (shares**2).sum()),
    }[kind]
    t = matrix(kind, rate, class_counts=COUNTS)
    np.testing.assert_allclose(1 - shares @ np.diag(t), want, atol=1e-12)
    labels = np.repeat(np.arange(4), COUNTS * 100)
    given = label_noise.corrupt(labels, t, jax.random.key(1))
    np.testing.assert_allclose((np.asarray(given) != labels).mean(), want, atol=0.005)


@pytest.mark.parametrize("k", [2, 3, 7, 8, 9])
def test_labels_are_drawn_as_the_matrix_says(k):
    rng = np.random.default_rng(k)
    t = rng.dirichlet(np.full(k, 0.5), k) * (rng.random((k, k)) < 0.7) + np.eye(k) * 0.1
    t /= t.sum(1, keepdims=True)
    n = 20_000
    labels = np.tile(np.arange(k), n)
    given = np.asarray(label_noise.corrupt(labels, t, jax.random.key(0)))
    assert given.dtype == np.int32
    counts = np.zeros((k, k), int)
    np.add.at(counts, (labels, given), 1)
    np.testing.assert_allclose(counts / n, t, atol=5 * np.sqrt(0.25 / n))
    assert (counts[t == 0] == 0).all()


def test_a_class_of_probability_0_is_never_drawn(monkeypatch):
    t = np.array([[0.5, 0.499, 0.0]] * 3)  # sums to a little less than 1
    given = label_noise.corrupt(np.zeros(50_000, int), t, jax.random.key(0))
    assert set(np.asarray(given).tolist()) == {0, 1}
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: np.zeros(shape, dtype))
    draw = label_noise._corrupt.__wrapped__  # not compiled: nothing of this draw is kept
    t = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(draw(np.arange(3), t, jax.random.key(0)), [2, 1, 0])


def test_noise_depends_on_the_key_alone():
    labels, t = np.arange(100) % 4, matrix("symmetric", 0.5)
    a, b = (np.asarray(label_noise.corrupt(labels, t, jax.random.key(s))) for s in (0, 1))
    np.testing.assert_array_equal(a, label_noise.corrupt(labels, t, jax.random.key(0)))
    assert (a != b).any()


def test_a_matrix_of_one_s_own_from_array_and_file(tmp_path):
    t = np.array([[0.7, 0.3], [0.1, 0.9]])
    np.save(tmp_path / "t.npy", t)
    np.savetxt(tmp_path / "t.csv", t, delimiter=",")
    for given in (t, tmp_path / "t.npy", str(tmp_path / "t.csv")):
        np.testing.assert_allclose(matrix("matrix", 0, 2, matrix=given), t)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([[0.7, 0.1], [0.3, 0.9]], "Row 0 .* sums to 0.8.*transpose it"),
        ([[0.7, 0.2], [0.3, 0.9]], "Row 0 .* sums to 0.9, not to 1.$"),
        ([[1.2, -0.2], [0.0, 1.0]], "negative"),
        ([[1.0, np.nan], [0.0, 1.0]], "NaN"),
        ([[1.0]], r"is \[1, 1\]; 2 classes"),
    ],
)
def test_a_matrix_that_is_none_is_refused(rows, message):
    with pytest.raises(UserError, match=message):
        matrix("matrix", 0, 2, matrix=np.array(rows))


def test_a_matrix_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nc,d\n")
    with pytest.raises(UserError, match="t.csv cannot be read"):
        matrix("matrix", 0, 2, matrix=tmp_path / "t.csv")
    with pytest.raises(UserError, match="No noise matrix"):
        matrix("matrix", 0, 2, matrix=tmp_path / "none.npy")


@pytest.mark.parametrize(
    "kind, rate, more, message",
    [
        ("symmetric", 1.0, {}, r"rate 1 is outside \[0, 1\)"),
        ("symmetric", -0.1, {}, "outside"),
        ("symetric", 0.1, {}, "Did you mean 'symmetric'"),
        ("uniform_by_class_size", 0.1, {}, "class_counts"),
        ("asymmetric", 0.1, {}, "flip_map"),
        ("asymmetric", 0.1, {"flip_map": {0: 4}}, "0->4 is outside 0..3"),
        ("matrix", 0.0, {}, "needs a matrix"),
        ("matrix", 0.3, {"matrix": np.eye(4)}, "leave the rate at 0"),
    ],
)
def test_wrong_noise_is_refused(kind, rate, more, message):
    with pytest.raises(UserError, match=message):
        matrix(kind, rate, **more)


def instances(n=4000, k=3, d=6):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, k, n).astype(np.int32)


def test_instance_noise_flips_at_the_rate_of_the_truncated_normal():
    x, labels = instances(20_000)
    given = label_noise.instance_dependent(x, labels, 0.2, 3, jax.random.key(0))
    # Mean of N(0.2, 0.1) truncated to [0, 1]: 0.2 + 0.1 phi(-2) / (1 - Phi(-2)).
    want = 0.2 + 0.1 * np.exp(-2) / np.sqrt(2 * np.pi) / 0.97725
    np.testing.assert_allclose((given != labels).mean(), want, atol=0.015)
    assert given.dtype == np.int32 and set(given) == {0, 1, 2}


def test_instance_noise_sends_like_examples_to_like_classes():
    x, labels = instances()
    x, labels = np.tile(x[:1], (3000, 1)), np.zeros(3000, np.int32)
    x[:1500] *= -1
    given = label_noise.instance_dependent(x, labels, 0.4, 3, jax.random.key(2))
    first, second = (np.bincount(half, minlength=3)[1:] for half in (given[:1500], given[1500:]))
    # Opposite examples have opposite preferences, where independent noise would have the same.
    assert (first[0] > first[1]) != (second[0] > second[1])
    assert max(first) > 2 * min(first) and max(second) > 2 * min(second)


def test_instance_noise_is_reproducible_and_takes_images():
    labels = instances(300)[1]
    x = np.random.default_rng(1).integers(0, 255, (300, 4, 4, 3), np.uint8)
    x[..., 2] = 7  # a constant channel
    a, b, c = (
        label_noise.instance_dependent(x, labels, 0.3, 3, jax.random.key(s)) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    np.testing.assert_array_equal(
        label_noise.instance_dependent(x, labels, 0.3, 3, jax.random.key(0), spread=0.1), a
    )
    with pytest.raises(UserError, match="outside"):
        label_noise.instance_dependent(x, labels, 1.0, 3, jax.random.key(0))
    with pytest.raises(UserError, match="300 examples but 299"):
        label_noise.instance_dependent(x, labels[1:], 0.1, 3, jax.random.key(0))


def test_cifar100_flips_go_round_each_super_class():
    names, flips = flip_maps.CIFAR100_CLASSES, flip_maps.CIFAR100_FLIPS
    assert len(names) == 100 and sorted(flips) == sorted(flips.values()) == list(range(100))
    assert names[flips[names.index("bear")]] == "leopard"
    assert names[flips[names.index("wolf")]] == "bear"
    for c in range(100):
        ring = [c]
        while flips[ring[-1]] != c:
            ring.append(flips[ring[-1]])
        assert len(ring) == 5
    np.testing.assert_array_equal(
        matrix("asymmetric", 0.4, 100), matrix("asymmetric", 0.4, 100, flip_map=flips)
    )


@pytest.mark.parametrize("text", ["cat:dog,dog:cat", "0:1, 1:0", {"cat": "dog", 1: 0}])
def test_a_map_by_name_or_number(text):
    assert flip_maps.parse(text, ("cat", "dog")) == {0: 1, 1: 0}


def test_names_come_before_numbers():
    assert flip_maps.parse("3:5", ("5", "3")) == {1: 0}


@pytest.mark.parametrize(
    "text, message",
    [
        ("cta:dog", "no class 'cta'.*'cat'"),
        ("cat:7", "no class '7'"),
        ("cat-dog", "from:to"),
        ("", "from:to"),
        ("cat:dog,cat:cat", "maps a class to two"),
    ],
)
def test_a_wrong_map_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        flip_maps.parse(text, ("cat", "dog"))


def test_the_usual_map_is_chosen_by_class_names():
    assert flip_maps.usual(flip_maps.CIFAR10_CLASSES) is flip_maps.CIFAR10_FLIPS
    assert flip_maps.usual(flip_maps.CIFAR100_CLASSES) is flip_maps.CIFAR100_FLIPS
    with pytest.raises(UserError, match="'0:1'"):
        flip_maps.usual([str(c) for c in range(10)])


@pytest.mark.parametrize(
    ("labels", "matrix", "message"),
    [
        ([-1, 1, 2], np.eye(3), r"Label 0 \(from 0\) is -1; 3 classes are numbered 0..2"),
        ([0, 1, 3], np.eye(3), "Label 2 .* is 3"),
        (np.eye(3), np.eye(3), r"whole numbers \[N\]; got float64 \[3, 3\]"),
        ([0.0, 1.7], np.eye(3), "whole numbers"),
        (["a"], np.eye(3), "whole numbers"),
        ([0], np.full((3, 5), 0.2), r"\[K, K\]; got float64 \[3, 5\]"),
        ([0], np.full((3, 3), 7.0), "Row 0 of the noise matrix sums to 21"),
        ([0], np.full((3, 3), np.nan), "negative or NaN"),
        ([0], [[0.5, 1], [0.5, 0]], "transpose"),
    ],
)
def test_corrupt_refuses_what_cannot_be_right(labels, matrix, message):
    with pytest.raises(UserError, match=message):
        label_noise.corrupt(labels, matrix, jax.random.key(0))


def test_corrupt_is_traceable_and_checks_shapes_while_traced():
    labels, matrix, key = np.arange(3), np.full((3, 3), 1 / 3), jax.random.key(0)
    plain = label_noise.corrupt(labels, matrix, key)
    np.testing.assert_array_equal(jax.jit(label_noise.corrupt)(labels, matrix, key), plain)
    with pytest.raises(UserError, match="whole numbers"):
        jax.jit(label_noise.corrupt)(np.eye(3), matrix, key)


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.zeros((3, 2)), np.array([-1, 0, 1]), "Label 0 .* is -1"),
        (np.zeros((3, 2)), np.array([0, 0, 2]), "Label 2 .* is 2"),
        (np.zeros((3, 2)), np.array([0.5, 0, 1]), "whole numbers"),
        (np.full((2, 2), np.nan), np.array([0, 1]), "NaN"),
        (np.array([["a"], ["b"]]), np.array([0, 1]), "must be numbers"),
        (np.zeros(2), np.array([0, 1]), "must be numbers"),
    ],
)
def test_instance_noise_refuses_what_cannot_be_right(x, labels, message):
    with pytest.raises(UserError, match=message):
        label_noise.instance_dependent(x, labels, 0.4, 2, jax.random.key(0))
