"""Pictures of curves and weights: what is grouped, what is drawn, and what may be missing."""

import numpy as np
import pytest

from jaxrobust.training import learned, weight_figures


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    given = np.repeat(np.arange(6), [50, 30, 20, 10, 5, 0])
    true = np.where(rng.random(len(given)) < 0.3, 0, given)
    return rng, given, true, [f"<{k}>" for k in range(6)]


def test_classes_are_thirds_by_size_and_empty_ones_in_none():
    found = weight_figures.thirds([5, 50, 0, 20, 10])
    assert {name: list(which) for name, which in found.items()} == {
        "head": [1, 3], "medium": [4], "tail": [0]
    }
    assert [len(which) for which in weight_figures.thirds([3, 2]).values()] == [1, 1, 0]


@pytest.mark.parametrize("known", [True, False])
def test_every_panel_draws_the_mean_of_its_kinds(examples, known):
    rng, given, true, names = examples
    true = true if known else None
    curves = rng.random((len(given), 7)).astype(np.float16)
    figure = weight_figures.curves_by_kind(curves, given, true, names)
    head, medium, tail = figure.axes
    inside = np.isin(given, [0, 1])
    clean = inside & (given == true) if known else inside
    np.testing.assert_allclose(
        head.lines[0].get_ydata(), curves[clean].astype(np.float64).mean(0), rtol=1e-3
    )
    assert [len(ax.lines) for ax in figure.axes] == ([2, 2, 2] if known else [1, 1, 1])
    weights = rng.random(len(given))
    figure = weight_figures.weights_by_kind(weights, given, true, names)
    heights = [sum(p.get_height() for p in c.patches) for c in figure.axes[0].containers]
    np.testing.assert_allclose(heights, np.ones(2 if known else 1))
    figure = weight_figures.weight_against_loss(weights, curves[:, -1], given, true, names)
    points = sum(len(c.get_offsets()) for ax in figure.axes for c in ax.collections)
    assert points == len(given)


def test_the_history_follows_each_class_and_is_none_without_weights(examples):
    _, given, true, names = examples
    counts = np.bincount(given, minlength=6)
    assert weight_figures.weight_by_class_history([{"epoch": 1}], counts, names) is None
    rows = [{"epoch": e, "weight_by_class": [e, 2, 3, 4, 5, None]} for e in (1, 2)]
    figure = weight_figures.weight_by_class_history(rows, counts, names)
    assert [list(line.get_ydata()) for line in figure.axes[0].lines[:2]] == [[1, 2], [2, 2]]
    rows = [row | {"weight_clean_by_class": row["weight_by_class"],
                   "weight_wrong_by_class": [0] * 6} for row in rows]
    assert len(weight_figures.weight_by_class_history(rows, counts, names).axes) == 2


def test_numbers_of_weights_pooled_and_within_classes():
    """Two classes weighted as wholes: apart within each, not together."""
    given = np.array([0, 0, 0, 1, 1, 1])
    true = np.array([0, 0, 1, 1, 1, 0])
    report = {"weights": np.array([0.3, 0.2, 0.1, 0.9, 0.8, 0.7])}
    row = learned.numbers(report, given, true, 3)
    assert row["weight_auroc_within_class"] == 1 and row["weight_auroc"] == 0.75
    np.testing.assert_allclose(row["weight_by_class"][:2], [0.2, 0.8])
    assert row["weight_by_class"][2] is None and row["weight_clean_by_class"][0] == 0.25
    assert row["weight_wrong_by_class"] == [0.1, 0.7, None]
    assert learned.numbers(report, given, None, 3) == {"weight_by_class": row["weight_by_class"]}


def test_files_drawn_at_the_end_and_on_the_way(examples, tmp_path):
    rng, given, true, names = examples
    report = {"weights": rng.random(len(given)), "curves": rng.random((len(given), 4))}
    options = {"given": given, "true": true, "class_names": names}
    on_the_way = learned.draw(report, tmp_path, **options, prefix="0003_")
    assert [p.name for p in on_the_way] == ["0003_weights.png"]
    at_the_end = {p.name for p in learned.draw(report, tmp_path, **options)}
    assert at_the_end == {"weights.png", "curves.png", "weight_against_loss.png"}
    rows = [{"epoch": 1, "weight_auroc": 0.5} | learned.numbers(report, given, true, 6)]
    files = learned.draw_history(rows, tmp_path, np.bincount(given, minlength=6), names)
    assert [p.name for p in files] == ["weight_by_class.png", "learned.png"]
