"""Charts of the report, read back: where their bars, lines, ticks and legends are."""

import re

import numpy as np
import pytest

from jaxrobust.audit import thumbnails as t


def rects(svg, color, bars=True):
    """(x, y, width, height) of the bars of a color; of the legend's squares where not `bars`."""
    found = re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="(#\w+)"/>', svg
    )
    numbers = [tuple(map(float, r[:4])) for r in found if r[4] == color]
    return [r for r in numbers if (r[2:] != (10, 10)) == bars]


def test_a_histogram_has_a_bar_where_the_values_are_as_high_as_their_share():
    values = np.array([0.02, 0.02, 0.02, 0.98, 0.5, 0.5])
    groups = {"a": np.array([1, 1, 1, 1, 0, 0], bool), "b": np.array([0, 0, 0, 0, 1, 1], bool)}
    svg = str(t.histogram(values, groups, "score"))
    first, second = rects(svg, t.COLORS[0]), rects(svg, t.COLORS[1])
    room = t.HEIGHT - t.BOTTOM - t.TOP
    bin_width = (t.WIDTH - t.LEFT - 8) / 25
    assert len(first) == 2 and len(second) == 1
    assert first[0][0] == pytest.approx(t.LEFT, abs=0.1)
    assert first[1][0] == pytest.approx(t.LEFT + 24 * bin_width, abs=0.1)
    assert second[0][0] == pytest.approx(t.LEFT + 12 * bin_width + bin_width / 2, abs=0.1)
    assert [r[3] for r in (*first, *second)] == pytest.approx(
        [0.75 * room, 0.25 * room, room], abs=0.1
    )
    for x, y, width, height in (*first, *second):
        assert y + height == pytest.approx(t.HEIGHT - t.BOTTOM, abs=0.11)  # they stand on the axis
        assert width == pytest.approx(bin_width / 2 - 0.5, abs=0.1)
        assert t.LEFT - 0.1 <= x and x + width <= t.WIDTH - 8 + 0.1


def test_bars_of_both_groups_stand_next_to_each_other():
    groups = {"a": np.array([True, False]), "b": np.array([False, True])}
    svg = str(t.histogram(np.array([0.5, 0.5]), groups, "score"))
    (left,), (right,) = rects(svg, t.COLORS[0]), rects(svg, t.COLORS[1])
    assert left[0] + left[2] <= right[0] and right[1] == left[1]


def test_a_group_of_none_has_no_bars():
    groups = {"a": np.ones(3, bool), "b": np.zeros(3, bool)}
    svg = str(t.histogram(np.array([0.1, 0.2, 0.3]), groups, "score"))
    assert rects(svg, t.COLORS[1]) == [] and len(rects(svg, t.COLORS[0])) == 3


def polyline(svg, color):
    points = re.search(rf'<polyline points="([^"]*)" fill="none" stroke="{color}"', svg)[1]
    return np.array([tuple(map(float, p.split(","))) for p in points.split()])


def test_curves_are_medians_over_the_training_between_their_quartiles():
    steps = 4
    values = np.tile(np.array([4.0, 2.0, 1.0, 0.0]), (5, 1)) + np.arange(-2, 3)[:, None] * 0.1
    groups = {"a": np.ones(5, bool), "b": np.zeros(5, bool)}
    svg = str(t.curves(values, groups))
    line, width = polyline(svg, t.COLORS[0]), t.WIDTH - t.LEFT - 8
    np.testing.assert_allclose(
        line[:, 0], t.LEFT + (np.arange(steps) + 0.5) / steps * width, atol=0.1
    )
    high, room = 4.1, t.HEIGHT - t.BOTTOM - t.TOP  # the greatest upper quartile
    bottom = t.HEIGHT - t.BOTTOM
    np.testing.assert_allclose(line[:, 1], bottom - values[2] / high * room, atol=0.1)
    band = re.search(rf'<polygon points="([^"]*)" fill="{t.COLORS[0]}"', svg)[1]
    band = np.array([float(p.split(",")[1]) for p in band.split()])
    np.testing.assert_allclose(band[:steps], bottom - (values[2] + 0.1) / high * room, atol=0.1)
    np.testing.assert_allclose(
        band[steps:][::-1], bottom - (values[2] - 0.1) / high * room, atol=0.1
    )
    assert t.COLORS[1] not in svg.split("<rect")[0]  # no line for nobody


def test_where_no_loss_is_known_the_one_before_stands():
    values = np.array([[1.0, np.nan, 3.0], [1.0, np.nan, 3.0]])
    np.testing.assert_array_equal(t._quartiles(values)[1], [1, 1, 3])
    np.testing.assert_array_equal(t._quartiles(values[:, 1:])[1], [0, 3])


def test_axes_have_their_numbers_where_these_are_and_a_legend_without_overlap():
    svg = str(t._chart([], ["first", "second"], (0.0, 1.0), (0.0, 3.0), "time", "loss"))
    texts = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg)
    at = {text: (float(x), float(y)) for x, y, text in texts}
    width, room = t.WIDTH - t.LEFT - 8, t.HEIGHT - t.BOTTOM - t.TOP
    for value in (0.25, 0.5, 0.75):
        assert at[f"{value:.2g}"][0] == pytest.approx(t.LEFT + value * width, abs=0.1)
    for value in (2, 3):
        y = t.HEIGHT - t.BOTTOM - value / 3 * room
        assert at[str(value)][1] == pytest.approx(y + 4, abs=0.1)  # centered on its height
        assert at[str(value)][0] < t.LEFT
    squares = [rects(svg, color, bars=False)[0] for color in t.COLORS]
    for square, name in zip(squares, ("first", "second"), strict=True):
        assert square[0] + 10 < at[name][0] < square[0] + 20  # its name is right of its square
        assert square[1] <= at[name][1] <= square[1] + 10
    assert at["first"][0] + 80 < squares[1][0]  # room for a name of ten letters
    assert squares[1][0] + 100 < t.WIDTH
    assert at["loss"] == (4, 12) and at["time"][1] > at["0.5"][1]
    assert 'aria-label="loss by time: first, second"' in svg
    axis = re.search(r'<path d="M(\d+),(\d+) V([\d.]+) H(\d+)"', svg)
    assert list(map(float, axis.groups())) == [t.LEFT, t.TOP, t.HEIGHT - t.BOTTOM, t.WIDTH - 8]


def test_an_image_up_to_64_pixels_stays_as_it_is_and_a_larger_one_is_a_small_jpeg():
    import base64
    import io

    from PIL import Image

    def opened(url):
        kind, _, content = url.partition(";base64,")
        return kind, Image.open(io.BytesIO(base64.b64decode(content)))

    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    kind, image = opened(t.thumbnail(pixels))
    assert kind == "data:image/png"
    np.testing.assert_array_equal(np.asarray(image), pixels)
    kind, image = opened(t.thumbnail(np.zeros((65, 400, 4), np.uint8)))
    assert kind == "data:image/jpeg" and image.size == (t.SIDE, 26) and image.mode == "RGB"
    kind, image = opened(t.thumbnail(np.array([[[300.0], [-5.0]]])))
    np.testing.assert_array_equal(np.asarray(image), [[255, 0]])  # out of range: clipped
