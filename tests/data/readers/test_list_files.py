"""List files of images as people write them."""

import numpy as np
import pytest
from PIL import Image

from jaxrobust.data.readers import list_files
from jaxrobust.errors import UserError

PLAIN = "".join(f"img/{c}{i}.png {c}\n" for c in "ab" for i in range(2))
SPACED = [f"img/{c} {i}.png" for c in "ab" for i in range(2)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img").mkdir()
    for name in [line.split()[0] for line in PLAIN.splitlines()] + SPACED:
        Image.new("L", (4, 4)).save(tmp_path / name)
    return tmp_path


def read(folder, text, encoding="utf-8"):
    (folder / "list.txt").write_bytes(text.encode(encoding))
    return list_files.read(folder / "list.txt")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", ","),
        PLAIN.replace(" ", "; "),
        PLAIN.replace("/", "\\"),
        "# made by hand\n\n" + PLAIN + "\n",
        "path label\n" + PLAIN,
        "Filename,Class\n" + PLAIN.replace(" ", ","),
        PLAIN.replace("img", "./img"),
    ],
    ids=["plain", "crlf", "tab", "comma", "semicolon", "windows", "comment", "header",
         "header of a csv", "dot"],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_headers_comments_and_windows_paths(folder, text, encoding):
    found = read(folder, text, encoding)
    names = ["a0.png", "a1.png", "b0.png", "b1.png"]
    assert [path.replace("\\", "/").rpartition("/")[2] for path in found.paths] == names
    assert all(
        (folder / "img" / name).samefile(path)
        for name, path in zip(names, found.paths, strict=True)
    )
    np.testing.assert_array_equal(found.labels, list("aabb"))


@pytest.mark.parametrize(
    "line",
    ['{path} {label}', '"{path}" {label}', '"{path}" "{label}"', "'{path}',{label}",
     '"{path}"\t{label}'],
)  # fmt: skip
def test_quotes_and_spaces_within_paths(folder, line):
    text = "".join(line.format(path=p, label=p[4]) + "\n" for p in SPACED)
    found = read(folder, text)
    assert found.ids == SPACED
    np.testing.assert_array_equal(found.labels, list("aabb"))


def test_labels_of_several_words_in_quotes(folder):
    found = read(folder, '"img/a 0.png" "big cat"\nimg/b0.png dog\n')
    assert found.ids == ["img/a 0.png", "img/b0.png"]
    assert found.labels.tolist() == ["big cat", "dog"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("".join(f"{c} img/{c}0.png\n" for c in "ab"), "write 'path label', not 'label path'"),
        (PLAIN.replace("img", "/home/ann/img"), "Make the paths relative to the list's folder"),
        ("".join(line.split()[0] + "\n" for line in PLAIN.splitlines()), "line 0 .from 0. does"),
        ("# nothing\n\n", "is empty"),
        (PLAIN + "img/b0.png\n", "line 4 .from 0. does not read 'path label'"),
    ],
    ids=["label first", "of another machine", "no labels", "empty", "one without"],
)
def test_lists_of_another_form_are_refused_in_one_line(folder, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(folder, text)
    assert "\n" not in str(caught.value)
