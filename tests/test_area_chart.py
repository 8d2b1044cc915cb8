"""Stacked areas: coordinates that can be computed by hand."""

from __future__ import annotations

import re

from reportgen.charts import Stage, stacked_areas


def chart(rows: list[list[float]], peak: int) -> str:
    return stacked_areas(
        "t", ["a", "<b>"], [index / (len(rows) - 1) for index in range(len(rows))], rows,
        stages=[Stage(name="forward", start=0, end=0.5), Stage(name="x", start=0.5, end=1)],
        peak=peak, figure=lambda value: f"{value:.0f}", x_label="time",
    )  # fmt: skip


def paths(svg: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, point.split())) for point in d[1:-2].split(" L")]  # type: ignore[misc]
        for d in re.findall(r'<path d="([^"]+)"', svg)
    ]


def test_every_part_lies_on_the_one_before() -> None:
    first, second = paths(chart([[1, 1], [2, 3], [1, 0]], peak=1))
    ceiling_of_first, floor_of_second = first[:3], second[3:][::-1]
    assert ceiling_of_first == floor_of_second
    assert second[2] == floor_of_second[2]  # the last row has nothing of the second part


def test_heights_are_proportional_to_values() -> None:
    first, second = paths(chart([[1, 1], [2, 3], [1, 0]], peak=1))
    bottom = first[3][1]
    heights = [bottom - y for _, y in second[:3]]
    assert abs(heights[1] / heights[0] - 5 / 2) < 0.01
    assert abs(heights[1] / heights[2] - 5) < 0.01


def test_the_peak_and_the_stages_are_named_and_names_stay_text() -> None:
    svg = chart([[1, 1], [2, 3], [1, 0]], peak=1)
    assert ">peak 5<" in svg
    assert ">forward<" in svg
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg


def test_nothing_to_plot_is_said() -> None:
    svg = stacked_areas("t", [], [], [], stages=[], peak=0, figure=str, x_label="")
    assert "nothing to plot" in svg
