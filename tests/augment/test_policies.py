"""AutoAugment and RandAugment: what is published, drawn as often as it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.augment import policies as policy
from jaxrobust.augment.pillow_ops import Operation, apply
from jaxrobust.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def run():
    """auto_augment, compiled once."""
    return jax.jit(policy.auto_augment)


@pytest.mark.parametrize(
    "name, level, magnitudes",
    [
        ("rotate", 2, (-60 / 9, 60 / 9)),
        ("shear_y", 8, (-0.8 / 3, 0.8 / 3)),
        ("translate_x", 9, (-150 / 331, 150 / 331)),
        ("posterize", 7, (5, 5)),
        ("solarize", 2, (256 * 7 / 9, 256 * 7 / 9)),
        ("brightness", 6, (0.4, 1.6)),
        ("color", 0, (1.0, 1.0)),
    ],
)
def test_a_level_of_nine_is_the_published_range(name, level, magnitudes):
    operations = policy.both_signs(name, level / 9)
    np.testing.assert_allclose([o.magnitude for o in operations], magnitudes, rtol=1e-12)


def test_the_policy_is_that_of_table_7():
    # Operation, ten times the probability, level; twice.
    table = """
        invert 1 7 contrast 2 6          | rotate 7 2 translate_x 3 9
        sharpness 8 1 sharpness 9 3      | shear_y 5 8 translate_y 7 9
        auto_contrast 5 8 equalize 9 2   | shear_y 2 7 posterize 3 7
        color 4 3 brightness 6 7         | sharpness 3 9 brightness 7 9
        equalize 6 5 equalize 5 1        | contrast 6 7 sharpness 6 5
        color 7 7 translate_x 5 8        | equalize 3 7 auto_contrast 4 8
        translate_y 4 3 sharpness 2 6    | brightness 9 6 color 2 8
        solarize 5 2 invert 0 3          | equalize 2 0 auto_contrast 6 0
        equalize 2 8 equalize 6 4        | color 9 9 equalize 6 6
        auto_contrast 8 4 solarize 2 8   | brightness 1 3 color 7 0
        solarize 4 5 auto_contrast 9 3   | translate_y 9 9 translate_y 7 9
        auto_contrast 9 2 solarize 8 3   | equalize 8 8 invert 1 3
        translate_y 7 9 auto_contrast 9 1
    """.replace("|", " ").split()
    steps = [(name, int(p) / 10, int(m)) for name, p, m in zip(*[iter(table)] * 3, strict=True)]
    assert [step for sub_policy in policy.CIFAR10_POLICY for step in sub_policy] == steps


def test_the_rows_of_a_policy():
    operations = policy.auto_augment_operations()
    assert len(operations) == 4 * 25 + 1 and operations[100].name == "identity"
    for sub_policy, s, i, name, magnitude in (
        (1, 0, 0, "rotate", -60 / 9), (1, 1, 1, "translate_x", 150 / 331),
        (9, 0, 0, "contrast", 0.3), (9, 1, 1, "sharpness", 1.5),
    ):  # fmt: skip
        operation = operations[4 * sub_policy + 2 * s + i]
        assert operation.name == name
        np.testing.assert_allclose(operation.magnitude, magnitude)


def test_sub_policies_and_their_operations_occur_as_often_as_published():
    n = 50_000
    index = np.asarray(policy.sample_auto_augment(jax.random.key(1), n))
    fires = index < 100
    for s in range(2):
        rows = index[fires[:, s], s]
        assert (rows % 4 // 2 == s).all()
        got = np.bincount(rows // 4, minlength=25) / n
        want = np.array([p[s][1] for p in policy.CIFAR10_POLICY]) / 25
        np.testing.assert_allclose(got, want, rtol=0, atol=4 * np.sqrt(0.04 / n))
        np.testing.assert_allclose(np.mean(rows % 2), 0.5, rtol=0, atol=2 / np.sqrt(len(rows)))
    both = fires.all(axis=1)  # the two operations of an example are of the same sub-policy
    np.testing.assert_array_equal(index[both, 0] // 4, index[both, 1] // 4)


def test_auto_augment_applies_what_was_drawn(run):
    key = jax.random.key(3)
    operations, index = policy.auto_augment_operations(), policy.sample_auto_augment(key, 8)
    drawn = [[operations[i] for i in row] for row in np.asarray(index)]
    assert any(o.name != "identity" for row in drawn for o in row)
    np.testing.assert_array_equal(run(key, X), apply(X, operations, index))


def test_same_key_same_result_whatever_the_other_examples(run):
    key = jax.random.key(4)
    out = np.asarray(run(key, X))
    np.testing.assert_array_equal(out, run(key, X))
    assert (out != np.asarray(run(jax.random.key(5), X))).any()
    others = X.copy()
    others[1:] = 255 - others[1:]
    np.testing.assert_array_equal(np.asarray(run(key, others))[0], out[0])


def test_rand_augment_draws_evenly_from_the_papers_operations():
    assert len(policy.RAND_AUGMENT_OPERATIONS) == 14
    x = np.random.default_rng(1).integers(40, 200, (1, 8, 8, 1)).astype(np.uint8)
    batch = np.repeat(x, 2800, axis=0)
    # At magnitude 0 only auto_contrast changes the image: 64 pixels are too few for equalize.
    out = np.asarray(policy.rand_augment(jax.random.key(0), batch, num_ops=1, magnitude=0.0))
    changed = (out != x).any(axis=(1, 2, 3))
    np.testing.assert_allclose(changed.mean(), 1 / 14, atol=4 * np.sqrt(1 / 14 / 2800))
    stretched = apply(x, [Operation("auto_contrast")], jnp.zeros((1, 1), int))
    np.testing.assert_array_equal(out[changed], np.repeat(stretched, changed.sum(), axis=0))


def test_rand_augment_is_stronger_with_magnitude():
    def distance(**setting):
        out = policy.rand_augment(jax.random.key(0), np.concatenate([X] * 8), **setting)
        return np.abs(np.asarray(out).astype(int) - np.concatenate([X] * 8)).mean()

    assert distance(num_ops=1, magnitude=3) < distance(num_ops=1, magnitude=30)
    assert distance(num_ops=0) == 0
    with pytest.raises(UserError, match="0..30"):
        distance(magnitude=31)
