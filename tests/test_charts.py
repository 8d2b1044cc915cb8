"""Charts: every coordinate follows from the numbers, and every label stays text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.charts import (
    Bar,
    Level,
    Line,
    Part,
    Stack,
    bar_list,
    line_chart,
    stacked_bars,
    thinned,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</text><script>alert(1)</script> & "quoted" 한국어'


def _root(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def _rects(root: ElementTree.Element) -> list[dict[str, float]]:
    sides = ("x", "y", "width", "height")
    return [{side: float(rect.attrib[side]) for side in sides} for rect in root.iter(f"{SVG}rect")]


def _texts(root: ElementTree.Element) -> list[tuple[str, float, float]]:
    return [
        ("".join(text.itertext()), float(text.attrib["x"]), float(text.attrib["y"]))
        for text in root.iter(f"{SVG}text")
    ]


def _paths(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    curves = [path for path in root.iter(f"{SVG}path") if "h22" not in path.attrib["d"]]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"])]
        for path in curves
    ]


def _bars(values: Iterable[float]) -> list[Bar]:
    return [Bar(label=f"layer{n}", value=v, figure=str(v)) for n, v in enumerate(values)]


def test_bars_are_as_long_as_their_values_and_begin_at_one_line() -> None:
    rects = _rects(_root(bar_list("t", _bars([8, 4, 1, 0]))))
    lengths = [rect["width"] for rect in rects]
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=0.01)
    assert lengths[2] == pytest.approx(lengths[0] / 8, abs=0.01)
    assert lengths[3] == 0
    assert len({rect["x"] for rect in rects}) == 1


def test_nothing_of_a_bar_list_leaves_its_drawing() -> None:
    root = _root(bar_list("t", _bars([1e12, 3])))
    width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
    for rect in _rects(root):
        assert 0 <= rect["x"] <= rect["x"] + rect["width"] <= width
        assert 0 <= rect["y"] <= rect["y"] + rect["height"] <= height


def test_a_label_too_long_keeps_its_end() -> None:
    long = ".".join(["encoder"] * 30) + ".mlp.0"
    (label, *_) = _texts(_root(bar_list("t", [Bar(label=long, value=1, figure="1")])))
    assert label[0].startswith("…")
    assert label[0].endswith(".mlp.0")
    assert len(label[0]) < 40


def test_an_empty_list_of_bars_is_a_drawing_all_the_same() -> None:
    assert _rects(_root(bar_list("t", []))) == []


def test_stacked_parts_touch_each_other_and_add_up_on_one_scale() -> None:
    parts = (Part(name="a", value=3, figure="3"), Part(name="b", value=5, figure="5"))
    stacks = [
        Stack(label="first", parts=parts, figure="8"),
        Stack(label="second", parts=parts[:1], figure="3"),
    ]
    root = _root(stacked_bars("t", stacks))
    first, second, third, *legend = _rects(root)
    assert second["x"] == pytest.approx(first["x"] + first["width"], abs=0.01)
    assert first["width"] / second["width"] == pytest.approx(3 / 5, rel=1e-3)
    assert third["width"] == pytest.approx(first["width"], abs=0.01)
    assert len(legend) == 2


def test_parts_of_one_name_share_a_color() -> None:
    stacks = [
        Stack(label="1", parts=(Part(name="b", value=1, figure=""),), figure=""),
        Stack(
            label="2",
            parts=(Part(name="a", value=1, figure=""), Part(name="b", value=1, figure="")),
            figure="",
        ),
    ]
    colors = [rect.attrib["fill"] for rect in _root(stacked_bars("t", stacks)).iter(f"{SVG}rect")]
    assert colors[0] == colors[2] != colors[1]
    assert colors[3:] == [colors[1], colors[2]]  # the key, in the order of the richest stack


def _chart(lines: list[Line], levels: list[Level]) -> ElementTree.Element:
    return _root(line_chart("t", lines, levels, x_label="x", y_label="y", y_figure=str))


def test_doublings_of_the_batch_are_equally_far_apart() -> None:
    line = Line(name="a", points=tuple((2.0**k, 2.0**k) for k in range(6)))
    (curve,) = _paths(_chart([line], []))
    steps = [right[0] - left[0] for left, right in pairwise(curve)]
    assert max(steps) - min(steps) < 0.03
    falls = [left[1] - right[1] for left, right in pairwise(curve)]
    assert max(falls) - min(falls) < 0.03


def test_a_level_crosses_a_curve_where_the_values_are_equal() -> None:
    line = Line(name="a", points=((1, 3.0), (2, 6.0), (4, 12.0)))
    root = _chart([line], [Level(name="card", value=6.0)])
    (curve,) = _paths(root)
    dashed = [each for each in root.iter(f"{SVG}line") if "stroke-dasharray" in each.attrib]
    assert float(dashed[0].attrib["y1"]) == pytest.approx(curve[1][1], abs=0.02)


def test_ticks_stand_where_their_values_are() -> None:
    line = Line(name="a", points=((1, 1.0), (16, 16.0)))
    root = _chart([line], [])
    (curve,) = _paths(root)
    labels = {label: (x, y) for label, x, y in _texts(root)}
    assert labels["1"][0] == pytest.approx(curve[0][0], abs=0.02)
    assert labels["16"][0] == pytest.approx(curve[1][0], abs=0.02)
    assert labels["16.0"][1] == pytest.approx(curve[1][1] + 4, abs=0.02)


def test_names_of_near_levels_do_not_overlap() -> None:
    levels = [Level(name=f"card{n}", value=100 + n) for n in range(5)]
    root = _chart([Line(name="a", points=((1, 1.0), (8, 300.0)))], levels)
    heights = sorted(y for label, _, y in _texts(root) if label.startswith("card"))
    assert min(b - a for a, b in pairwise(heights)) >= 12


def test_a_chart_without_points_says_so() -> None:
    assert "nothing to plot" in line_chart(
        "t", [Line(name="a", points=())], [], x_label="", y_label="", y_figure=str
    )


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=3000), st.integers(10, 500))
def test_thinning_keeps_the_ends_the_extremes_and_the_order(values: list[float], most: int) -> None:
    points = [(float(n), value) for n, value in enumerate(values)]
    kept = thinned(points, most)
    assert len(kept) <= max(most, 4)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert max(y for _, y in kept) == max(values)
    assert min(y for _, y in kept) == min(values)
    assert list(kept) == sorted(kept, key=lambda point: point[0])


def test_a_long_line_is_drawn_with_five_hundred_points() -> None:
    line = Line(name="a", points=tuple((n, 2 + math.sin(n)) for n in range(1, 20_000)))
    (curve,) = _paths(_chart([line], []))
    assert 400 < len(curve) <= 500


def test_hostile_labels_stay_text_in_every_chart() -> None:
    for markup in (
        bar_list(HOSTILE, [Bar(label=HOSTILE, value=1, figure=HOSTILE)]),
        stacked_bars(
            HOSTILE,
            [Stack(label=HOSTILE, parts=(Part(name=HOSTILE, value=1, figure=""),), figure="1")],
        ),
        line_chart(
            HOSTILE,
            [Line(name=HOSTILE, points=((1, 1), (2, 2)))],
            [Level(name=HOSTILE, value=1)],
            x_label=HOSTILE,
            y_label=HOSTILE,
            y_figure=str,
        ),
    ):
        root = _root(markup)
        assert not list(root.iter(f"{SVG}script"))
        assert root.attrib["aria-label"] == HOSTILE
        assert root[0].text == HOSTILE


def test_every_mark_has_a_color_that_prints_and_a_class_that_a_page_may_restyle() -> None:
    root = _root(bar_list("t", _bars([1, 2])))
    for shape in (*root.iter(f"{SVG}rect"), *root.iter(f"{SVG}text")):
        assert shape.attrib["fill"].startswith("#")
        assert shape.attrib["class"]
