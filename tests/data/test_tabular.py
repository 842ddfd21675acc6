"""Column transformers of mixed tables, held against scikit-learn's pipelines and by hand."""

import datetime
import io

import numpy as np
import pytest
from scipy import sparse
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, RobustScaler, StandardScaler

from jaxrobust.data import tabular
from jaxrobust.data.table import Table, from_array, from_frame
from jaxrobust.errors import UserError

RNG = np.random.default_rng(0)


def table(**columns):
    return from_frame(columns, "the table")


def mixed(n=200):
    rng = np.random.default_rng(1)
    age = rng.integers(20, 60, n).astype(float)
    age[3] = np.nan
    return table(
        age=age,
        job=rng.choice(["nurse", "cook", "pilot"], n).tolist(),
        smokes=rng.choice([True, False], n),
        born=np.datetime64("2020-01-01") + rng.integers(0, 900, n),
        row_id=np.arange(n),
        country=["NL"] * n,
    )


def test_a_mixed_table_becomes_finite_features_with_names():
    encoder = tabular.fit(mixed())
    x = encoder.transform(mixed())
    assert x.dtype == np.float32 and np.isfinite(x).all()
    assert x.shape == (200, len(encoder.feature_names))
    assert encoder.feature_names == (
        "age", "born", "born: month", "born: weekday", "age (missing)",
        "job=cook", "job=nurse", "job=pilot", "smokes=True",
    )  # fmt: skip
    assert dict(encoder.left_out).keys() == {"row_id", "country"}
    assert len(encoder.notes) == 1 and "'row_id'" in encoder.notes[0]
    assert "'country' (constant)" in encoder.notes[0]
    missing = x[:, encoder.feature_names.index("age (missing)")]
    assert missing[3] == 1 and missing.sum() == 1


@pytest.mark.parametrize(
    ("scaling", "scaler"),
    [("standard", StandardScaler()), ("robust", RobustScaler(unit_variance=True))],
)
def test_scaling_is_scikit_learns(scaling, scaler):
    x = RNG.normal(size=(300, 4)) * [1, 1e-3, 50, 1e5] + [0, 4, -7, 1e6]
    z = scaler.fit_transform(x)
    wanted = z / np.sqrt(1 + (z / 3) ** 2) if scaling == "robust" else z
    own = from_array(x)
    np.testing.assert_allclose(tabular.fit(own, scaling=scaling).transform(own), wanted, atol=1e-5)


def test_quantiles_are_scikit_learns_where_values_differ():
    x = RNG.lognormal(size=(500, 2)) ** 3
    wanted = QuantileTransformer(n_quantiles=201, output_distribution="normal").fit_transform(x)
    own = from_array(x)
    got = tabular.fit(own, scaling="quantile").transform(own)
    inside = np.abs(wanted) < 3
    np.testing.assert_allclose(got[inside], wanted[inside], atol=1e-4)


def test_categories_are_one_hot_as_scikit_learns_with_the_rare_in_a_group():
    job = np.array(["a"] * 30 + ["b"] * 30 + ["c"] * 30 + ["d", "e"])
    wanted = OneHotEncoder(min_frequency=2, sparse_output=False).fit_transform(job[:, None])
    encoder = tabular.fit(table(job=job.tolist()))
    np.testing.assert_array_equal(encoder.transform(table(job=job.tolist())), wanted)
    assert encoder.feature_names[-1] == "job=(rare)"


def test_a_category_unseen_in_training_counts_as_rare_else_as_none():
    job = ["a", "b", "c"] * 20
    none = tabular.fit(table(job=job)).transform(table(job=["new", "a", None]))
    np.testing.assert_array_equal(none, [[0, 0, 0], [1, 0, 0], [0, 0, 0]])
    encoder = tabular.fit(table(job=[*job, "once"]))
    np.testing.assert_array_equal(encoder.transform(table(job=["new"])), [[0, 0, 0, 1]])


def test_only_training_rows_teach():
    numbers = np.r_[np.arange(50) * 2.5 % 7, 1e9]
    full = table(a=numbers, b=["x", "y"] * 25 + ["z"])
    encoder = tabular.fit(full, np.arange(50))
    part = tabular.fit(full[np.arange(50)])
    assert encoder.columns == part.columns and encoder.center[0] == part.center[0] < 7
    assert "b=z" not in encoder.feature_names


def test_columns_are_found_by_name_and_all_that_lack_are_named():
    encoder, own = tabular.fit(mixed()), mixed()
    turned = Table({n: own.columns[n] for n in reversed(own.columns)}, own.kinds)
    np.testing.assert_array_equal(encoder.transform(turned), encoder.transform(own))
    with pytest.raises(UserError, match="lacks the columns 'age', 'job'"):
        encoder.transform(own.drop(["age", "job", "row_id"]))
    assert encoder.transform(own.drop(["row_id", "country"])).shape[0] == 200  # never needed


def test_an_encoder_survives_a_file_without_pickle():
    for scaling in tabular.SCALINGS:
        encoder = tabular.fit(mixed(), scaling=scaling)
        file = io.BytesIO()
        np.savez(file, **encoder.to_arrays())
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            again = tabular.from_arrays(arrays)
        for kind in ("features", "trees"):
            np.testing.assert_array_equal(
                again.transform(mixed(), kind), encoder.transform(mixed(), kind)
            )
        assert again.feature_names == encoder.feature_names and again.notes == encoder.notes
    with pytest.raises(UserError, match="cannot be read"):
        tabular.from_arrays({"encoder": np.array("{")})


def test_trees_get_raw_numbers_and_codes():
    encoder = tabular.fit(mixed())
    x = encoder.transform(mixed(), "trees")
    assert x.dtype == np.float64 and np.isnan(x[3, 0]) and x[0, 0] == mixed().columns["age"][0]
    assert encoder.categorical.tolist() == [False] * 4 + [True] * 2
    assert set(x[:, 4]) == {0, 1, 2} and set(x[:, 5]) == {0, 1}


@pytest.mark.parametrize("offset", [1e6, 1.7e9, 1e12])
def test_large_offsets_are_taken_off_in_float64(offset):
    x = RNG.normal(size=(300, 1))
    own = tabular.fit(from_array(x)).transform(from_array(x))
    far = tabular.fit(from_array(x + offset)).transform(from_array(x + offset))
    np.testing.assert_allclose(far, own, atol=1e-3)


@pytest.mark.parametrize("scaling", tabular.SCALINGS)
def test_numbers_beyond_float32_are_features_all_the_same(scaling):
    wild = np.r_[RNG.normal(size=98), 1e300, -1.7e308]
    x = tabular.fit(table(a=wild), scaling=scaling).transform(table(a=wild))
    assert np.isfinite(x).all() and np.abs(x).max() <= 10
    if scaling != "standard":
        assert np.corrcoef(np.tanh(wild[:98]), x[:98, 0])[0, 1] > 0.9
    far = tabular.fit(table(a=RNG.normal(size=50)), scaling=scaling)
    assert np.isfinite(far.transform(table(a=[1.7e308, -1e300]))).all()


def test_a_column_of_mostly_one_value_is_scaled_by_the_others():
    x = np.r_[np.zeros(90), np.linspace(900, 1100, 10)]
    got = tabular.fit(table(a=x)).transform(table(a=x))
    assert got[0, 0] == 0 and 0.4 < got[-5, 0] < 0.6


def test_texts_that_are_numbers_dates_or_categories_are_told_apart():
    n = 40
    own = table(
        plain=[f"{i * 1.5 % 7}" for i in range(n)],
        comma=[f"{i % 9},{i % 7}" for i in range(n)],
        thousands=[f"{1 + i % 9},{i * 37 % 900 + 100}.5" for i in range(n)],
        us=[f"{1 + i % 12}/{1 + i % 28}/2021" for i in range(n)],
        german=[f"{1 + i % 28}.{1 + i % 12}.2021" for i in range(n)],
        iso=[f"2021-03-{1 + i % 28:02d}T10:{i:02d}:00" for i in range(n)],
        word=["yes", "no"] * (n // 2),
        mixed=["1", "two"] * (n // 2),
    )
    kinds = {c.name: (c.kind, c.form) for c in tabular.fit(own).columns}
    assert kinds == {
        "plain": ("number", "."), "comma": ("number", ","), "thousands": ("number", "thousands"),
        "us": ("date", "%m/%d/%Y"), "german": ("date", "%d.%m.%Y"), "iso": ("date", "iso"),
        "word": ("category", "."), "mixed": ("category", "."),
    }  # fmt: skip
    numbers = tabular.fit(own).transform(own, "trees")
    assert numbers[1, :3].tolist() == [1.5, 1.1, 2137.5]


def test_a_decimal_comma_is_told_from_thousands_by_the_files_separator():
    cells = np.array([f"{1 + i % 9},{i * 37 % 900 + 100}" for i in range(30)], object)
    for comma, wanted in ((True, 2.137), (False, 2137)):
        own = Table({"a": cells}, decimal_comma=comma)
        assert tabular.fit(own).transform(own, "trees")[1, 0] == wanted


def test_dates_are_taken_apart_in_utc():
    day = datetime.datetime(2024, 2, 29, 13, 30)
    dates = [day + datetime.timedelta(hours=7 * i) for i in range(30)]
    encoder = tabular.fit(table(when=[str(d) for d in dates]))
    assert encoder.series == ("when", "when: month", "when: weekday", "when: hour")
    x = encoder.transform(table(when=[str(day)]), "trees")
    assert x[0].tolist() == [(day - datetime.datetime(1970, 1, 1)).total_seconds(), 2, 3, 13.5]


def test_a_few_words_among_numbers_count_as_missing_and_are_named():
    cells = [str(i * 3 % 17) for i in range(60)]
    cells[7] = "unknown"
    encoder = tabular.fit(table(a=cells))
    assert "row 7 reads 'unknown'" in encoder.notes[0]
    assert np.isnan(encoder.transform(table(a=["much"] + cells[1:]), "trees")[0, 0])
    with pytest.raises(UserError, match="'a' should hold numbers, but row 0 reads 'nurse'"):
        encoder.transform(table(a=["nurse"] * 5))


def test_missing_values_in_all_their_spellings():
    for spelling in (None, np.nan, "", "NA", "NaN", "nan", "None", "NULL", "?", "<NA>"):
        own = table(a=["x", "y", spelling] * 10)
        assert tabular.fit(own).feature_names == ("a=x", "a=y", "a=(missing)")


def test_columns_without_information_are_left_out_and_named_in_one_line():
    n = 60
    own = table(
        empty=[None] * n, same=[3.0] * n, word=["x"] * n, comment=[f"text {i}" for i in range(n)],
        patient_id=RNG.permutation(n) + 1000, count=np.arange(n) + 5, age=RNG.integers(1, 90, n),
    )  # fmt: skip
    encoder = tabular.fit(own)
    assert [c.name for c in encoder.columns] == ["age"]
    assert len(encoder.notes) == 1
    for reason in ("'empty' (no values)", "'same' (constant)", "'comment' (60 distinct texts",
                   "'patient_id' (an identifier)", "'count' (counts the rows)"):  # fmt: skip
        assert reason in encoder.notes[0]
    with pytest.raises(UserError, match="no column to learn from.*'empty'"):
        tabular.fit(own.drop(["age"]))


def test_codes_called_ids_are_categories():
    encoder = tabular.fit(table(store_id=[3, 17, 4] * 20))
    assert encoder.feature_names == ("store_id=17", "store_id=3", "store_id=4")


def test_a_thousand_categories_are_at_most_sixty_four_features():
    many = [f"c{i % 1000}" for i in range(5000)] + ["big"] * 50
    encoder = tabular.fit(table(a=many))
    x = encoder.transform(table(a=many))
    assert x.shape[1] == 64 and (x.sum(1) == 1).all() and "a=big" in encoder.feature_names


def test_two_rows_are_enough():
    own = table(a=[1.0, 2.0], b=["x", "y"], c=[None, 5.0])
    x = tabular.fit(own).transform(own)
    assert np.isfinite(x).all() and x.shape[0] == 2


def test_one_message_names_all_columns_that_cannot_be_used():
    own = table(good=[1.0, 2, 4], lists=[[1], [2], [3]], wild=[1, np.inf, 2], maps=[{}, {}, {}])
    with pytest.raises(UserError) as error:
        tabular.fit(own)
    assert all(name in str(error.value) for name in ("'lists'", "'wild', row 1", "'maps'"))
    assert "\n" not in str(error.value)


def test_frames_of_pandas_keep_their_types():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3] * 10, dtype="Int64"),
            "f": pd.array([1.5, 2.5, None] * 10, dtype="Float64"),
            "flag": pd.array([True, False, None] * 10, dtype="boolean"),
            "kind": pd.Categorical([1, 2, 1] * 10),
            "text": pd.array(["a", None, "b"] * 10, dtype="string"),
            "when": pd.to_datetime(["2021-01-01", "2022-05-01", None] * 10).tz_localize("UTC"),
            "lasts": pd.to_timedelta([1, 2, None] * 10, unit="h"),
            7: [0.5, 1, 2] * 10,
        }
    )
    encoder = tabular.fit(from_frame(frame))
    assert {c.name: c.kind for c in encoder.columns} == {
        "n": "number", "f": "number", "flag": "category", "kind": "category", "text": "category",
        "when": "date", "lasts": "number", "7": "number",
    }  # fmt: skip
    x = encoder.transform(from_frame(frame.sample(frac=1, random_state=0)[[*frame.columns[::-1]]]))
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(
        np.sort(x[:, 0]), np.sort(encoder.transform(from_frame(frame))[:, 0])
    )
    trees = encoder.transform(from_frame(frame), "trees")
    assert trees[1, encoder.series.index("when")] == 1651363200
    assert trees[1, encoder.series.index("lasts")] == 7200


def test_names_that_occur_twice_are_refused_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(np.ones((3, 4)), columns=["a", "b", "a", "b"])
    with pytest.raises(UserError, match="more than once: 'a', 'b'"):
        from_frame(frame)


def test_sparse_matrices_and_arrays_of_objects_come_through_the_same_door():
    dense = RNG.integers(0, 3, (50, 4)).astype(float)
    wanted = tabular.fit(from_array(dense)).transform(from_array(dense))
    for x in (
        sparse.csr_matrix(dense),
        sparse.coo_array(dense),
        dense.astype(object),
        dense.tolist(),
    ):
        own = from_frame(x)
        np.testing.assert_array_equal(tabular.fit(own).transform(own), wanted)
    with pytest.raises(UserError, match="TruncatedSVD"):
        from_frame(sparse.csr_matrix((10**6, 10**4)))
    with pytest.raises(UserError, match=r"\[N, D\]"):
        from_frame(np.zeros(3))


def test_a_category_trained_from_texts_takes_numbers_of_a_frame():
    encoder = tabular.fit(Table({"code": np.array(["3", "17", "x"] * 20, object)}))
    np.testing.assert_array_equal(
        encoder.transform(table(code=[3.0, 17.0])), encoder.transform(table(code=["3", "17"]))
    )


@pytest.mark.parametrize(
    "write",
    [
        lambda v: f"{v:.2f}%", lambda v: f"${v:.2f}", lambda v: f"{v:.2f} €", lambda v: f"€{v:.2f}",
        lambda v: f"{v:.2f}".replace("-", "\u2212"), lambda v: f"{v:.2f} USD",
        lambda v: f"{v:,.2f}".replace(",", "\u00a0"), lambda v: f"{v:,.2f}".replace(",", "\u202f"),
        lambda v: f"{v:,.2f}".replace(",", "'"), lambda v: f"{v:,.2f}".replace(",", " "),
    ],
)  # fmt: skip
def test_numbers_with_signs_and_thousands_as_people_write_them(write):
    values = np.array([-1234.5, 2.25, 1234567.0, -3.0, 0.5])
    table = from_array(np.array([[write(v)] for v in values], object))
    encoder = tabular.fit(table)
    np.testing.assert_array_equal(encoder.transform(table, "trees")[:, 0], values)


def test_numbers_of_different_signs_in_one_column_are_noted():
    cells = ["5%", "0.05", "7%", "0.07"]
    encoder = tabular.fit(from_array(np.array([[c] for c in cells], object)))
    assert "Column 'x0' has numbers with different signs (%, none)." in encoder.notes


def test_texts_with_digits_stay_categories():
    cells = ["5-10", "10-20", "A 100", "5-10", "10-20", "A 100"]
    encoder = tabular.fit(from_array(np.array([[c] for c in cells], object)))
    assert [c.kind for c in encoder.columns] == ["category"]
