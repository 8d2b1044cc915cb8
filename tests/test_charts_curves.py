"""Plots of curves: ranges, ticks, decimation, paths, and what the drawing and its data hold."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.charts.axes import (
    Axis,
    YRange,
    as_floats,
    decimate,
    format_position,
    format_value,
    log_ticks,
    nice_ticks,
    robust_range,
    tick_labels,
)
from reportgen.charts.curves import (
    CurveLine,
    HorizontalMark,
    VerticalMark,
    curve_plot,
    plot_range,
)
from reportgen.charts.paths import area_path, clipped, dots_path, line_path, simplified
from reportgen.charts.sparkline import sparkline
from reportgen.charts.svg import bare, inline, standalone

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</metadata><script>alert(1)</script> & \"quoted\" 'single' 😀 עברית \u202e \x00 \ud800"
floats = st.floats(-1e9, 1e9)
any_floats = st.floats(allow_nan=True, allow_infinity=True)


def _line(values: list[float | None], **more: Any) -> CurveLine:
    return CurveLine(
        **{"name": "run", "xs": [float(n) for n in range(len(values))], "values": values, **more}
    )


def _root(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def _data(svg: str) -> dict[str, Any]:
    text = _root(svg).findtext(f"{SVG}metadata")
    assert text is not None
    data: dict[str, Any] = json.loads(text)
    return data


def _texts(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in _root(svg).iter(f"{SVG}text")]


def _points(path: str) -> list[list[tuple[float, float]]]:
    """The stretches of a path of absolute and relative moves, read as SVG reads it."""
    stretches: list[list[tuple[float, float]]] = []
    for command, numbers in re.findall(r"([MlhHz])([^MlhHz]*)", path):
        values = [float(number) for number in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", numbers)]
        if command == "M":
            stretches.append([(values[0], values[1])])
        elif command == "l":
            for dx, dy in zip(values[::2], values[1::2], strict=True):
                x, y = stretches[-1][-1]
                stretches[-1].append((x + dx, y + dy))
    return stretches


# ---- ticks and numbers ---------------------------------------------------------------------------


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.integers(3, 12))
def test_ticks_are_round_equally_spaced_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return
    ticks = nice_ticks(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in ticks)
    gaps = [b - a for a, b in pairwise(ticks)]
    for gap in gaps:
        assert gap == pytest.approx(gaps[0], rel=1e-5)
        mantissa = gap / 10 ** math.floor(math.log10(gap) + 1e-6)
        assert min(abs(mantissa - nice) for nice in (1, 2, 5, 10)) < 1e-3
    assert len(set(tick_labels(ticks))) == len(ticks)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.0, 0.25, 0.5], ["0.00", "0.25", "0.50"]),
        ([0.0, 2000.0, 4000.0], ["0", "2,000", "4,000"]),
        ([0.0, 5000.0, 10000.0], ["0", "5k", "10k"]),
        ([0.0, 5e5, 1e6], ["0", "0.5M", "1M"]),
        ([1e6, 1e6 + 500], ["1,000k", "1000.5k"]),
        ([0.0, 2e-5, 4e-5], ["0", "2e-5", "4e-5"]),
        ([-1.0, 0.0, 1.0], ["−1", "0", "1"]),
        ([0.99998, 0.99999, 1.0], ["0.99998", "0.99999", "1.00000"]),
        ([0.0], ["0"]),
    ],
)
def test_labels_of_ticks(ticks: list[float], labels: list[str]) -> None:
    assert [label.replace("1000k", "1,000k") for label in tick_labels(ticks)] == labels


def test_a_log_axis_has_powers_of_ten_and_falls_back_to_linear_within_one() -> None:
    assert log_ticks(1e-4, 10, 8) == [1e-4, 1e-3, 0.01, 0.1, 1, 10]
    assert log_ticks(1e-12, 1, 5) == [1e-12, 1e-9, 1e-6, 1e-3, 1]
    assert log_ticks(0.5, 30, 8) == [1, 3, 10, 30]
    assert log_ticks(2.1, 2.9, 8) == []
    assert Axis(low=2.1, high=2.9, start=0, end=1, log=True).ticks(5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1e6, "1e6"), (0.91234, "0.9123"), (12346.0, "12,346"), (1.5e-6, "1.5e-6"),
        (-0.5, "−0.5"), (3.0, "3"), (math.nan, "NaN"), (math.inf, "Inf"), (0.00099996, "0.001"),
    ],
)  # fmt: skip
def test_values_have_four_significant_digits(value: float, text: str) -> None:
    assert format_value(value) == text


def test_positions_are_whole_steps_or_parts_of_epochs() -> None:
    assert format_position(1_234_567) == "1,234,567"
    assert format_position(12.25) == "12.25"


# ---- the vertical range --------------------------------------------------------------------------


def _range(values: Any, **more: Any) -> YRange:
    ys = as_floats(values)
    return robust_range([(np.arange(len(ys), dtype=float), ys)], **more)


def test_one_spike_is_left_out_and_named() -> None:
    ys = np.exp(-np.arange(1000) / 300) + 1
    ys[812] = 1e6
    limits = _range(ys)
    assert limits.high < 2.5
    assert limits.outside == 1
    assert limits.highest == (812, 1e6)
    assert limits.lowest is None


def test_best_and_last_are_inside_even_if_they_lie_far_out() -> None:
    ys = np.ones(1000)
    ys[-1] = 50.0
    assert _range(ys, keep=[50.0]).high >= 50.0


def test_a_short_series_is_not_hidden_by_a_long_one() -> None:
    train = np.linspace(1.0, 0.5, 10_000)
    validation = np.full(12, 8.0)
    limits = robust_range([(np.arange(len(ys), dtype=float), ys) for ys in (train, validation)])
    assert limits.low < 0.5
    assert limits.high > 8.0
    assert limits.outside == 0


@pytest.mark.parametrize("value", [1e-3, 0.1, 5.0, -2.0, 1e9])
def test_a_constant_series_has_an_axis_around_it(value: float) -> None:
    limits = _range([value] * 50)
    assert limits.low == pytest.approx(value - abs(value) / 2)
    assert limits.high == pytest.approx(value + abs(value) / 2)
    assert _range(np.float32([value] * 50)).high == pytest.approx(value + abs(value) / 2)


def test_zero_and_nothing_have_an_axis_too() -> None:
    assert (_range([0.0] * 9).low, _range([0.0] * 9).high) == (-1.0, 1.0)
    assert (_range([]).low, _range([math.nan]).high) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("ys", "log"),
    [
        (np.exp(-np.arange(2000) / 200), True),  # decays over four decades
        (10.0 ** np.linspace(0, -6, 50), True),
        (np.exp(-np.arange(2000) / 200) - 1e-3, False),  # ends below zero
        (2 + np.exp(-np.arange(2000) / 200), False),
        (3e-4 * 0.5 * (1 + np.cos(np.linspace(0, math.pi, 500))) + 1e-9, False),  # cosine schedule
        (np.linspace(1, 1000, 500), False),  # three decades, and evenly spread
        (np.where(np.arange(1000) == 500, 1e9, 1.0), False),  # one outlier is no decade
    ],
)
def test_the_axis_is_logarithmic_if_a_linear_one_would_hide_half_of_the_points(
    ys: Any, log: bool
) -> None:
    assert _range(ys).log is log


def test_the_caller_may_choose_the_scale_unless_values_forbid_it() -> None:
    ys = np.exp(-np.arange(2000) / 200)
    assert _range(ys, scale="linear").log is False
    assert _range(2 + ys, scale="log").log is True
    assert _range(ys - 0.5, scale="log").log is False


def test_the_range_begins_at_zero_where_that_is_cheap() -> None:
    assert _range(np.linspace(0.1, 2, 100)).low == 0.0
    assert _range(np.linspace(0.8, 0.9, 100)).low > 0.7
    assert -0.1 < _range(np.linspace(0, 2, 100)).low < 0


def test_a_reference_widens_the_range_unless_it_would_halve_the_curve() -> None:
    ys = np.linspace(1, 2, 100)
    assert _range(ys, include=[2.8]).high > 2.8
    assert _range(ys, include=[50.0]).high < 3


@given(st.lists(st.lists(any_floats, max_size=60), max_size=4), st.lists(floats, max_size=3))
def test_few_points_of_any_series_are_outside_and_kept_ones_never(
    lists: list[list[float]], keep: list[float]
) -> None:
    series = [(np.arange(len(ys), dtype=float), as_floats(ys)) for ys in lists]
    limits = robust_range(series, keep=keep)
    assert math.isfinite(limits.low)
    assert math.isfinite(limits.high)
    assert limits.low < limits.high
    assert all(limits.low <= value <= limits.high for value in keep)
    outside = 0
    for _, ys in series:
        out = int(((ys < limits.low) | (ys > limits.high)).sum())
        assert out <= 2 * max(1, len(ys) // 100)
        assert not out or len(ys) >= 8
        outside += out
    assert limits.outside == outside
    assert (limits.highest is None and limits.lowest is None) == (outside == 0)


# ---- decimation ----------------------------------------------------------------------------------


@given(st.lists(any_floats, min_size=1, max_size=300), st.integers(4, 60), st.data())
def test_decimation_keeps_ends_extremes_and_what_it_must(
    values: list[float], most: int, data: st.DataObject
) -> None:
    ys = np.array(values)
    keep = data.draw(st.lists(st.integers(0, len(ys) - 1), max_size=2))
    chosen = decimate(ys, most, keep)
    assert len(chosen) <= max(most, 0)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert {0, len(ys) - 1, *keep} <= set(chosen.tolist())
    finite = np.isfinite(ys)
    if finite.any() and most >= 6:
        kept = ys[chosen]
        assert np.nanmin(np.where(np.isfinite(kept), kept, np.nan)) == ys[finite].min()
        assert np.nanmax(np.where(np.isfinite(kept), kept, np.nan)) == ys[finite].max()


def test_decimation_without_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 points"):
        decimate(np.arange(100.0), 3, [5, 6, 7])


# ---- paths ---------------------------------------------------------------------------------------

pixels = st.lists(st.one_of(st.floats(0, 800), st.just(math.nan)), min_size=1, max_size=40).map(
    lambda ys: np.array(ys)
)


@given(pixels)
def test_a_path_goes_through_all_points_and_stops_at_nan(ys: np.ndarray) -> None:
    xs = np.arange(len(ys), dtype=float) * 3
    drawn = [point for stretch in _points(line_path(xs, ys)) for point in stretch]
    for x, y in zip(xs, ys, strict=True):
        if not math.isnan(y):
            assert any(abs(x - px) < 0.051 and abs(y - py) < 0.051 for px, py in drawn)
    runs = np.diff(np.concatenate([[False], np.isfinite(ys)]).astype(int))
    assert len(_points(line_path(xs, ys))) == int((runs == 1).sum())
    assert len(_points(dots_path(xs, ys))) == int(np.isfinite(ys).sum())


@given(pixels, st.floats(10, 300), st.floats(310, 700))
def test_a_clipped_line_is_the_part_of_it_inside(ys: np.ndarray, top: float, bottom: float) -> None:
    xs = np.arange(len(ys), dtype=float)
    cx, cy = clipped(xs, ys, top, bottom)
    shown = np.isfinite(cy)
    assert ((cy[shown] >= top - 1e-9) & (cy[shown] <= bottom + 1e-9)).all()
    for x, y in zip(cx[shown], cy[shown], strict=True):
        left = min(int(x), len(ys) - 1)
        right = min(left + 1, len(ys) - 1)
        assert y == pytest.approx(
            ys[left] + (x - left) * (ys[right] - ys[left]) if x > left else ys[left], abs=1e-6
        )
    inside = np.isfinite(ys) & (ys >= top) & (ys <= bottom)
    assert set(xs[inside]) <= set(cx[shown])


def test_a_segment_that_crosses_the_whole_plot_is_drawn() -> None:
    x, y = clipped(np.array([0.0, 1.0]), np.array([-10.0, 30.0]), 0, 20)
    assert list(x) == pytest.approx([0.25, 0.75, 1.0])
    assert list(y[:2]) == [0, 20]
    assert math.isnan(y[2])


def test_simplifying_keeps_the_curve() -> None:
    x = np.linspace(0, 300, 500)
    y = 100 + 50 * np.sin(x / 40)
    few_x, few_y = simplified(x, y, 0.1)
    assert len(few_x) < 150
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.4


def test_an_area_is_closed_once_per_stretch() -> None:
    x = np.arange(5.0)
    upper = np.array([5.0, 5, math.nan, 5, 5])
    path = area_path(x, upper, upper + 3)
    assert path.count("M") == path.count("z") == 2
    assert _points(path)[0] == [(0, 5), (1, 5), (1, 8), (0, 8)]


# ---- plots ---------------------------------------------------------------------------------------


def _noisy(points: int = 500) -> CurveLine:
    x = np.arange(points) * 20.0
    y = 0.3 + np.exp(-x / 2000) + np.random.default_rng(0).standard_normal(points) * 0.05
    smooth = 0.3 + np.exp(-x / 2000)
    return CurveLine(
        name="resnet", role="train", xs=x, values=y, smoothed=smooth, times=1.7e9 + x / 3,
        epochs=x / 500, best=(float(x[y.argmin()]), float(y.min())),
        last=(float(x[-1]), float(y[-1])),
    )  # fmt: skip


def test_the_data_of_a_plot_are_the_points_it_was_given() -> None:
    line = _noisy()
    data = _data(curve_plot("train/loss", [line]).svg)
    (embedded,) = data["lines"]
    assert data["title"] == "train/loss"
    assert np.cumsum(data["x"][embedded["x"]]).tolist() == list(line.xs)
    assert embedded["y"] == pytest.approx(list(line.values), rel=5e-6)
    assert embedded["s"] == pytest.approx(list(line.smoothed), rel=5e-5)
    assert embedded["best"] == pytest.approx(list(line.best or ()), rel=1e-5)
    for name, values in (
        ("t", np.array(line.times) - embedded["t0"]),
        ("e", np.array(line.epochs)),
    ):
        knots = np.interp(np.array(line.xs), *embedded[name])
        assert np.abs(knots - values).max() <= 1e-3 * np.ptp(values) + 0.01


def test_positions_that_are_not_whole_are_written_as_they_are() -> None:
    line = CurveLine(name="", xs=[0.5, 1.0, 2.25], values=[1, 2, 3])
    data = _data(curve_plot("t", [line]).svg)
    assert data["steps"] == 0
    assert data["x"] == [[0.5, 1.0, 2.25]]


def test_lines_of_equal_positions_share_them() -> None:
    lines = [_line([1, 2, 3]), _line([3, 2, 1]), _line([1, 2])]
    data = _data(curve_plot("t", lines).svg)
    assert [line["x"] for line in data["lines"]] == [0, 0, 1]


def test_a_line_of_500_points_takes_about_12_kilobytes() -> None:
    assert len(curve_plot("train/loss", [_noisy()]).svg) < 16_000
    assert len(bare(curve_plot("train/loss", [_noisy()]).svg)) < 7_000
    assert len(sparkline("train/loss", [_noisy()])) < 1_700


def test_raw_is_thin_smoothed_is_thick_and_validation_dashed() -> None:
    validation = _line([1.0] * 40, role="validation", color=1)
    svg = curve_plot("t", [_noisy(), validation]).svg
    strokes = {
        group.attrib["class"]: [
            (p.attrib["stroke-width"], p.attrib.get("stroke-dasharray")) for p in group
        ]
        for group in _root(svg).iter(f"{SVG}g")
        if group.attrib.get("stroke-linejoin")
    }
    assert strokes["l0"] == [("1", None), ("1.8", None)]
    assert strokes["l1"] == [("1.8", "5 3")]


def test_few_points_are_dots_and_many_are_not() -> None:
    few = curve_plot("t", [_line([float(n) for n in range(10)])]).svg
    assert max(path.count("h0") for path in re.findall(r' d="([^"]*)"', few)) == 10
    assert "h0" not in curve_plot("t", [_line([float(n) for n in range(40)])]).svg


def test_best_and_last_are_marked_where_they_are() -> None:
    ys = [3.0, 1.0, 2.0, 2.5]
    svg = curve_plot("t", [_line(ys, best=(1.0, 1.0), last=(3.0, 2.5))]).svg
    left, right, top, bottom, low, high = _data(svg)["area"]
    least, most, _ = _data(svg)["y"]

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - low) / (high - low) * (right - left)
        return across, bottom - (y - least) / (most - least) * (bottom - top)

    circles = [
        (float(c.attrib["cx"]), float(c.attrib["cy"])) for c in _root(svg).iter(f"{SVG}circle")
    ]
    assert circles[0] == pytest.approx(place(3, 2.5), abs=0.06)
    assert circles[1] == pytest.approx(place(1, 1), abs=0.06)
    assert "1" in _texts(svg)


def test_outliers_are_counted_with_all_points_and_announced() -> None:
    ys = [1.0 + (n % 7) / 10 for n in range(10_000)]
    ys[812], ys[900], ys[901] = 1e6, 1e5, -50.0
    every = _line(ys)
    limits = plot_range([every])
    chosen = decimate(as_floats(ys), 200)
    few = CurveLine(name="run", xs=np.array(every.xs)[chosen], values=np.array(ys)[chosen])
    plot = curve_plot("t", [few], y_range=limits)
    assert plot.outside == 3
    texts = " ".join(_texts(plot.svg))
    assert "3 points outside, max 1e6 at step 812" in texts
    assert "min −50 at step 901" in texts
    data = _data(plot.svg)
    assert data["highest"] == [812, 1e6]
    assert data["lowest"] == [901, -50]


def test_nan_and_infinities_are_marked_at_their_step() -> None:
    line = _line(
        [1.0, 2.0, None, 3.0, None], non_finite=[(2.0, "nan"), (4.0, "inf")], non_finite_count=2
    )
    svg = curve_plot("t", [line]).svg
    assert svg.count('class="alarm"') == svg.count('class="bad"') == 1
    assert "2 points NaN and Inf, first at step 2" in _texts(svg)
    assert _data(svg)["lines"][0]["nf"] == [[2, "nan"], [4, "inf"]]
    assert _data(svg)["lines"][0]["y"] == [1, 2, None, 3, None]


def test_a_thousand_nan_are_one_mark() -> None:
    many = [(float(n), "nan") for n in range(1000)]
    plot = curve_plot("t", [_line([1.0] * 1000, non_finite=many)])
    (mark,) = [e for e in _root(plot.svg).iter(f"{SVG}path") if e.attrib.get("class") == "alarm"]
    assert mark.attrib["d"].count("l7 7") == 1


def test_references_marks_and_ranges_are_drawn_or_named() -> None:
    line = _line([1.0 + n / 100 for n in range(100)])
    svg = curve_plot(
        "t", [line],
        references=[
            HorizontalMark(label="baseline", value=1.5), HorizontalMark(label="far", value=90),
        ],
        marks=[VerticalMark(label="resumed", x=50)], valid=(1.2, None),
    ).svg  # fmt: skip
    texts = _texts(svg)
    assert "baseline" in texts
    assert "resumed" in texts
    assert "far (90) is above" in texts
    assert svg.count('class="invalid"') == 1
    data = _data(svg)
    assert data["references"] == [["baseline", 1.5], ["far", 90]]
    assert data["marks"] == [["resumed", 50]]
    assert data["valid"] == [1.2, None]


def test_a_band_is_drawn_and_earlier_attempts_are_gray() -> None:
    mean = _line([1.0, 2.0, 3.0], low=[0.5, 1.5, 2.5], high=[1.5, 2.5, 3.5], color=2)
    old = _line([3.0, 2.0, 1.0], faded=True)
    svg = curve_plot("t", [mean, old]).svg
    assert 'class="s2"' in svg
    assert svg.count('fill-opacity=".18"') == 1
    assert _data(svg)["lines"][0]["faded"] == 1  # drawn first, behind the others
    assert _data(svg)["lines"][1]["lo"] == [0.5, 1.5, 2.5]


def test_the_legend_names_runs_and_roles_once() -> None:
    lines = [
        _line([1.0, 2.0], name=name, role=role, color=color)
        for color, name in enumerate(["a", "b"])
        for role in ("train", "validation")
    ]
    texts = _texts(curve_plot("t", lines).svg)
    assert [texts.count(word) for word in ("a", "b", "train", "validation")] == [1, 1, 1, 1]
    assert "train" not in _texts(curve_plot("t", [_line([1.0], role="train")]).svg)


@pytest.mark.parametrize("wide", [False, True])
def test_nothing_leaves_the_drawing_and_no_text_is_small(wide: bool) -> None:
    lines = [_noisy(), _line([1.0, 1e6, 2.0] * 20, name="n" * 300)]
    svg = curve_plot(
        "t", lines, x_title="x" * 10, wide=wide, marks=[VerticalMark(label="m", x=20)]
    ).svg
    root = _root(svg)
    width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
    assert width == (760 if wide else 360)
    assert height >= (300 if wide else 196)
    for path in root.iter(f"{SVG}path"):
        for x, y in (point for stretch in _points(path.attrib["d"]) for point in stretch):
            assert -0.1 <= x <= width + 0.1
            assert -0.1 <= y <= height + 0.1
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["y"]) <= height
    assert min(float(size) for size in re.findall(r'font-size="([\d.]+)"', svg)) >= 10


@pytest.mark.parametrize("lines", [[], [_line([])], [_line([None, None])], [_line([5.0])]])
def test_empty_plots_are_plots(lines: list[CurveLine]) -> None:
    assert _root(curve_plot("t", lines).svg).tag == f"{SVG}svg"
    assert _root(sparkline("t", lines)).tag == f"{SVG}svg"


@given(st.lists(st.tuples(any_floats, any_floats), max_size=40), st.booleans())
def test_any_floats_make_a_plot_that_parses(
    points: list[tuple[float, float]], smooth: bool
) -> None:
    ys = [y for _, y in points]
    line = _line(
        ys, smoothed=[s for _, s in points] if smooth else (), times=ys, epochs=ys,
        last=(0.0, 1.0), low=ys, high=ys,
    )  # fmt: skip
    for svg in (curve_plot("t", [line]).svg, sparkline("t", [line])):
        assert "nan" not in re.sub("<metadata>.*</metadata>", "", svg).lower()
        assert len(_data(svg)["lines"]) == 1


# ---- files and hostile names ---------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_hostile_names_stay_text_in_xml_and_in_html() -> None:
    line = _line([1.0, 2.0, 3.0], name=HOSTILE, role="train")
    svg = curve_plot(
        HOSTILE, [line], x_title=HOSTILE, marks=[VerticalMark(label=HOSTILE, x=1)],
        references=[HorizontalMark(label=HOSTILE, value=2)],
    ).svg  # fmt: skip
    for markup in (svg, standalone(svg), sparkline(HOSTILE, [line])):
        assert "<script" not in markup.lower()
        assert _root(markup.encode("utf-8").decode("utf-8")).tag == f"{SVG}svg"
        parser = _Tags()
        parser.feed(markup)
        assert "script" not in parser.tags
    assert _data(svg)["lines"][0]["name"] == HOSTILE
    assert _root(svg).findtext(f"{SVG}title", "").startswith("</metadata><script>")


def test_a_file_of_a_plot_goes_back_to_the_inline_plot() -> None:
    svg = curve_plot("train/loss & more", [_noisy()]).svg
    file = standalone(svg)
    assert file.startswith("<?xml")
    assert "prefers-color-scheme" in file
    assert "train/loss & more" in _texts(file)
    assert inline(file) == svg
    assert "metadata" not in bare(svg)
    assert _root(bare(file))[0].tag == f"{SVG}style"
    with pytest.raises(ValueError, match="not a plot"):
        standalone("<svg><title>t</title></svg>")


def test_dark_files_have_the_colors_of_the_dark_page() -> None:
    screen = (Path(__file__).parents[1] / "templates/screen.css").read_text(encoding="utf-8")
    file = standalone(curve_plot("t", [_line([1.0])]).svg)
    for name, shade in re.findall(r"--s(\d): (#[0-9a-f]{6})", screen):
        assert f".s{name}{{fill:{shade}}}" in file
        assert f".l{name}{{stroke:{shade}}}" in file


# ---- sparklines ----------------------------------------------------------------------------------


def test_a_sparkline_holds_few_points_of_few_lines_with_the_extremes() -> None:
    lines = [_noisy() for _ in range(20)]
    data = _data(sparkline("t", lines, points=100))
    assert len(data["lines"]) == 8
    assert all(len(line["y"]) <= 12 for line in data["lines"])
    (line,) = _data(sparkline("t", lines[:1]))["lines"]
    assert len(line["y"]) <= 40
    assert max(line["y"]) == pytest.approx(max(lines[0].values), rel=1e-3)  # type: ignore[type-var]
