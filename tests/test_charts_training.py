"""Ridges of histograms, precision-recall curves, parallel coordinates, and panes."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.charts.histograms import ridgelines
from reportgen.charts.panes import PaneSeries, pane
from reportgen.charts.parallel import ParallelColumn, parallel_coordinates
from reportgen.charts.pr_curves import PrLine, average_precision, pr_curve_plot

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</text><script>alert(1)</script> & "quoted" \u202e \x00'
any_floats = st.floats(allow_nan=True, allow_infinity=True)


def _root(markup: str) -> ElementTree.Element:
    assert "<script" not in markup.lower()
    assert "nan" not in markup.lower()
    return ElementTree.fromstring(markup)


def _texts(markup: str) -> list[str]:
    return ["".join(each.itertext()) for each in _root(markup).iter(f"{SVG}text")]


def _paths(markup: str, kind: str) -> list[ElementTree.Element]:
    return [
        e for e in _root(markup).iter(f"{SVG}path") if kind in e.attrib.get("class", "").split()
    ]


def _moves(path: str) -> list[tuple[float, float]]:
    """The points of one stretch of relative moves."""
    numbers = [float(number) for number in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", path)]
    points = [(numbers[0], numbers[1])]
    for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
        points.append((points[-1][0] + dx, points[-1][1] + dy))
    return points


# ---- ridges --------------------------------------------------------------------------------------


def test_ridges_rise_as_their_buckets_do_on_one_scale() -> None:
    svg = ridgelines("w", [0, 100], [[0, 1, 0, 0], [0, 0, 0.5, 0]], -1, 1)
    first, last = (_moves(each.attrib["d"].rstrip("z")) for each in _paths(svg, "seam"))
    heights = [[max(y for _, y in ridge) - y for _, y in ridge[1:-1]] for ridge in (first, last)]
    assert heights[0][1] == pytest.approx(2 * heights[1][2], abs=0.3)
    assert first[2][0] < last[3][0]  # the mass moved to the right
    assert max(y for _, y in first) < max(y for _, y in last)  # the newest in front


def test_ridges_name_their_steps_and_get_darker() -> None:
    svg = ridgelines("w", [0, 500, 20_000], [[1, 2]] * 3, 0, 1, x_title="fc.weight")
    assert {"0", "500", "20k", "step", "fc.weight"} <= set(_texts(svg))
    shades = [each.attrib["class"].split()[0] for each in _paths(svg, "seam")]
    assert shades == ["r0", "r4", "r7"]
    assert [each.findtext(f"{SVG}title") for each in _paths(svg, "seam")][2] == "step 20,000"


@pytest.mark.parametrize(
    ("steps", "counts", "low", "high"),
    [([], [], 0, 1), ([1], [[]], 0, 1), ([1], [[1, 2]], math.nan, 1), ([1], [[1, 2]], 3, 3)],
)
def test_ridges_of_nothing_are_a_drawing(
    steps: list[float], counts: list[list[float]], low: float, high: float
) -> None:
    assert _root(ridgelines("w", steps, counts, low, high)).tag == f"{SVG}svg"


# ---- precision and recall ------------------------------------------------------------------------


def test_average_precision_in_closed_form() -> None:
    # a perfect ranking; a constant precision of a quarter; two steps of one half each
    assert average_precision([1, 1, 1], [1, 0.5, 0.1]) == pytest.approx(1)
    assert average_precision([0.25] * 4, [1, 0.7, 0.4, 0.1]) == pytest.approx(0.25)
    assert average_precision([0.5, 1.0], [1.0, 0.5]) == pytest.approx(0.75)
    assert average_precision([], []) is None


def test_thresholds_without_predictions_are_no_points() -> None:
    # TensorBoard writes precision 0 where nothing is predicted.
    assert average_precision([0.5, 1.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0]) == pytest.approx(0.75)
    svg = pr_curve_plot("pr", [PrLine(name="cat", precision=[0.5, 1.0, 0.0], recall=[1.0, 0.5, 0])])
    (curve, _sample) = _paths(svg, "l0")
    points = _moves(curve.attrib["d"])
    assert len(points) == 2
    # recall 1 at the right edge, precision 1 at the top
    assert points[0][0] == pytest.approx(306, abs=0.06)
    assert points[1][1] == pytest.approx(12, abs=0.06)


def test_pr_curves_name_their_average_precision() -> None:
    lines = [
        PrLine(name=f"class {n}", precision=[0.5, 1], recall=[1, 0.5], color=n) for n in range(14)
    ]
    texts = _texts(pr_curve_plot("pr", lines))
    assert "class 0 (AP 0.750)" in texts
    assert "and 2 more" in texts
    assert {"precision", "recall", "F1 0.8"} <= set(texts)


# ---- parallel coordinates ------------------------------------------------------------------------


def _polylines(markup: str) -> dict[str, ElementTree.Element]:
    return {e.findtext(f"{SVG}title") or "": e for e in _root(markup).iter(f"{SVG}polyline")}


def _heights(line: ElementTree.Element) -> list[float]:
    return [float(point) for point in line.attrib["points"].split()[1::2]]


COLUMNS = [
    ParallelColumn(name="lr", values=[1e-4, 1e-3, 1e-2]),
    ParallelColumn(name="optimizer", values=["adam", "sgd", "adam"]),
    ParallelColumn(name="seed", values=[1, 1, 1]),
    ParallelColumn(name="dropout", values=[0.1, None, 0.3]),
    ParallelColumn(name="val/acc", values=[0.7, 0.8, 0.9]),
]


def test_runs_go_through_their_values_and_below_what_they_lack() -> None:
    svg = parallel_coordinates("hp", COLUMNS, ["a", "b", "c"])
    lines = _polylines(svg)
    low, middle, high = (_heights(lines[name]) for name in "abc")
    assert len(low) == 4  # the constant seed has no axis
    assert middle[0] == pytest.approx((low[0] + high[0]) / 2, abs=0.11)  # logarithmic
    assert low[1] == high[1] != middle[1]
    assert middle[2] > max(low[2], high[2])
    assert low[3] > middle[3] > high[3]
    assert {"lr", "optimizer", "dropout", "val/acc", "none", "adam", "1e-4"} <= set(_texts(svg))
    assert "seed" not in _texts(svg)


@pytest.mark.parametrize(("higher", "best"), [(True, "c"), (None, "c"), (False, "a")])
def test_the_best_run_is_darkest_and_on_top(higher: bool | None, best: str) -> None:
    svg = parallel_coordinates("hp", COLUMNS, ["a", "b", "c"], higher_is_better=higher)
    lines = _polylines(svg)
    assert lines[best].attrib["class"] == "p4"
    assert list(lines)[-1] == best


def test_parallel_coordinates_are_bounded_and_never_empty() -> None:
    many = [ParallelColumn(name=f"p{n}", values=list(range(n, n + 500))) for n in range(40)]
    svg = parallel_coordinates("hp", many, [f"run {n}" for n in range(500)])
    assert len(_polylines(svg)) == 200
    assert all(len(_heights(line)) == 12 for line in _polylines(svg).values())
    assert "p39" in _texts(svg)
    assert _texts(parallel_coordinates("hp", [], [])) == ["all runs have equal settings"]


settings = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), any_floats, st.text(max_size=5))


@given(st.lists(st.lists(settings, min_size=3, max_size=3), max_size=5))
def test_any_settings_make_a_drawing(rows: list[list[Any]]) -> None:
    columns = [ParallelColumn(name=f"n{i}", values=row) for i, row in enumerate(rows)]
    markup = parallel_coordinates("hp", columns, ["a", "b", "c"])
    assert ElementTree.fromstring(markup).tag == f"{SVG}svg"


# ---- panes ---------------------------------------------------------------------------------------


def test_a_scatter_has_a_dot_for_each_finite_point() -> None:
    series = [
        PaneSeries(name="a", x=[0, 1, 2], y=[0, 1, math.nan]),
        PaneSeries(name="b", y=[5, 6]),
    ]
    svg = pane("scatter", "t", series, x_title="first", y_title="second")
    dots = [each.attrib["d"].count("M") for n in (0, 1) for each in _paths(svg, f"l{n}")]
    assert dots == [2, 2]
    assert {"a", "b", "first", "second"} <= set(_texts(svg))


def test_a_scatter_says_how_much_of_it_is_drawn() -> None:
    svg = pane("scatter", "t", [PaneSeries(y=list(range(10_000)))])
    assert sum(each.attrib["d"].count("M") for each in _paths(svg, "l0")) == 2000
    assert "the first 20% of 10,000 points" in _texts(svg)


def test_bars_are_as_high_as_their_values_from_zero() -> None:
    svg = pane("bar", "t", [PaneSeries(name="n", x=["cat", "dog", "owl"], y=[4, 2, -2])])
    bars = {e.findtext(f"{SVG}title"): e.attrib for e in _root(svg).iter(f"{SVG}rect")}
    cat, dog, owl = (bars[name] for name in ("cat: 4", "dog: 2", "owl: −2"))
    assert float(cat["height"]) == pytest.approx(2 * float(dog["height"]), abs=0.02)
    assert float(owl["height"]) == pytest.approx(float(dog["height"]), abs=0.02)
    zero = float(cat["y"]) + float(cat["height"])
    assert float(owl["y"]) == pytest.approx(zero, abs=0.02)


def test_many_even_bars_have_round_numbers_below() -> None:
    edges = np.linspace(-2, 2, 41)[:-1]
    texts = _texts(pane("bar", "t", [PaneSeries(x=edges.tolist(), y=[1.0] * 40)]))
    assert {"−2", "−1", "0", "1"} <= set(texts)


def test_a_heatmap_has_its_first_row_at_the_bottom_and_its_largest_cell_darkest() -> None:
    svg = pane("heatmap", "t", [PaneSeries(x=["p", "q"], y=["a", "b"], z=[[0, 1], [2, 3]])])
    cells = {
        e.attrib["fill"]: e.attrib["d"] for e in _root(svg).iter(f"{SVG}path") if "fill" in e.attrib
    }
    darkest, lightest = cells["#102c5c"], cells["#f7f9fc"]
    x, y = (float(n) for n in re.findall(r"[\d.]+", darkest)[:2])
    x0, y0 = (float(n) for n in re.findall(r"[\d.]+", lightest)[:2])
    assert x > x0
    assert y < y0
    assert {"p", "q", "a", "b", "0", "3"} <= set(_texts(svg))


def test_a_large_heatmap_shows_means() -> None:
    checkers = (np.indices((128, 128)).sum(axis=0) % 2).astype(float)
    svg = pane("heatmap", "t", [PaneSeries(z=checkers.tolist())])
    assert "means of 2 × 2 cells" in _texts(svg)
    assert len(svg) < 60_000


def test_a_box_has_the_quartiles() -> None:
    svg = pane("box", "t", [PaneSeries(name="fold", y=list(range(101)))])
    (box,) = list(_root(svg).iter(f"{SVG}rect"))
    assert box.findtext(f"{SVG}title") == "median 50, n = 101"
    # the axis runs from 0 to 105 over 220 pixels
    assert float(box.attrib["height"]) == pytest.approx(50 / 105 * 220, abs=0.2)


def test_a_pie_is_a_list_of_shares() -> None:
    texts = _texts(pane("pie", "t", [PaneSeries(x=["a", "b", "c"], y=[10, 30, -1])]))
    assert texts == ["b", "75.0 % (30)", "a", "25.0 % (10)"]
    many = pane("pie", "t", [PaneSeries(y=list(range(1, 101)))])
    assert "71 others" in _texts(many)


KINDS = ("scatter", "bar", "heatmap", "box", "pie")
coordinates = st.lists(st.one_of(any_floats, st.text(max_size=4)), max_size=20)
grids = st.lists(st.lists(any_floats, max_size=6), max_size=6)
traces = st.builds(PaneSeries, name=st.text(max_size=4), x=coordinates, y=coordinates, z=grids)


@pytest.mark.parametrize("kind", KINDS)
@given(series=st.lists(traces, max_size=3))
def test_any_values_make_a_drawing(kind: str, series: list[PaneSeries]) -> None:
    root = ElementTree.fromstring(pane(kind, "t", series))
    assert root.tag == f"{SVG}svg"
    width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.attrib["height"]) >= 0
        assert -0.1 <= float(rect.attrib["y"]) <= height + 0.1
        assert -0.1 <= float(rect.attrib["x"]) <= width + 0.1


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="'sunburst'"):
        pane("sunburst", "t", [])


def test_hostile_names_stay_text() -> None:
    series = [PaneSeries(name=HOSTILE, x=[HOSTILE, "b"], y=[1, 2], z=[[1, 2]])]
    drawings = [pane(kind, HOSTILE, series, x_title=HOSTILE, y_title=HOSTILE) for kind in KINDS]
    drawings.append(ridgelines(HOSTILE, [1], [[1, 2]], 0, 1, x_title=HOSTILE, step_title=HOSTILE))
    drawings.append(pr_curve_plot(HOSTILE, [PrLine(name=HOSTILE, precision=[1], recall=[1])]))
    columns = [ParallelColumn(name=HOSTILE, values=[HOSTILE, "b"])] * 2
    drawings.append(parallel_coordinates(HOSTILE, columns, [HOSTILE, HOSTILE]))
    for markup in drawings:
        assert _root(markup).tag == f"{SVG}svg"
