"""Trends: where values and marks are drawn."""

from __future__ import annotations

import re
from datetime import date
from xml.etree import ElementTree

import numpy as np
import pytest

from reportgen.charts.trend import TrendLine, TrendMark, trend

SVG = "{http://www.w3.org/2000/svg}"


def drawn(
    values: list[float], *marks: TrendMark, stepped: bool = True, title: str = "t"
) -> ElementTree.Element:
    line = TrendLine(
        days=np.arange(len(values), dtype=float), values=np.array(values), stepped=stepped
    )
    svg = trend(
        title, [line], marks, first=date(2026, 1, 1), days=len(values) - 1.0, figure="{:g}".format
    )
    return ElementTree.fromstring(str(svg))


def corners(svg: ElementTree.Element) -> list[tuple[float, float]]:
    """The points of the only line, from relative moves."""
    [path] = svg.iter(f"{SVG}path")
    text = path.attrib["d"]
    assert text.count("M") == 1
    numbers = np.array(re.findall(r"-?\d*\.?\d+", text), dtype=float).reshape(-1, 2)
    return [(round(x, 1), round(y, 1)) for x, y in np.cumsum(numbers, axis=0).tolist()]


def texts(svg: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in svg.iter(f"{SVG}text")]


def test_a_stepped_line_holds_each_value_until_the_next() -> None:
    points = corners(drawn([1.0, 1.0, 3.0, 3.0, 3.0]))
    (x0, low), (x1, _), (x2, high), (x3, _) = points
    assert (x0, x1, x2, x3) == (4, 120, 120, 236)
    assert points[1][1] == low > high == points[3][1]


def test_a_constant_runs_through_the_middle() -> None:
    assert corners(drawn([5.0, 5.0, 5.0])) == [(4, 41), (236, 41)]
    assert "5" in texts(drawn([5.0, 5.0, 5.0]))


def test_a_night_without_a_value_is_a_gap() -> None:
    [path] = drawn([1.0, 1.0, np.nan, 1.0, 1.0]).iter(f"{SVG}path")
    assert path.attrib["d"].count("M") == 2


def test_the_range_and_the_days_are_written() -> None:
    assert set(texts(drawn([1.0, 2.0, 4.0]))) == {"1 to 4", "2026-01-01", "2026-01-03"}


def test_without_values_there_is_a_sentence() -> None:
    assert texts(drawn([np.nan, np.nan])) == ["no values"]


@pytest.mark.parametrize("kind", ["confirmed", "possible", "over"])
def test_a_mark_lies_on_the_line_and_says_its_kind(kind: str) -> None:
    mark = TrendMark(day=2, value=3, title="<b>", kind=kind, effect="worse")  # type: ignore[arg-type]
    svg = drawn([1.0, 1.0, 3.0, 3.0], mark)
    [circle] = svg.iter(f"{SVG}circle")
    place = (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
    assert any(np.allclose(place, corner, atol=0.11) for corner in corners(svg))
    assert circle.attrib["class"].split() == ["mark", kind, "worse"]
    assert ("stroke" in circle.attrib) is (kind == "possible")
    assert [each.text for each in circle] == ["<b>"]
