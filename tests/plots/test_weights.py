"""Pictures of curves and weights: what is grouped, what is drawn, and what may be missing."""

import numpy as np
import pytest

from jaxrobust.plots import learned
from jaxrobust.plots import weights as weight_figures
from jaxrobust.runs import diagnostics


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    given = np.repeat(np.arange(6), [50, 30, 20, 10, 5, 0])
    true = np.where(rng.random(len(given)) < 0.3, 0, given)
    return rng, given, true, [f"<{k}>" for k in range(6)]


def test_classes_are_thirds_by_size_and_empty_ones_in_none():
    found = weight_figures.thirds([5, 50, 0, 20, 10])
    assert {name: list(which) for name, which in found.items()} == {
        "head": [1, 3],
        "medium": [4],
        "tail": [0],
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
    rows = [
        row | {"weight_clean_by_class": row["weight_by_class"], "weight_wrong_by_class": [0] * 6}
        for row in rows
    ]
    assert len(weight_figures.weight_by_class_history(rows, counts, names).axes) == 2


def test_numbers_of_weights_pooled_and_within_classes():
    """Two classes weighted as wholes: apart within each, not together."""
    given = np.array([0, 0, 0, 1, 1, 1])
    true = np.array([0, 0, 1, 1, 1, 0])
    report = {"weights": np.array([0.3, 0.2, 0.1, 0.9, 0.8, 0.7])}
    row = diagnostics.numbers(report, given, true, 3)
    assert row["weight_auroc_within_class"] == 1 and row["weight_auroc"] == 0.75
    np.testing.assert_allclose(row["weight_by_class"][:2], [0.2, 0.8])
    assert row["weight_by_class"][2] is None and row["weight_clean_by_class"][0] == 0.25
    assert row["weight_wrong_by_class"] == [0.1, 0.7, None]
    by_class = {"weight_by_class": row["weight_by_class"]}
    assert diagnostics.numbers(report, given, None, 3) == by_class


def test_corrected_labels_are_counted_apart_for_right_and_wrong_given_labels():
    """Six examples; 4 given labels are right. Corrected: 3 of these 4 stay, 1 of 2 is mended."""
    true = np.array([0, 0, 1, 1, 2, 2])
    given = np.array([0, 0, 1, 1, 0, 1])
    corrected = np.array([0, 0, 1, 2, 2, 1])
    report = {"corrected": corrected, "metadata": np.array([0, 2, 4])}
    row = diagnostics.numbers(report, given, true, 3)
    assert row["corrected_accuracy"] == 4 / 6
    assert row["corrected_accuracy_clean"] == 3 / 4 and row["corrected_accuracy_wrong"] == 1 / 2
    assert row["metadata_clean_share"] == 2 / 3
    assert diagnostics.numbers(report, given, None, 3) == {}


def test_the_weight_by_rank_stands_before_the_share_of_right_labels():
    """20 ranks in ten bins of two; those of class 1: 0, 1 (right, right), 1, 19 (wrong, wrong)."""
    given, rank = np.array([1, 0, 1, 1, 1]), np.array([0, 7, 1, 1, 19])
    true = np.array([1, 0, 1, 0, 0])
    weights = np.linspace(0, 1, 40).reshape(20, 2)
    figure = learned.weight_by_rank(weights, rank, given, true, ["<a>", "<b>"])
    bars = [(p.get_x() + p.get_width() / 2, p.get_height()) for p in figure.axes[1].patches]
    expected = [(1 + 2 * i, 2 / 3 if i == 0 else 0) for i in range(10)]
    np.testing.assert_allclose(bars, expected, atol=1e-9)
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), weights[:, 1])
    assert [ax.get_title() for ax in figure.axes] == ["<a>", "<b>"]
    figure = learned.weight_by_rank(weights, rank, given, None, ["<a>", "<b>"])
    assert not figure.axes[1].patches


def test_margins_are_bars_beside_the_number_of_examples():
    figure = learned.margin_by_class(np.array([0.5, 2.0, -1.0]), np.array([0, 0, 2]), "abc")
    margins, counts = figure.axes
    assert [bar.get_height() for bar in margins.patches] == [0.5, 2.0, -1.0]
    np.testing.assert_array_equal(counts.lines[0].get_ydata(), [2, 0, 1])
    assert [t.get_text() for t in margins.get_xticklabels()] == ["a", "b", "c"]


def test_the_band_about_a_mean_curve_holds_the_middle_half():
    curves = np.arange(5.0)[:, None] ** 2 * np.array([[1.0, 2.0]])  # 0 1 4 9 16, and twice that
    figure = weight_figures.curves_by_kind(curves, np.zeros(5, int), None, ["<a>"])
    (band,), (line,) = figure.axes[0].collections, figure.axes[0].lines
    corners = band.get_paths()[0].vertices
    for epoch, (low, high) in ((1, (1, 9)), (2, (2, 18))):
        heights = corners[corners[:, 0] == epoch, 1]
        assert (heights.min(), heights.max()) == (low, high)
    np.testing.assert_allclose(line.get_ydata(), [6, 12])


def test_files_drawn_at_the_end_and_on_the_way(examples, tmp_path):
    rng, given, true, names = examples
    report = {"weights": rng.random(len(given)), "curves": rng.random((len(given), 4))}
    options = {"given": given, "true": true, "class_names": names}
    on_the_way = learned.draw(report, tmp_path, **options, prefix="0003_")
    assert [p.name for p in on_the_way] == ["0003_weights.png"]
    at_the_end = {p.name for p in learned.draw(report, tmp_path, **options)}
    assert at_the_end == {"weights.png", "curves.png", "weight_against_loss.png"}
    rows = [{"epoch": 1, "weight_auroc": 0.5} | diagnostics.numbers(report, given, true, 6)]
    files = learned.draw_history(rows, tmp_path, np.bincount(given, minlength=6), names)
    assert [p.name for p in files] == ["weight_by_class.png", "learned.png"]
