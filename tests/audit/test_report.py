"""The report: one file, whole, harmless, and readable whatever there is to show."""

import base64
import html
import io
import re
import types
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jaxrobust.audit import find_label_issues, report
from jaxrobust.audit.scoring import against_truth
from jaxrobust.data.table import Table

NAMES = ("cat", "<script>alert(1)</script>", "=cmd")


class Strict(HTMLParser):
    """Checks that tags close in order; gathers attributes and text."""

    VOID = {"meta", "link", "img", "br", "rect", "path", "polygon", "polyline"}

    def __init__(self, page):
        super().__init__()
        self.open, self.links, self.tags, self.text = [], [], set(), ""
        self.feed(page)
        assert not self.open, self.open

    def handle_decl(self, declaration):
        assert declaration == "DOCTYPE html"

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text += data


def tables(page):
    """The tables of a page by the heading above them; rows of texts."""
    found, heading = {}, ""
    for match in re.finditer(r"<h[23]>(.*?)</h[23]>|<table.*?</table>", page, re.S):
        if match[1] is not None:
            heading = match[1]
            continue
        rows = [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
            for row in re.findall(r"<tr>(.*?)</tr>", match[0], re.S)
        ]
        texts = [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in rows]
        found.setdefault(heading, []).append(texts)
    return found


def data(*shape, n=400):
    return np.random.default_rng(1).integers(0, 255, (n, *shape))


def rendered(shape=(8, 8, 1), n=400, rate=0.2, known=True, names=NAMES, numbers=None, **changes):
    rng = np.random.default_rng(0)
    k = len(names)
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < rate, (true + 1) % k, true).astype(np.int32)
    p = 0.9 * np.eye(k)[true] + 0.1 / k
    paths = [f"a/<img src=x onerror=alert({i})>.png" for i in range(n)]
    issues = find_label_issues(
        given,
        probabilities=p,
        class_names=names,
        paths=paths,
        weights={"corrector": np.where(given == true, 0.9, 0.1)},
    )
    groups = {"many": np.ones(k, bool), "medium": np.zeros(k, bool), "few": np.zeros(k, bool)}
    summary = {
        "flagged": issues.num_issues,
        "noise_rate": issues.noise_rate,
        "noise_rate_interval": issues.noise_rate_interval,
        "held_out": None,
        "expected_interval": issues.num_issues_interval,
        "truth": against_truth(issues, true, groups) if known else None,
    }
    plain = {"epoch": 3, "accuracy": 0.9, "per_class": [0.9] * k}
    results = {
        "audit": summary,
        "last": plain,
        "selected": plain,
        "seed": 7,
        "epochs": 3,
        "selection_split": "validation",
        "selection_metric": "balanced_accuracy",
        "method": "supervised",
        "loss": "ce",
        "steps": 30,
    } | (numbers or {})
    rendered.truth, rendered.true = summary["truth"], true
    x = data(*shape, n=n).astype(np.uint8 if len(shape) == 3 else np.float32)
    arguments = dict(
        name="run & co",
        results=results,
        config='{"a": "<i>"}',
        environment={},
        true=true if known else None,
        curves=rng.random((n, 6)),
        train=types.SimpleNamespace(x=x),
    )
    return report.render(issues, **(arguments | changes)), issues


@pytest.fixture(scope="module")
def page():
    return rendered()[0]


def test_it_is_well_formed_and_asks_nothing_of_anyone(page):
    parsed = Strict(page)
    assert all(link.startswith("data:") for link in parsed.links) and len(parsed.links) > 25
    assert not re.search(r"https?://|@import|url\((?!data)", page)
    assert page.count("<script") == 2 and not re.search(r"<script[^>]*src", page)  # its own two
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "run &amp; co" in page
    assert len(page) < 5e6


def test_it_says_what_was_found():
    page, issues = rendered()
    text = " ".join(Strict(page).text.split())
    assert f"{issues.num_issues} carry a label that is probably wrong" in text
    assert f"{100 * issues.noise_rate:.1f} %" in text and "95 % interval" in text
    assert "out-of-sample predictions, weights of corrector" in text
    for heading in (
        "Most suspect examples",
        "Accuracy",
        "Noise matrix",
        "Classes",
        "Against the truth",
        "Loss curves",
        "Configuration",
        "Weight",
    ):
        assert heading in text
    assert '{"a": "<i>"}' in text


def percent(value, digits=1):
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def number(value, digits=3):
    return f"{value:.{digits}f}"


def test_its_tables_hold_the_numbers_that_were_found():
    k = len(NAMES)
    last, selected = (
        {
            "epoch": e,
            "accuracy": 0.81 + e / 100,
            "balanced_accuracy": 0.72 + e / 100,
            "many": 0.9,
            "medium": None,
            "few": 0.3,
            "negative_log_likelihood": 0.5 + e / 10,
            "memorised": e / 50,
            "expected_calibration_error": e / 40,
            "per_class": [0.5, 0.6, 0.7],
        }
        for e in (9, 4)
    )
    page, issues = rendered(numbers={"last": last, "selected": selected})
    found, truth = tables(page), rendered.truth
    assert found["Accuracy"][0][1:] == [
        [
            which,
            str(r["epoch"]),
            percent(r["accuracy"]),
            percent(r["balanced_accuracy"]),
            percent(r["many"]),
            "–",
            percent(r["few"]),
            number(r["negative_log_likelihood"]),
            percent(r["expected_calibration_error"]),
            percent(r["memorised"]),
        ]
        for which, r in (("last", last), ("selected", selected))
    ]
    for title, matrix in (("Estimated", issues.noise_matrix), ("True", truth["noise_matrix"])):
        head, *rows = found[title][0]
        assert head == ["", *NAMES] and [row[0] for row in rows] == list(NAMES)
        cells = [[f"{100 * v:.0f}" if v >= 0.005 else "" for v in row] for row in matrix]
        assert [row[1:] for row in rows] == cells
    rows = found["Classes"][0][1:]
    for c in range(k):
        members, t = issues.given_label == c, truth["per_class"][c]
        assert rows[c] == [
            NAMES[c],
            str(members.sum()),
            str(issues.is_label_issue[members].sum()),
            percent((1 - issues.label_score[members]).mean()),
            number(issues.weight[members].mean(), 2),
            percent(last["per_class"][c]),
            str(t["wrong"]),
            percent(t["recall"]),
            percent(t["false_alarms"]),
        ]
    areas, groups = found["Against the truth"]
    assert areas[1] == ["all together", number(truth["auroc"]), number(truth["auprc"])]
    assert [row[0] for row in areas[2:]] == list(issues.scores)
    assert groups[1][:3] == ["many", "400", str(truth["wrong_labels"])] and len(groups) == 2
    flows = found["Commonest changes suggested"][0][1:]
    assert sum(int(row[2]) for row in flows) == issues.num_issues


def test_its_first_picture_is_the_first_row_of_the_table():
    page, issues = rendered()
    first = {name: values[0] for name, values in issues.columns().items()}
    figure = re.search(r"<figure>(.*?)</figure>", page, re.S)[1]
    text = " ".join(html.unescape(re.sub("<[^>]*>", " ", figure)).split())
    score = first["label_score"]
    score = "< 0.001" if score < 0.001 else number(score)
    true = NAMES[rendered.true[first["index"]]]
    assert text == (
        f"{first['given_label']} → {first['predicted_label']} (truth: {true}) "
        f"{first['path']} score {score}"
    )
    shown = re.search(r'src="data:image/png;base64,([^"]*)"', figure)[1]
    with Image.open(io.BytesIO(base64.b64decode(shown))) as image:
        np.testing.assert_array_equal(np.asarray(image), data(8, 8, 1)[first["index"], ..., 0])


def test_it_says_how_it_was_made():
    environment = {
        "jaxrobust": "9.8.7",
        "python": "3.11.5",
        "backend": "gpu",
        "devices": 3,
        "device_kind": "H <200>",
        "packages": {"jax": "0.7.7", "numpy": "2.2.2"},
        "command": "main.py --config=digits_ce",
    }
    page, _ = rendered(environment=environment, config='{"loss": {"q": 0.123}}')
    rows = dict(tables(page)["How this was made"][0])
    assert rows == {
        "method": "supervised, loss ce, seed 7",
        "training": "3 epochs, 30 steps",
        "command": "main.py --config=digits_ce",
        "device": "3 × H <200> (gpu)",
        "versions": "Python 3.11.5, jax 0.7.7, numpy 2.2.2",
    }
    text = Strict(page).text
    assert "errors of the network itself are not in it, and one that fits poorly" in text
    assert "jaxrobust 9.8.7" in text and '{"loss": {"q": 0.123}}' in text


def test_nothing_wrong_is_said_and_shows_no_gallery():
    page, _ = rendered(rate=0.0)
    text = " ".join(Strict(page).text.split())
    assert "No label of the 400 training examples is found to be wrong" in text
    assert "Most suspect examples" not in text


def test_large_images_are_made_small():
    page, _ = rendered(shape=(300, 200, 3), n=150)
    assert "data:image/jpeg" in page and len(page) < 2e6
    Strict(page)


def test_tables_show_rows_instead_of_images():
    page, issues = rendered(shape=(20,))
    parsed = Strict(page)
    assert "img" not in parsed.tags
    first, second = tables(page)["Most suspect examples"][0][:2]
    i = issues.indices[0]
    assert first == ["row", "given", "suggested", "truth", "score", *map(str, range(12)), "…"]
    assert second[0] == f"a/<img src=x onerror=alert({i})>.png"
    assert second[5:] == [*(f"{v:.4g}" for v in data(20)[i, :12]), "…"]


def test_columns_of_a_table_have_their_names():
    page, _ = rendered(shape=(3,), features=np.array(["age", "=cmd", "<b>"]))
    assert tables(page)["Most suspect examples"][0][0][5:] == ["age", "=cmd", "<b>"]
    assert "<b>" not in page.split("<tbody>")[0].split("<table>")[1]


def test_rows_of_a_table_are_shown_as_the_user_wrote_them():
    columns = {
        "age": np.where(np.arange(400) % 2, np.arange(400.0), np.nan),
        "city": np.array([None, "a<b>", "c" * 50, "d"] * 100, object),
    }
    train = types.SimpleNamespace(x=data(3).astype(np.float32), table=Table(columns))
    page, issues = rendered(shape=(3,), train=train)
    header, *rows = tables(page)["Most suspect examples"][0]
    assert header[5:] == ["age", "city"]
    for row, i in zip(rows, issues.indices, strict=False):
        city = ("–", "a<b>", "c" * 39 + "…", "d")[i % 4]
        assert row[5:] == [f"{i:.4g}" if i % 2 else "–", city]


def test_on_a_phone_it_has_the_phones_width_and_in_print_nothing_is_hidden(page):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "details" not in Strict(page).tags and "overflow: visible" in page
    in_print = page[page.index("@media print") : page.index("</style>")]
    assert re.search(r"pre \{[^}]*max-height: none", in_print)


class Gone:
    """Images whose files are no longer there."""

    shape = (400, 8, 8, 3)

    def __len__(self):
        return 400

    def __getitem__(self, i):
        if i % 2:
            raise FileNotFoundError(i)
        return np.zeros((8, 8, 3), np.uint8)


def test_pictures_that_have_gone_leave_a_gap():
    page, _ = rendered(train=types.SimpleNamespace(x=Gone()))
    parsed = Strict(page)
    assert "no picture" in parsed.text and "img" in parsed.tags
    page, _ = rendered(train="The examples could not be opened: no folder")
    parsed = Strict(page)
    assert "could not be opened: no folder" in parsed.text and "img" not in parsed.tags


def test_without_truth_and_with_many_classes():
    page, _ = rendered(known=False, n=3000, names=tuple(f"class {i}" for i in range(60)))
    text = Strict(page).text
    assert "Against the truth" not in text and "Commonest changes" in text
    assert "each row sums" not in text


def test_figures_are_embedded_until_it_is_enough(tmp_path, page):
    for name, size in (("learning_curves", 1_000), ("weights", 3_000_000), ("margins", 1_000)):
        (tmp_path / f"{name}.png").write_bytes(bytes(size))
    drawn, _ = rendered(figures=tmp_path)
    assert len(Strict(drawn).links) == len(Strict(page).links) + 2 and len(drawn) < 5e6
    assert "Learning curves" in drawn and "Margins" in drawn
