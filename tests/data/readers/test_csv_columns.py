"""CSV files with the separators and in the encodings that people have."""

import numpy as np
import pytest

from jaxrobust.data import sources, tabular
from jaxrobust.data.readers import csv_columns
from jaxrobust.errors import UserError

ROWS = [("name", "size", "label"), ("Zoë", "1.5", "a"), ("Bob", "2", "b"), ("Eve", "3", "a")]


def write(path, separator=",", encoding="utf-8", end="\n", rows=ROWS):
    path.write_bytes("".join(separator.join(r) + end for r in rows).encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_encodings_and_line_ends(tmp_path, separator, encoding, end):
    sheet = csv_columns.read(write(tmp_path / "a.csv", separator, encoding, end))
    assert {n: v.tolist() for n, v in sheet.columns.items()} == {
        "name": ["Zoë", "Bob", "Eve"], "size": ["1.5", "2", "3"], "label": ["a", "b", "a"]
    }  # fmt: skip
    assert sheet.decimal_comma == (separator != ",")
    assert bool(sheet.notes) == (encoding == "latin-1")


def test_quotes_keep_separators_and_line_ends(tmp_path):
    (tmp_path / "a.csv").write_text('a;b\n"x;y";"two\nlines"\n"1,5";"say ""hi"""\n')
    columns = csv_columns.read(tmp_path / "a.csv").columns
    assert columns["a"].tolist() == ["x;y", "1,5"]
    assert columns["b"].tolist() == ["two\nlines", 'say "hi"']


def test_decimal_commas_are_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("a;b;label\n1,5;-2,25;x\n3,0;1.234,5;y\n")
    table = tabular.read_csv(tmp_path / "a.csv").drop(["label"])
    numbers = tabular.fit(table).transform(table, "trees")
    np.testing.assert_array_equal(numbers, [[1.5, -2.25], [3, 1234.5]])


def test_index_columns_excels_first_line_and_separators_at_the_ends(tmp_path):
    texts = {
        ",a,label\n0,5,x\n1,6,y\n": ["Unnamed: 0", "a", "label"],  # pandas' to_csv
        "a,label\n1,5,x\n2,6,y\n": ["Unnamed: 0", "a", "label"],  # R's write.table
        "a,label\n5,x,\n6,y,\n": ["a", "label", "Unnamed: 2"],
        "sep=;\na;label\n5;x\n6;y\n": ["a", "label"],
    }
    for text, names in texts.items():
        (tmp_path / "a.csv").write_text(text)
        columns = csv_columns.read(tmp_path / "a.csv").columns
        assert list(columns) == names and columns["a"].tolist() == ["5", "6"]


def test_an_index_column_is_no_feature(tmp_path):
    (tmp_path / "a.csv").write_text(",a\n" + "".join(f"{i},{i * 7 % 20}\n" for i in range(40)))
    encoder = tabular.fit(tabular.read_csv(tmp_path / "a.csv"))
    assert encoder.series == ("a",) and "'Unnamed: 0'" in encoder.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", r"row 1 \(from 0\) has 1 values, the header has 2 \(separator: comma"),
        (b"a,b,a\n1,2,3\n", "more than once: 'a'"),
        (b"a,b\n", "no rows"),
        (b"", "no rows"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), "no text in a known encoding"),
        (b"\xff\xfea", "no text in a known encoding"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        csv_columns.read(tmp_path / "a.csv")
    assert "\n" not in str(error.value)


MEASURED = [(f"{0.5 + i / 7:.3f}", f"{3 - i / 11:.3f}", "ab"[i % 2]) for i in range(24)]
BODY = "".join(",".join(row) + "\n" for row in MEASURED)


def as_data(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    return sources.load("csv", path=str(tmp_path / "a.csv"), test_fraction=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BODY, "first line reads like data .* has no header"),
        ("5,0,0,1\n7,0,3,0\n", "more than once: '0'.* Has it no header?"),
        ("Measurements,,\nx,y,label\n" + BODY, "first line names 1 of 3 columns.* must be the"),
        ("x,y,label\n(cm),(kg),(kind)\n" + BODY, r"text where .*\(\(cm\), \(kg\)\): a second head"),
        ("x y label\n" + BODY.replace(",", " "), "has one column, 'x y label'"),
        ("x,y,label\n" + BODY + '1,2,"a\n', 'row 24 .* quote that is never closed: .* write ""'),
        ('"x,y,label\n' + BODY, "the header begins a cell with a quote that is never closed"),
        ("PK\3\4" + BODY, "is an Excel workbook or a zip archive, no text: save it as CSV"),
        ("PAR1" + BODY, "is a Parquet file, no text"),
    ],
    ids=["no header", "no header of digits", "title", "units", "spaces", "open quote",
         "open quote in the header", "xlsx", "parquet"],
)  # fmt: skip
def test_first_lines_that_are_no_header_and_files_that_are_no_text(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        as_data(tmp_path, text)
    assert "\n" not in str(error.value)


def test_comments_above_the_header_and_blank_lines_are_skipped(tmp_path):
    source = as_data(tmp_path, "# from the lab\n# 2020\nx,y,label\n  \n" + BODY + ",,\n , ,\n")
    assert len(source.train.labels) == 24 and source.class_names == ("a", "b")
    assert any("2 lines that begin with # above the header are skipped" in n for n in source.notes)
    assert as_data(tmp_path, "#x,y,label\n" + BODY).feature_names == ("#x", "y")


def test_columns_of_splits_ids_and_labels_are_known_in_any_case(tmp_path):
    rows = [(f"n{i}", *row, "Test" if i % 4 == 0 else "TRAIN") for i, row in enumerate(MEASURED)]
    text = "ID,x,y,Class,Split\n" + "".join(",".join(row) + "\n" for row in rows)
    source = as_data(tmp_path, text)
    assert source.feature_names == ("x", "y") and source.class_names == ("a", "b")
    assert len(source.test.labels) == 6 and source.test.ids[0] == "n0"


def test_a_named_column_is_found_in_any_case(tmp_path):
    (tmp_path / "a.csv").write_text("x,label,Kind\n" + BODY)
    source = sources.load("csv", path=str(tmp_path / "a.csv"), label_column="kind", test_fraction=0)
    assert source.class_names == ("a", "b") and source.feature_names == ("x", "label")
