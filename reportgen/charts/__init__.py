"""Plots as SVG markup, drawn by hand: bars, stacked bars and areas, and lines.

Every color is an attribute that prints and a class that a page's style sheet may override, so
that the same markup serves paper, a light screen and a dark one.
"""

from __future__ import annotations

from reportgen.charts.bars_and_areas import (
    Bar,
    Part,
    Stack,
    Stage,
    bar_list,
    stacked_areas,
    stacked_bars,
)
from reportgen.charts.lines import Level, Line, line_chart, thinned

__all__ = [
    "Bar",
    "Level",
    "Line",
    "Part",
    "Stack",
    "Stage",
    "bar_list",
    "line_chart",
    "stacked_areas",
    "stacked_bars",
    "thinned",
]
