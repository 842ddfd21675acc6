"""Labels of several annotators: columns, arrays, files; consensus, counts, one-line errors."""

import numpy as np
import pytest

from jaxrobust.data import annotators, sources
from jaxrobust.data.prepare import prepare
from jaxrobust.errors import UserError

N = 60
TRUE = np.arange(N) % 3
VOTES = np.stack([TRUE, TRUE, (TRUE + (np.arange(N) % 4 == 0)) % 3], 1)
ASKED = np.stack([np.arange(N) != 7, np.arange(N) % 5 != 1, np.arange(N) != 7], 1)
ASKED[7, 1] = False  # nobody was asked about row 7
NAMES = np.array(["ant", "bee", "cat"])


def table(tmp_path, header="a,r_1,r_2,r_3"):
    lines = [header]
    for i in range(N):
        votes = [NAMES[v] if asked else "" for v, asked in zip(VOTES[i], ASKED[i], strict=True)]
        lines.append(",".join([f"{TRUE[i] + 0.01 * i:.2f}", *votes]))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "t.csv")


def check_votes(source, kept=None):
    kept = np.flatnonzero(np.arange(N) != 7) if kept is None else kept
    np.testing.assert_array_equal(source.train.labels, TRUE[kept])
    np.testing.assert_array_equal(source.train.votes, np.where(ASKED, VOTES, -1)[kept])
    notes = " ".join(source.notes)
    assert "consensus (dawid_skene) of 3 annotators" in notes
    assert "1 of 60 examples of train have no label and are left out (rows 7)" in notes


@pytest.mark.parametrize("wanted", ["r_*", "r_1,r_2,r_3", "r_1, r_[23]"])
def test_columns_of_a_table_by_name_or_pattern(tmp_path, wanted):
    source = sources.load("csv", path=table(tmp_path), annotators=wanted, test_fraction=0.0)
    check_votes(source)
    assert source.feature_names == ("a",) and source.true_labels is None
    part = prepare(source, seed=0, validation_fraction=0.0).train
    assert part.votes.shape == (59, 3)


def test_a_column_of_labels_is_no_feature_and_measures_only_if_named(tmp_path):
    path = table(tmp_path, "a,r_1,r_2,label")
    source = sources.load("csv", path=path, annotators="r_*", test_fraction=0.0)
    assert source.feature_names == ("a",) and source.true_labels is None
    assert any("'label' is not used" in note for note in source.notes)
    source = sources.load(
        "csv", path=path, annotators="r_1,r_2", label_column="label", test_fraction=0.0
    )
    kept = np.flatnonzero(np.arange(N) != 7)
    np.testing.assert_array_equal(source.true_labels, VOTES[kept, 2])


@pytest.mark.parametrize("kind", [float, object])
def test_an_array_of_annotators(tmp_path, kind):
    votes = np.where(ASKED, VOTES, -1).astype(kind)
    votes[~ASKED] = np.nan if kind is float else None
    x = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=votes.astype(float))
    source = sources.load("npz", path=str(tmp_path / "d.npz"), annotators="y", test_fraction=0.0)
    check_votes(source)


def test_a_file_per_annotator(tmp_path):
    x = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=NAMES[TRUE])
    for j in range(2):
        lines = [f"{i},{NAMES[VOTES[i, j]]}" for i in np.flatnonzero(ASKED[:, j])]
        (tmp_path / f"{j}.csv").write_text("\n".join(["index,label", *lines]) + "\n")
    np.save(tmp_path / "2.npy", np.where(ASKED, VOTES, -1)[:, 2])
    wanted = ",".join(str(tmp_path / name) for name in ("0.csv", "1.csv", "2.npy"))
    source = sources.load("npz", path=str(tmp_path / "d.npz"), annotators=wanted, test_fraction=0.0)
    check_votes(source)


def test_a_held_out_part_has_its_votes(tmp_path):
    source = sources.load("csv", path=table(tmp_path), annotators="r_*", test_fraction=0.3)
    found = prepare(source, seed=0, validation_fraction=0.2)
    for part in (found.train, found.validation, found.test):
        rows = part.index
        np.testing.assert_array_equal(part.votes, np.where(ASKED, VOTES, -1)[rows])


@pytest.mark.parametrize(
    "wanted, message",
    [
        ("r_1,q", r"no column 'q' of data.annotators"),
        ("r_1", "names one annotator"),
        ("no.csv,none.csv", "No such file of an annotator"),
        ("alone.csv", "names one file"),
    ],
)
def test_wrong_names_are_one_line(tmp_path, wanted, message):
    with pytest.raises(UserError, match=message) as error:
        sources.load("csv", path=table(tmp_path), annotators=wanted)
    assert "\n" not in str(error.value)


def test_images_take_files_only(tmp_path):
    with pytest.raises(UserError, match=r"'folder' takes a file \(.csv, .npy\) per annotator"):
        sources.load("folder", path=str(tmp_path), annotators="anna,ben")


def test_noise_is_not_planted_in_votes(tmp_path):
    source = sources.load("csv", path=table(tmp_path), annotators="r_*")
    with pytest.raises(UserError, match="cannot be put on the labels of several annotators"):
        prepare(source, seed=0, noise_kind="symmetric", noise_rate=0.2)


def test_names_are_files_or_columns():
    assert annotators.are_files("a.csv, b.npy") and not annotators.are_files("a.csv,b")
    assert not annotators.are_files(None)
