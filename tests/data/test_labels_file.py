"""Labels from a file: .npy, .csv, a run's noise.npz; order, checks, messages."""

import numpy as np
import pytest

from jaxrobust.data import labels_file, manifest
from jaxrobust.data.examples import Examples, Source
from jaxrobust.data.prepare import prepare
from jaxrobust.errors import UserError

NAMES = ("ant", "bee", "cat")
N = 60


def make_source(rows=None, num_rows=N, ids=None):
    """A source whose row r has label r mod 3 and pixel r, in the order of `rows`."""
    rows = np.random.default_rng(0).permutation(N) if rows is None else np.asarray(rows)
    ids = [f"train_{r:02}" for r in rows] if ids is None else ids
    x = np.zeros((len(rows), 2, 2, 1), np.uint8) + rows[:, None, None, None].astype(np.uint8)
    train = Examples(x, (rows % 3).astype(np.int32), ids, rows)
    return Source("toy", train, None, None, NAMES, None, num_rows)


SOURCE = make_source()
TRUE = np.arange(N) % 3
GIVEN = np.where(np.arange(N) % 4 == 0, (TRUE + 1) % 3, TRUE)  # by row: a quarter is wrong


def saved(tmp_path, labels):
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path / "labels.npy"


def written(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    return tmp_path / "labels.csv"


def check_given(source, given=GIVEN):
    rows = source.train.rows
    np.testing.assert_array_equal(source.train.labels, given[rows])
    np.testing.assert_array_equal(source.true_labels, TRUE[rows])
    assert source.train.labels.dtype == np.int32


@pytest.mark.parametrize(
    "labels",
    [GIVEN, GIVEN.astype(np.uint8), GIVEN.astype(float), np.array(NAMES)[GIVEN]],
)
def test_npy_entry_i_belongs_to_row_i(tmp_path, labels):
    check_given(labels_file.replace(SOURCE, saved(tmp_path, labels)))


def test_npy_counts_the_rows_that_were_held_out(tmp_path):
    source = make_source(np.setdiff1d(np.arange(N), np.arange(0, N, 7)))
    check_given(labels_file.replace(source, saved(tmp_path, GIVEN)))
    with pytest.raises(UserError, match=r"shape \[51\]; toy has 60 rows \(those held out"):
        labels_file.replace(source, saved(tmp_path, GIVEN[source.train.rows]))


def test_names_of_classes_come_before_numbers(tmp_path):
    source = SOURCE._replace(class_names=("1", "2", "3"))
    check_given(labels_file.replace(source, saved(tmp_path, GIVEN + 1)))
    check_given(labels_file.replace(source, saved(tmp_path, GIVEN)))
    source = SOURCE._replace(class_names=("2", "0", "1"))
    check_given(labels_file.replace(source, saved(tmp_path, np.array([2, 0, 1])[GIVEN])))


@pytest.mark.parametrize("key", ["index", "path", "id", None])
def test_csv_by_index_path_id_or_in_order(tmp_path, key):
    lines = range(N) if key is None else np.random.default_rng(1).permutation(N)
    ids = {int(r): i for r, i in zip(SOURCE.train.rows, SOURCE.train.ids, strict=True)}
    text = "label\n" if key is None else f"{key},label\n"
    for r in lines:
        name = {"index": r, None: None}.get(key, ids[int(r)])
        text += (f"{name}," if key else "") + f"{NAMES[GIVEN[r]]}\n"
    check_given(labels_file.replace(SOURCE, written(tmp_path, text)))


def test_csv_may_name_rows_that_were_held_out(tmp_path):
    source = make_source(np.setdiff1d(np.arange(N), np.arange(0, N, 5)))
    text = "index,given_label\n" + "".join(f"{r},{GIVEN[r]}\n" for r in range(N))
    check_given(labels_file.replace(source, written(tmp_path, text)))


def test_noise_npz_of_another_run(tmp_path):
    made = prepare(SOURCE, seed=1, noise_kind="symmetric", noise_rate=0.4)
    manifest.save(made.manifest, tmp_path / "noise.npz")
    got = labels_file.replace(SOURCE, tmp_path / "noise.npz", check_labels=False)
    by_row = dict(zip(made.train.index, made.train.labels, strict=True))
    by_row |= dict(zip(made.validation.index, made.validation.labels, strict=True))
    check_given(got, np.array([by_row[r] for r in range(N)]))
    made = prepare(SOURCE, seed=1, noise_kind="symmetric", noise_rate=0.4, subset=30)
    manifest.save(made.manifest, tmp_path / "noise.npz")
    with pytest.raises(UserError, match="covers 30 of 60.*replays"):
        labels_file.replace(SOURCE, tmp_path / "noise.npz")


def test_known_true_labels_stay_the_truth(tmp_path):
    truth = TRUE[SOURCE.train.rows].astype(np.int32)
    noisy = SOURCE._replace(
        train=SOURCE.train._replace(labels=np.roll(truth, 1)), true_labels=truth
    )
    check_given(labels_file.replace(noisy, saved(tmp_path, GIVEN)))


@pytest.mark.parametrize(
    "labels, message",
    [
        (GIVEN[:-1], r"shape \[59\]; toy has 60 rows: use one label for each"),
        (np.eye(3)[GIVEN], r"shape \[60, 3\]"),
        (GIVEN + 1, "is '3', neither a class name nor a number in 0..2"),
        (GIVEN + 0.5, r"row 0 is \d.5, a fraction"),
        (np.array(["aunt", "bee", "cat"])[GIVEN], "'aunt'.*Did you mean 'ant'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    with pytest.raises(UserError, match=message) as error:
        labels_file.replace(SOURCE, saved(tmp_path, labels))
    assert "\n" not in str(error.value)


def lines(rows, key="index"):
    return f"{key},label\n" + "".join(f"{r},{GIVEN[r]}\n" for r in rows)


@pytest.mark.parametrize(
    "text, message",
    [
        (lines(range(N - 2)), r"lacks 2 of 60 training examples, e.g. index \['5[89]'\]"),
        (lines([*range(N), 0]), "'index' occurs twice"),
        (lines([*range(N)]) + "60,0\n", "no index '60' in toy"),
        (lines(range(N), "id"), "no id '0' in toy"),
        ("index,klass\n0,1\n", "no column 'label' or 'given_label'; it has 'index', 'klass'"),
    ],
)
def test_csv_files_that_do_not_fit_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        labels_file.replace(SOURCE, written(tmp_path, text))


def test_true_labels_in_the_file_must_be_the_source_s(tmp_path):
    def text(truth):
        return "index,label,true_label\n" + "".join(
            f"{r},{GIVEN[r]},{truth[r]}\n" for r in range(N)
        )

    check_given(labels_file.replace(SOURCE, written(tmp_path, text(TRUE))))
    wrong = TRUE.copy()
    wrong[[8, 50]] = 0
    with pytest.raises(UserError, match="'true_label' differs for 2 of 60"):
        labels_file.replace(SOURCE, written(tmp_path, text(wrong)), check_labels=False)


def test_labels_in_another_order_are_refused_unless_told_otherwise(tmp_path):
    path = saved(tmp_path, np.random.default_rng(0).permutation(GIVEN))
    with pytest.raises(UserError, match="no better than chance .33.3%.: is it in another order"):
        labels_file.replace(SOURCE, path)
    assert labels_file.replace(SOURCE, path, check_labels=False).true_labels is not None


def test_other_files_are_refused(tmp_path):
    (tmp_path / "labels.txt").write_text("0\n")
    (tmp_path / "bad.npy").write_text("0\n")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name, message in [
        ("labels.txt", "use .npy, .csv"),
        ("bad.npy", "cannot be read"),
        ("other.npz", "is not a manifest"),
        ("nothing.npy", "No labels file"),
    ]:
        with pytest.raises(UserError, match=message):
            labels_file.replace(SOURCE, tmp_path / name)


def test_whole_floats_are_read_from_csv_as_from_npy(tmp_path):
    lines = [f"{i},{float(label)}" for i, label in enumerate(GIVEN)]
    path = written(tmp_path, "\n".join(["index,label", *lines]))
    check_given(labels_file.replace(SOURCE, path))


@pytest.mark.parametrize("missing", ["", "nan", "NA", "-1", "None"])
def test_a_missing_label_is_named_by_its_entry(tmp_path, missing):
    lines = [f"{i},{missing if i == 7 else f'{label}.0'}" for i, label in enumerate(GIVEN)]
    with pytest.raises(UserError, match="entry 7 has no label"):
        labels_file.replace(SOURCE, written(tmp_path, "\n".join(["index,label", *lines])))
    values = GIVEN.astype(float)
    values[7] = -1 if missing == "-1" else np.nan
    with pytest.raises(UserError, match="entry 7 has no label"):
        labels_file.replace(SOURCE, saved(tmp_path, values))
