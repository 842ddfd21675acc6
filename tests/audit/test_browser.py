"""The report in a browser: fits a phone and a desk, asks nothing of anyone, prints whole."""

import html
import json
import re
import shutil
import subprocess
import types

import numpy as np
import pytest

from jaxrobust.audit import decisions, find_label_issues, report
from jaxrobust.audit.scoring import against_truth

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="no Chromium here"), pytest.mark.slow]
WIDTHS = (390, 1280)
FRAMES = """<!DOCTYPE html><title>frames</title><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const found = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument.documentElement;
    const broken = [...page.querySelectorAll("img")].filter(i => !i.naturalWidth).length;
    const wide = [...page.querySelectorAll(".wide, pre")].filter(
      e => e.getBoundingClientRect().right > frame.width).length;
    found[frame.width] = [page.scrollWidth, page.scrollHeight, broken, wide];
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>"""


def made_issues():
    rng, k, n = np.random.default_rng(0), 12, 300
    names = [f"class number {i} of twelve" for i in range(k)]
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < 0.3, (true + 1) % k, true)
    issues = find_label_issues(
        given,
        probabilities=0.9 * np.eye(k)[true] + 0.1 / k,
        class_names=names,
        paths=[
            f"some/rather/long/path/without/any/space/in/it/picture-{i:05}.png" for i in range(n)
        ],
    )
    return issues, true, k, n, rng


def page(lines=40):
    """A report of 300 pictures in 12 classes with long names and paths."""
    issues, true, k, n, rng = made_issues()
    groups = {"many": np.arange(k) < 6, "medium": np.arange(k) >= 6}
    numbers = {"epoch": 3, "accuracy": 0.9, "per_class": [0.9] * k}
    results = {
        "last": numbers,
        "selected": numbers,
        "selection_split": "validation",
        "seed": 0,
        "selection_metric": "accuracy",
        "epochs": 3,
        "steps": 30,
        "audit": {
            "flagged": issues.num_issues,
            "noise_rate": issues.noise_rate,
            "noise_rate_interval": issues.noise_rate_interval,
            "held_out": None,
            "expected_interval": issues.num_issues_interval,
            "truth": against_truth(issues, true, groups),
        },
    }
    return report.render(
        issues,
        name="run",
        results=results,
        config='"a": 1,\n' * lines,
        true=true,
        environment={
            "command": "python -m jaxrobust.main " + "--config.data.path=x " * 20,
            "packages": {},
        },
        curves=rng.random((n, 8)),
        train=types.SimpleNamespace(x=rng.integers(0, 255, (n, 12, 12, 3)).astype(np.uint8)),
    )


def browse(folder, url, *arguments):
    """Opens a file headless; returns what it printed, what its console says, and the addresses
    that pages asked for (the browser itself asks for some, whatever it shows)."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'user'}",
            "--enable-logging=stderr",
            "--v=0",
            f"--log-net-log={log}",
            *arguments,
            url.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"]
    return done.stdout, console, asked


def test_what_a_page_asks_for_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<img src="http://127.0.0.1:9/x"><script>no()</script>')
    _, console, asked = browse(tmp_path, tmp_path / "a.html", "--dump-dom")
    assert asked == ["http://127.0.0.1:9/x"] and "no is not defined" in "".join(console)


def test_it_fits_a_phone_and_a_desk_and_asks_nothing_of_anyone(tmp_path):
    (tmp_path / "report.html").write_text(page(), encoding="utf-8")
    frames = "".join(
        f'<iframe width="{w}" height="900" src="report.html"></iframe>' for w in WIDTHS
    )
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames))
    shown, console, asked = browse(tmp_path, tmp_path / "frames.html", "--dump-dom")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', shown)[1])
    assert console == asked == []
    for width in WIDTHS:
        across, down, broken, wide = found[str(width)]
        assert across <= width and down > 2000, found
        assert broken == 0 and wide == 0, found


CLICK = """<script>
addEventListener("load", () => {
  const press = key => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const cards = () => document.querySelectorAll("#review-cards figure");
  const before = [...cards()].map(c => +c.dataset.row);
  press("a");                                             // accepts the first, moves on
  cards()[1].querySelector('[data-act="keep"]').click();  // keeps the second
  const other = cards()[2].querySelector("select");
  other.value = "5"; other.dispatchEvent(new Event("change"));
  cards()[3].querySelector('[data-act="unsure"]').click();
  press("u"); press("z");                                 // undone
  document.getElementById("review-on").click();
  const second = [...cards()].map(c => +c.dataset.row);
  document.getElementById("review-filter").value = "all";
  document.getElementById("review-filter").dispatchEvent(new Event("change"));
  let pages = document.getElementById("review-page").textContent;
  const found = {before, second, pages, csv: window.jaxrobustReview.csv(),
                 stored: Object.keys(localStorage).length};
  const pre = document.createElement("pre");
  pre.id = "found"; pre.textContent = JSON.stringify(found); document.body.append(pre);
});
</script>"""


def test_suspects_are_decided_by_mouse_and_keyboard_and_saved(tmp_path):
    text = page().replace("</body>", CLICK + "</body>")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    shown, console, asked = browse(tmp_path, tmp_path / "report.html", "--dump-dom")
    assert console == asked == []
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', shown)[1]))
    assert found["before"] == list(range(24)) and found["second"][0] == 24
    assert found["pages"] == "page 1 of 13" and found["stored"] == 1  # all 300, 24 to a page
    issues = made_issues()[0]
    (tmp_path / "decisions.csv").write_text(found["csv"])
    made = decisions.read(tmp_path / "decisions.csv", issues)
    first = np.argsort(issues.rank)[:4]
    assert [made.kind[i] for i in first] == ["accept", "keep", "other", "unsure"]
    assert made.label[first].tolist() == [
        issues.predicted_label[first[0]],
        issues.given_label[first[1]],
        5,
        -1,
    ]
    assert sum(map(bool, made.kind)) == 4


def test_it_prints_whole(tmp_path):
    pages = []
    for lines in (10, 1600):
        (tmp_path / "report.html").write_text(page(lines), encoding="utf-8")
        _, console, asked = browse(
            tmp_path,
            tmp_path / "report.html",
            "--no-pdf-header-footer",
            f"--print-to-pdf={tmp_path / 'report.pdf'}",
        )
        assert console == asked == []
        pages.append(len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())))
    assert 2 <= pages[0] <= 8 and pages[1] >= pages[0] + 4  # of 1600 lines none is cut off
