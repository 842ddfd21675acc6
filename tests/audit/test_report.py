"""The report: one file, whole, harmless, and readable whatever there is to show."""

import re
import types
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxrobust.audit import find_label_issues, report
from jaxrobust.audit.truth import against_truth

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


def rendered(shape=(8, 8, 1), n=400, rate=0.2, known=True, names=NAMES, **changes):
    rng = np.random.default_rng(0)
    k = len(names)
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < rate, (true + 1) % k, true).astype(np.int32)
    p = 0.9 * np.eye(k)[true] + 0.1 / k
    paths = [f"a/<img src=x onerror=alert({i})>.png" for i in range(n)]
    issues = find_label_issues(given, probabilities=p, class_names=names, paths=paths,
                               weights={"corrector": np.where(given == true, 0.9, 0.1)})
    groups = {"many": np.ones(k, bool), "medium": np.zeros(k, bool), "few": np.zeros(k, bool)}
    summary = {
        "flagged": issues.num_issues, "noise_rate": issues.noise_rate,
        "noise_rate_interval": issues.noise_rate_interval, "held_out": None,
        "expected_interval": issues.num_issues_interval,
        "truth": against_truth(issues, true, groups) if known else None,
    }
    numbers = {"epoch": 3, "accuracy": 0.9, "per_class": [0.9] * k}
    results = {"audit": summary, "last": numbers, "selected": numbers, "seed": 7, "epochs": 3,
               "selection_split": "validation", "selection_metric": "balanced_accuracy",
               "method": "supervised", "loss": "ce", "steps": 30}
    x = rng.integers(0, 255, (n, *shape)).astype(np.uint8 if len(shape) == 3 else np.float32)
    arguments = dict(name="run & co", results=results, config='{"a": "<i>"}', environment={},
                     true=true if known else None, curves=rng.random((n, 6)),
                     train=types.SimpleNamespace(x=x))
    return report.render(issues, **(arguments | changes)), issues


@pytest.fixture(scope="module")
def page():
    return rendered()[0]


def test_it_is_well_formed_and_asks_nothing_of_anyone(page):
    parsed = Strict(page)
    assert all(link.startswith("data:") for link in parsed.links) and len(parsed.links) > 25
    assert not re.search(r"https?://|@import|url\((?!data)", page)
    assert "script" not in parsed.tags and "img src=x" not in page.replace("&lt;img src=x", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "run &amp; co" in page
    assert len(page) < 5e6


def test_it_says_what_was_found():
    page, issues = rendered()
    text = " ".join(Strict(page).text.split())
    assert f"{issues.num_issues} carry a label that is probably wrong" in text
    assert f"{100 * issues.noise_rate:.1f} %" in text and "95 % interval" in text
    assert "out-of-sample predictions, weights of corrector" in text
    for heading in ("Most suspect examples", "Accuracy", "Noise matrix", "Classes",
                    "Against the truth", "Loss curves", "Configuration", "Weight"):
        assert heading in text
    assert '{"a": "<i>"}' in text


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
    assert "img" not in parsed.tags and "first values" in parsed.text
    assert parsed.text.count("…") >= 12


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
