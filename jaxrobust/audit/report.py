"""The report of a run: one HTML file that opens anywhere, made from a template."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from jaxrobust.audit import decisions as reviewed
from jaxrobust.audit import thumbnails
from jaxrobust.audit.issues import LabelIssues

SHOWN, SHOWN_PER_CLASS = 24, 3
MOST_CLASSES = 20  # in a matrix, and with galleries of their own
MOST_FEATURES = 12
MOST_ROWS, MOST_IMAGES = 20_000, 400  # of the review: examples, and those with a picture
REVIEW_SIDE, MOST_BYTES = 96, 1_200_000  # of its pictures: pixels each, bytes together
FIGURES = (
    "learning_curves",
    "weight_by_rank",
    "weights",
    "weight_by_class",
    "curves",
    "margins",
    "learned",
)


def render(
    issues: LabelIssues,
    *,
    name: str,
    results: dict[str, Any],
    config: str,
    environment: dict[str, Any],
    true: np.ndarray | None = None,
    curves: np.ndarray | None = None,
    train: Any = "",
    figures: Path | None = None,
    features: Sequence[str] = (),
    decisions: reviewed.Decisions | None = None,
) -> str:
    """Returns the report as HTML; everything in it is embedded.

    Args:
      issues: what was found.
      name: of the run.
      results: what results.json says, with "audit".
      config, environment: the run's configuration as JSON, and versions.
      true: int [N], true labels, where they are known.
      curves: [N, S], losses over the training.
      train: the training examples, `x`, and perhaps a `note` to show; or why there are none.
      figures: folder of the run's figures; those that are there are embedded.
      features: names of the columns of a table, if they have any.
      decisions: what a reviewer decided before; shown as decided.
    """
    loader = jinja2.PackageLoader("jaxrobust.audit", "")
    page = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"percent": _percent, "number": _number, "shade": _shade, "score": _score}
    order = np.argsort(issues.rank)
    flagged = order[issues.is_label_issue[order]]
    sources = {"dynamics": "training dynamics", "prediction": "out-of-sample predictions"}
    return page.get_template("report.html.j2").render(
        name=name,
        results=results,
        audit=results["audit"],
        on_given=results.get("measured_on") == "given labels",
        config=config,
        environment=environment,
        issues=issues,
        classes=issues.class_names,
        truth_known=true is not None,
        sources=[sources.get(s, f"weights of {s}") for s in issues.scores],
        shown=[_card(issues, true, train, int(i)) for i in flagged[:SHOWN]],
        by_class=_by_class(issues, true, train, flagged),
        per_class=_per_class(issues, results),
        columns=_columns(train, features),
        note=train if isinstance(train, str) else getattr(train, "note", ""),
        matrices=_matrices(issues, results["audit"]),
        flows=_flows(issues),
        charts=_charts(issues, true, curves),
        review=_review(issues, true, train, order, decisions),
        figures=thumbnails.embedded(figures, FIGURES),
    )


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _score(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _shade(value: float, diagonal: bool) -> str:
    """Returns the style of a cell of a noise matrix; small shares off the diagonal show, too."""
    color, depth = ("52,101,164", value) if diagonal else ("217,113,28", min(3 * value, 1))
    return f"background: rgba({color},{depth:.2f}); color: {'#fff' if depth > 0.55 else '#222'}"


def _columns(train: Any, features: Sequence[str]) -> list[str]:
    """Returns names of the first columns of a table; none of images, or where there are no data."""
    if isinstance(train, str) or len(train.x.shape) != 2:
        return []
    if (raw := getattr(train, "table", None)) is not None:
        features = list(raw.columns)
    names = features if len(features) else range(train.x.shape[1])
    more = ["…"] if len(names) > MOST_FEATURES else []
    return [*map(str, names[:MOST_FEATURES]), *more]


def _card(
    issues: LabelIssues, true: np.ndarray | None, train: Any, i: int, side: int = thumbnails.SIDE
) -> dict[str, Any]:
    """Returns what is shown of one example."""
    names = (*issues.class_names, "?")
    card = {
        "index": int(issues.index[i]),
        "path": issues.paths[i] if issues.paths else None,
        "given": names[issues.given_label[i]],
        "suggested": names[issues.predicted_label[i]],
        "score": float(issues.label_score[i]),
        "rank": int(issues.rank[i]),
        "true": None if true is None else names[true[i]],
        "image": None,
        "features": None,
    }
    if isinstance(train, str):
        return card
    if (raw := getattr(train, "table", None)) is not None:
        return card | {"features": _shown(raw[i])}
    try:
        x = np.asarray(train.x[i])
    except (OSError, ValueError):  # The file has gone, or is damaged, since.
        return card
    if x.ndim == 1:
        return card | {"features": _shown(x)}
    return card | {"image": thumbnails.thumbnail(x, side), "pixelated": max(x.shape[:2]) < 64}


def _shown(row: np.ndarray, most: int = 40) -> list[str]:
    """Returns the first cells of a row of numbers or of a table as texts; "–" for missing."""
    cells = []
    for value in row[:MOST_FEATURES].tolist():
        if value is None or value != value:
            cells.append("–")
        elif isinstance(value, float):
            cells.append(f"{value:.4g}")
        else:
            text = str(value)
            cells.append(text if len(text) <= most else text[: most - 1] + "…")
    return [*cells, "…"] if len(row) > MOST_FEATURES else cells


def _review(
    issues: LabelIssues,
    true: np.ndarray | None,
    train: Any,
    order: np.ndarray,
    decisions: reviewed.Decisions | None,
) -> dict[str, Any]:
    """Returns what the review section needs: rows by suspicion, pictures of the first ones."""
    order = np.concatenate(
        [order[issues.is_label_issue[order]], order[~issues.is_label_issue[order]]]
    )[:MOST_ROWS]
    made = decisions or reviewed.none(issues)
    images, features = {}, {}
    for place, i in enumerate(order[:MOST_IMAGES].tolist()):
        card = _card(issues, true, train, i, REVIEW_SIDE)
        if card["image"]:
            images[place] = card["image"]
            if sum(map(len, images.values())) > MOST_BYTES:
                break
        elif card["features"]:
            features[place] = ", ".join(card["features"])
    small = not isinstance(train, str) and len(train.x.shape) > 2 and max(train.x.shape[1:3]) < 64
    rows = [
        [
            int(issues.index[i]),
            issues.paths[i] if issues.paths else None,
            int(issues.given_label[i]),
            int(issues.predicted_label[i]),
            _score(issues.label_score[i]),
            bool(issues.is_label_issue[i]),
        ]
        for i in order.tolist()
    ]
    text = f"{issues.class_names}{issues.paths}".encode()
    fingerprint = zlib.crc32(issues.given_label.tobytes(), zlib.crc32(text))
    return {
        "classes": list(issues.class_names),
        "rows": rows,
        "images": images,
        "features": features,
        "pixelated": bool(small),
        "fingerprint": f"{fingerprint:08x}-{len(issues)}",
        "left_out": len(issues) - len(rows),
        "decisions": {
            place: [made.kind[i], int(made.label[i])]
            for place, i in enumerate(order.tolist())
            if made.kind[i]
        },
    }


def _by_class(issues, true, train, flagged) -> list[dict[str, Any]]:
    """Returns what is shown of the most suspect examples of each class that are not shown yet."""
    k = len(issues.class_names)
    rest = flagged[SHOWN:]
    picked = [rest[issues.given_label[rest] == c][:SHOWN_PER_CLASS] for c in range(k)]
    if k > MOST_CLASSES:
        return []
    return [_card(issues, true, train, int(i)) for members in picked for i in members]


def _per_class(issues: LabelIssues, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each class, by given label."""
    k = len(issues.class_names)
    count = np.bincount(issues.given_label, minlength=k)
    flagged = np.bincount(issues.given_label, issues.is_label_issue, k)
    wrong = np.bincount(issues.given_label, 1 - issues.label_score, k)
    weight = np.bincount(issues.given_label, issues.weight, k)
    truth = results["audit"]["truth"]
    test = results.get("last", {}).get("per_class") or [None] * k
    rows = []
    for c, name in enumerate(issues.class_names):
        n = int(count[c])
        rows.append(
            {
                "name": name,
                "examples": n,
                "flagged": int(flagged[c]),
                "noise": wrong[c] / n if n else None,
                "weight": weight[c] / n if n else None,
                "accuracy": test[c],
                "truth": truth["per_class"][c] if truth else None,
            }
        )
    return rows


def _matrices(issues: LabelIssues, audit: dict[str, Any]) -> list[tuple[str, list]]:
    if issues.noise_matrix is None or len(issues.class_names) > MOST_CLASSES:
        return []
    found = [("Estimated", issues.noise_matrix.tolist())]
    if audit["truth"]:
        found.append(("True", audit["truth"]["noise_matrix"]))
    return found


def _flows(issues: LabelIssues, most: int = 12) -> list[dict[str, Any]]:
    """Returns the commonest replacements among the flagged examples."""
    k, flagged = len(issues.class_names), issues.is_label_issue & (issues.predicted_label >= 0)
    place = issues.given_label[flagged].astype(np.int64) * k + issues.predicted_label[flagged]
    pairs, count = np.unique(place, return_counts=True)
    first = np.argsort(-count, kind="stable")[:most]
    return [
        {"given": issues.class_names[p // k], "suggested": issues.class_names[p % k], "count": n}
        for p, n in zip(pairs[first].tolist(), count[first].tolist(), strict=True)
    ]


def _charts(issues: LabelIssues, true, curves) -> list[dict[str, Any]]:
    """Returns histograms of score and weight, and mean curves, each of two groups."""
    flagged = issues.is_label_issue
    groups = {"not flagged": ~flagged, "flagged": flagged}
    if true is not None:
        wrong = issues.given_label != true
        groups = {"right label": ~wrong, "wrong label": wrong}
    charts = [
        {
            "title": "Score",
            "caption": "Probability that the given label is right.",
            "svg": thumbnails.histogram(issues.label_score, groups, "score"),
        }
    ]
    if not np.array_equal(issues.weight, issues.label_score):
        charts.append(
            {
                "title": "Weight",
                "caption": "How far the method trusted each example in the end.",
                "svg": thumbnails.histogram(issues.weight, groups, "weight"),
            }
        )
    if curves is not None and curves.shape[1] > 1:
        charts.append(
            {
                "title": "Loss curves",
                "caption": "Cross-entropy to the given label as met in training: median and middle "
                "half of each group.",
                "svg": thumbnails.curves(np.asarray(curves, np.float32), groups),
            }
        )
    return charts
