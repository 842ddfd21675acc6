"""The manifest: what came of the noise, saved, checked, loaded."""

import numpy as np
import pytest

from jaxrobust.data import manifest
from jaxrobust.data.examples import Examples, Source, View
from jaxrobust.errors import UserError


def make_source(seed=0, lazy=False, ids=True):
    rng = np.random.default_rng(seed)
    x, labels = rng.integers(0, 256, (30, 4, 4, 3), np.uint8), rng.integers(0, 3, 30)
    train = Examples(
        View(x, np.arange(30)) if lazy else x,
        labels.astype(np.int32),
        [f"im{i}" for i in range(30)] if ids else None,
    )
    return Source("toy", train, None, None, ("a", "b", "c"))


def make_manifest(**more):
    rows = manifest.Rows(np.array([5, 2, 9, 4]), np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    fields = dict(
        source="toy", fingerprint="f", class_names=("a", "b", "c"), seed=3,
        noise_kind="symmetric", noise_rate=0.4, imbalance_kind="none", imbalance_factor=1.0,
        truth_known=True, validation_kind="noisy", train=rows, metadata=None,
        validation=manifest.Rows(np.array([1]), np.array([2]), np.array([0])),
    )  # fmt: skip
    return manifest.Manifest(**(fields | more))


def test_what_came_of_it_by_hand():
    made = manifest.realised(make_manifest())
    np.testing.assert_allclose(made["realised_rate"], 1 / 4)
    np.testing.assert_allclose(made["realised_rate_per_class"], [1 / 3, 0, np.nan])
    np.testing.assert_array_equal(made["class_counts"], [3, 1, 0])
    np.testing.assert_array_equal(made["given_class_counts"], [2, 2, 0])
    np.testing.assert_array_equal(made["transition_counts"], [[2, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert made["realised_factor"] == 0


def test_saving_and_loading_gives_the_same(tmp_path):
    before = make_manifest(feature_names=("age", "weight"))
    manifest.save(before, tmp_path / "noise.npz")
    after = manifest.load(tmp_path / "noise.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["noise.npz"]
    for name in manifest.Manifest._fields:
        a, b = getattr(before, name), getattr(after, name)
        if isinstance(a, manifest.Rows):
            for u, v in zip(a, b, strict=True):
                np.testing.assert_array_equal(u, v)
        else:
            assert a == b and type(a) is type(b), name


def test_a_manifest_without_names_of_features_is_read(tmp_path):
    manifest.save(make_manifest(), tmp_path / "new.npz")
    assert manifest.load(tmp_path / "new.npz").feature_names == ()
    with np.load(tmp_path / "new.npz") as arrays:
        np.savez(tmp_path / "old.npz", **{k: arrays[k] for k in arrays if k != "feature_names"})
    old = manifest.load(tmp_path / "old.npz")
    assert old.feature_names == () and old.class_names == ("a", "b", "c")


def test_the_file_can_be_read_without_us(tmp_path):
    manifest.save(make_manifest(), tmp_path / "noise.npz")
    with np.load(tmp_path / "noise.npz") as arrays:
        assert (arrays["given_labels"] != arrays["true_labels"]).mean() == arrays["realised_rate"]
        assert arrays["noise_rate"] == 0.4 and arrays["class_names"].tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(arrays["index"], [5, 2, 9, 4])
        np.testing.assert_array_equal(arrays["validation_index"], [1])


@pytest.mark.parametrize("lazy", [False, True])
def test_the_fingerprint_tells_data_apart(lazy):
    first = manifest.fingerprint(make_source(lazy=lazy))
    assert first == manifest.fingerprint(make_source(lazy=lazy)) and len(first) == 64
    source = make_source(lazy=lazy)
    labels = source.train.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    changed = [
        source._replace(train=source.train._replace(labels=labels)),
        source._replace(train=source.train._replace(ids=["x", *source.train.ids[1:]])),
        source._replace(train=source.train._replace(rows=np.arange(30)[::-1])),
        source._replace(class_names=("a", "b", "d")),
        source._replace(true_labels=labels),
        make_source(seed=1, lazy=lazy),
    ]
    x = (source.train.x.x if lazy else source.train.x).copy()
    x[0, 0, 0, 0] += 1
    changed.append(
        source._replace(train=source.train._replace(x=View(x, np.arange(30)) if lazy else x))
    )
    assert len({first, *map(manifest.fingerprint, changed)}) == 8


def test_rows_in_order_need_not_be_written_out():
    source = make_source()
    numbered = source._replace(train=source.train._replace(rows=np.arange(30)))
    assert manifest.fingerprint(source) == manifest.fingerprint(numbered)


def test_other_data_is_refused():
    source = make_source()
    right = make_manifest(fingerprint=manifest.fingerprint(source))
    manifest.check_matches(right, source, "noise.npz")
    with pytest.raises(UserError, match="noise.npz was made from other data than toy"):
        manifest.check_matches(make_manifest(), source, "noise.npz")
    with pytest.raises(UserError, match="made for the classes a, b"):
        manifest.check_matches(right, source._replace(class_names=("x", "y")), "noise.npz")


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "half.npz", **{"index": np.zeros(3), "seed": 3})
    (tmp_path / "text.npz").write_text("hello")
    for name, message in [
        ("other.npz", "is not a manifest"),
        ("half.npz", "is not a manifest"),
        ("text.npz", "is not a manifest"),
        ("none.npz", "No manifest"),
    ]:
        with pytest.raises(UserError, match=message):
            manifest.load(tmp_path / name)
