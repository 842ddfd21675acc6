"""From a source to disjoint parts: order of the steps, one seed, replay, warnings."""

import numpy as np
import pytest

from jaxrobust.data import flip_maps, manifest, sources
from jaxrobust.data.examples import Examples, Source, View
from jaxrobust.data.prepare import everything, prepare
from jaxrobust.errors import UserError

K = 5
RNG = np.random.default_rng(0)
ROWS = RNG.permutation(1000)  # the source's own order is not the order of the arrays


def make_source(counts=(200,) * K, lazy=False, **more):
    """Row r has pixel r (in two bytes); labels are true."""
    labels = np.repeat(np.arange(K), counts).astype(np.int32)[RNG.permutation(sum(counts))]
    rows = ROWS[np.argsort(ROWS)][: len(labels)][RNG.permutation(len(labels))]
    x = np.zeros((len(labels), 1, 2, 1), np.uint8)
    x[:, 0, 0, 0], x[:, 0, 1, 0] = rows // 256, rows % 256
    ids = [f"im_{r}" for r in rows]
    train = Examples(View(x, np.arange(len(x))) if lazy else x, labels, ids, rows)
    test = Examples(x[:10], np.arange(10, dtype=np.int32) % K)
    return Source("toy", train, test, None, tuple("abcde"), **more)


SOURCE = make_source()
TRUE = dict(zip(SOURCE.train.rows.tolist(), SOURCE.train.labels.tolist(), strict=True))
FULL = dict(
    subset=900, noise_kind="symmetric", noise_rate=0.4, imbalance_kind="exponential",
    imbalance_factor=0.1, metadata_kind="clean", metadata_per_class=10, validation_fraction=0.2,
)  # fmt: skip


def rate(part):
    return (part.labels != part.true_labels).mean()


def check_parts(prepared, source=SOURCE):
    """Every part holds the right images, ids and true labels; no row is in two parts."""
    parts = [prepared.train, prepared.metadata, prepared.validation]
    parts = [part for part in parts if part is not None]
    true = dict(zip(source.train.rows.tolist(), source.train.labels.tolist(), strict=True))
    for part in parts:
        pixels = np.stack([np.asarray(part.x[i]) for i in range(len(part.x))]).astype(int)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 1, 0], part.index)
        np.testing.assert_array_equal(part.true_labels, [true[r] for r in part.index.tolist()])
        assert part.ids == [f"im_{r}" for r in part.index]
        assert part.labels.dtype == part.true_labels.dtype == np.int32
    together = np.concatenate([part.index for part in parts])
    assert len(np.unique(together)) == len(together)
    return len(together)


@pytest.mark.parametrize("lazy", [False, True])
def test_all_steps_together(lazy):
    source = (
        SOURCE._replace(train=SOURCE.train._replace(x=View(SOURCE.train.x, np.arange(1000))))
        if lazy
        else SOURCE
    )
    prepared = prepare(source, seed=0, **FULL)
    # 180 of a class, less 10 of metadata: 170 170 * 0.1^(c/4), of which a fifth validates.
    counts = [170, 95, 53, 30, 17]
    assert check_parts(prepared) == sum(counts) + 50
    np.testing.assert_array_equal(np.bincount(prepared.metadata.labels), [10] * K)
    assert rate(prepared.metadata) == 0
    both = np.concatenate([prepared.train.true_labels, prepared.validation.true_labels])
    np.testing.assert_array_equal(np.bincount(both), counts)
    assert len(prepared.validation.labels) == round(0.2 * sum(counts))
    assert isinstance(prepared.train.x, View) == lazy
    np.testing.assert_allclose(rate(prepared.train), 0.4 * 0.8, atol=0.1)
    assert rate(prepared.validation) > 0 and prepared.validation_kind == "noisy"
    shares = [np.bincount(p.labels) / len(p.labels) for p in (prepared.train, prepared.validation)]
    np.testing.assert_allclose(*shares, atol=0.02)
    assert prepared.truth_known and len(prepared.test.labels) == 10
    np.testing.assert_array_equal(prepared.test.index, np.arange(10))
    made = manifest.realised(prepared.manifest)
    np.testing.assert_allclose(made["realised_rate"], rate(prepared.train))


def test_nothing_asked_for_is_nothing_done():
    prepared = prepare(SOURCE, seed=0, validation_fraction=0)
    assert check_parts(prepared) == 1000 and rate(prepared.train) == 0
    assert prepared.metadata is None and prepared.validation is None
    assert prepared.validation_kind == "none" and not prepared.truth_known
    assert prepared.warnings == []


def test_the_same_seed_gives_the_same_and_another_another():
    a, b, c = (prepare(SOURCE, seed=s, **FULL) for s in (0, 0, 1))
    for part in ("train", "metadata", "validation"):
        first, second, other = (getattr(p, part) for p in (a, b, c))
        np.testing.assert_array_equal(first.index, second.index)
        np.testing.assert_array_equal(first.labels, second.labels)
        assert set(first.index) != set(other.index)


def test_a_source_without_row_numbers_is_numbered_in_order():
    source = make_source()
    bare = source._replace(train=source.train._replace(rows=None))
    prepared = prepare(bare, seed=0, subset=300)
    np.testing.assert_array_equal(source.train.labels[prepared.train.index], prepared.train.labels)


def rows_by_class(prepared):
    everything = (prepared.train, prepared.metadata, prepared.validation)
    return {r for part in everything if part is not None for r in part.index.tolist()}


@pytest.mark.parametrize(
    "change", [{"noise_rate": 0.2}, {"noise_kind": "pair_flip"}, {"validation_fraction": 0.3}]
)
def test_noise_and_validation_leave_subset_metadata_and_imbalance(change):
    a, b = prepare(SOURCE, seed=0, **FULL), prepare(SOURCE, seed=0, **(FULL | change))
    assert rows_by_class(a) == rows_by_class(b)
    assert set(a.metadata.index) == set(b.metadata.index)


def test_validation_leaves_the_noise():
    kinds = ({"validation_fraction": 0.1}, {"validation_fraction": 0.3})
    a, b = (prepare(SOURCE, seed=0, noise_kind="symmetric", noise_rate=0.5, **k) for k in kinds)
    given = []
    for prepared in (a, b):
        parts = (prepared.train, prepared.validation)
        given.append({r: y for p in parts for r, y in zip(p.index, p.labels, strict=True)})
    assert given[0] == given[1]


def test_noise_does_not_know_the_accelerator_s_generator_nor_x64(x64):
    import jax

    wide = prepare(SOURCE, seed=0, **FULL)
    jax.config.update("jax_enable_x64", False)
    narrow = prepare(SOURCE, seed=0, **FULL)
    np.testing.assert_array_equal(wide.train.labels, narrow.train.labels)
    np.testing.assert_array_equal(wide.train.index, narrow.train.index)


def test_clean_validation_is_held_out_before_the_noise():
    prepared = prepare(SOURCE, seed=0, **(FULL | {"validation_clean": True}))
    check_parts(prepared)
    assert rate(prepared.validation) == 0 and rate(prepared.train) > 0.2
    assert prepared.validation_kind == "clean"


def test_noisy_metadata_is_balanced_by_given_label():
    prepared = prepare(SOURCE, seed=0, **(FULL | {"metadata_kind": "noisy"}))
    check_parts(prepared)
    np.testing.assert_array_equal(np.bincount(prepared.metadata.labels), [10] * K)
    assert rate(prepared.metadata) > 0.1


def test_clean_metadata_gets_the_true_labels_of_a_labels_file(tmp_path):
    given = np.zeros(1000, np.int32)
    np.put(given, list(TRUE), [(v + (r % 2)) % K for r, v in TRUE.items()])
    np.save(tmp_path / "given.npy", given)
    prepared = prepare(
        SOURCE, seed=0, labels_path=tmp_path / "given.npy", metadata_kind="clean",
        validation_clean=True,
    )  # fmt: skip
    check_parts(prepared)
    assert rate(prepared.metadata) == rate(prepared.validation) == 0 and prepared.truth_known
    np.testing.assert_array_equal(prepared.train.labels, given[prepared.train.index])
    np.testing.assert_allclose(rate(prepared.train), 0.5, atol=0.05)


def test_noise_by_class_size_uses_the_sizes_after_the_imbalance():
    kind = {"noise_kind": "uniform_by_class_size", "noise_rate": 0.8, "validation_fraction": 0}
    source = make_source()
    prepared = prepare(source, seed=0, imbalance_kind="step", imbalance_factor=0.05, **kind)
    counts = np.array([200, 200, 10, 10, 10])
    np.testing.assert_array_equal(np.bincount(prepared.train.true_labels), counts)
    wrong = prepared.train.labels[prepared.train.labels != prepared.train.true_labels]
    assert np.isin(wrong, [0, 1]).mean() > 0.85
    expected = 0.8 * (1 - ((counts / counts.sum()) ** 2).sum())
    np.testing.assert_allclose(rate(prepared.train), expected, atol=0.08)


@pytest.mark.parametrize(
    "more",
    [
        {"noise_kind": "asymmetric", "noise_map": "a:b,2:3"},
        {"noise_kind": "asymmetric", "noise_map": {"a": "b", "c": "d"}},
        {"noise_kind": "matrix", "noise_rate": 0.0, "noise_matrix": np.array(
            [[0.5, 0.5, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 1, 0],
             [0, 0, 0, 0, 1]])},
    ],
)  # fmt: skip
def test_noise_of_one_s_own(more):
    part = prepare(SOURCE, seed=0, **({"noise_rate": 0.5} | more)).train
    wrong = part.labels != part.true_labels
    pairs = set(zip(part.true_labels[wrong].tolist(), part.labels[wrong].tolist(), strict=True))
    assert pairs == {(0, 1), (2, 3)}
    np.testing.assert_allclose(wrong[np.isin(part.true_labels, [0, 2])].mean(), 0.5, atol=0.1)


def test_cifar10_has_its_map():
    labels = np.repeat(np.arange(10), 30).astype(np.int32)
    x = np.zeros((300, 2), np.float32)
    source = Source("c", Examples(x, labels), None, None, flip_maps.CIFAR10_CLASSES)
    part = prepare(source, seed=0, noise_kind="asymmetric", noise_rate=0.4).train
    wrong = part.labels != part.true_labels
    flips = dict(zip(part.true_labels[wrong].tolist(), part.labels[wrong].tolist(), strict=True))
    assert flips == flip_maps.CIFAR10_FLIPS


@pytest.mark.parametrize("lazy", [False, True])
def test_instance_noise(lazy):
    source = make_source((60,) * K, lazy=lazy)
    prepared = prepare(source, seed=0, noise_kind="instance", noise_rate=0.3)
    check_parts(prepared, source)
    np.testing.assert_allclose(rate(prepared.train), 0.3, atol=0.1)


def test_a_manifest_replays_rows_and_labels(tmp_path):
    first = prepare(SOURCE, seed=0, **FULL)
    manifest.save(first.manifest, tmp_path / "noise.npz")
    again = prepare(SOURCE, seed=7, manifest_path=tmp_path / "noise.npz", noise_rate=0.9)
    check_parts(again)
    for part in ("train", "metadata", "validation"):
        a, b = getattr(first, part), getattr(again, part)
        for name in ("x", "labels", "true_labels", "index"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert a.ids == b.ids
    assert again.manifest.seed == 0 and again.truth_known and again.validation_kind == "noisy"
    assert any("noise.npz" in line for line in again.warnings)
    with pytest.raises(UserError, match="other data"):
        prepare(make_source(), seed=0, manifest_path=tmp_path / "noise.npz")
    manifest.save(prepare(SOURCE, seed=0).manifest, tmp_path / "noise.npz")
    with pytest.raises(UserError, match="holds no metadata"):
        prepare(SOURCE, seed=0, manifest_path=tmp_path / "noise.npz", metadata_kind="clean")


def test_a_source_s_own_validation_split_is_used(tmp_path):
    own = SOURCE.train._replace(x=SOURCE.train.x[:20], labels=SOURCE.train.labels[:20],
                                ids=None, rows=None)  # fmt: skip
    source = SOURCE._replace(validation=own)
    prepared = prepare(source, seed=0, noise_kind="symmetric", noise_rate=0.5)
    assert prepared.validation_kind == "own" and len(prepared.train.labels) == 1000
    np.testing.assert_array_equal(prepared.validation.labels, own.labels)
    assert any("own split" in line for line in prepared.warnings)
    manifest.save(prepared.manifest, tmp_path / "noise.npz")
    again = prepare(source, seed=0, manifest_path=tmp_path / "noise.npz")
    assert len(again.validation.labels) == 20
    assert prepare(source, seed=0, validation_fraction=0).validation is None


def test_small_classes_are_warned_of():
    prepared = prepare(
        make_source((40, 30, 40, 40, 40)), seed=0, validation_fraction=0,
        imbalance_kind="exponential", imbalance_factor=0.02,
    )  # fmt: skip
    lines = "\n".join(prepared.warnings)
    np.testing.assert_array_equal(
        np.bincount(prepared.train.labels, minlength=K), [40, 15, 5, 2, 0]
    )
    assert "Classes with no example in the training data: e." in lines
    assert "one example" not in lines
    short = prepare(make_source((40, 9, 40, 1, 40)), seed=0, imbalance_kind="step",
                    imbalance_factor=0.5, validation_fraction=0.1)  # fmt: skip
    lines = "\n".join(short.warnings)
    assert "fewer examples than the profile asks for in 2 of 5 classes, e.g. 'b': 9 of 40" in lines
    assert "Classes with one example in the training data: d." in lines
    assert "Classes without an example in validation: d." in lines


def test_classes_missing_from_the_test_are_said():
    test = SOURCE.test._replace(x=SOURCE.test.x[:2], labels=np.array([0, 3], np.int32))
    prepared = prepare(SOURCE._replace(test=test), seed=0)
    assert "Classes without an example in test: b, c, e." in prepared.warnings


@pytest.mark.parametrize(
    "more, message",
    [
        ({"noise_kind": "symmetric", "noise_rate": 1.0}, "outside"),
        ({"noise_kind": "symmetrical", "noise_rate": 0.2}, "'symmetric'"),
        ({"noise_rate": 0.2}, "needs a kind of noise"),
        ({"noise_kind": "asymmetric", "noise_rate": 0.2}, "needs a map"),
        ({"imbalance_kind": "exponential", "imbalance_factor": 0.0}, "outside"),
        ({"imbalance_factor": 0.1}, "needs a kind"),
        ({"metadata_kind": "dirty"}, "Unknown metadata 'dirty'"),
        ({"metadata_kind": "clean", "metadata_per_class": 200}, "only 200 examples"),
        ({"metadata_kind": "clean", "metadata_per_class": 0}, "use 1 or more"),
        ({"validation_fraction": 1.0}, r"outside \[0, 1\)"),
        ({"validation_fraction": 0.0001}, "is none"),
        ({"subset": 1001}, "there are 1000"),
        ({"subset": 1, "validation_fraction": 0}, "Fewer than two classes"),
        ({"labels_path": "none.npy"}, "No labels file"),
        ({"manifest_path": "none.npz"}, "No manifest"),
    ],
)
def test_wrong_use_is_one_line(more, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(SOURCE, seed=0, **more)
    assert "\n" not in str(error.value)


def test_noise_is_not_put_on_labels_that_are_wrong_already(tmp_path):
    np.save(tmp_path / "given.npy", np.array([TRUE[r] for r in range(1000)]))
    noise = {"noise_kind": "symmetric", "noise_rate": 0.2}
    with pytest.raises(UserError, match="already differ"):
        prepare(SOURCE, seed=0, labels_path=tmp_path / "given.npy", **noise)
    with pytest.raises(UserError, match="already differ"):
        prepare(SOURCE._replace(true_labels=SOURCE.train.labels), seed=0, **noise)


def test_everything_is_shown_in_the_order_in_which_it_is_judged(tmp_path):
    lines = ["a,b,split,label"]
    lines += [
        f"{i},{'xy'[i % 2]}{i % 3},{'test' if i % 4 == 3 else 'train'},{i % 2}" for i in range(40)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    source = sources.load("csv", path=str(tmp_path / "t.csv"))
    found = prepare(source, seed=0, validation_fraction=0.25)
    whole = everything(found)
    rows = np.concatenate([found.train.index, found.validation.index, found.test.index])
    assert len(whole.x) == len(whole.table) == 40
    for i in (0, 20, 25, 39):
        assert float(whole.table[i][0]) == rows[i]
        assert whole.table[i][1] == f"{'xy'[rows[i] % 2]}{rows[i] % 3}"
        part = found.train if i < len(found.train.labels) else None
        if part is not None:
            np.testing.assert_array_equal(whole.x[i], part.x[i])
