"""Precision-recall curves on the unit square, with lines of equal F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reportgen.charts.axes import Axis, Floats, as_floats
from reportgen.charts.bars_and_areas import legend
from reportgen.charts.frame import BOTTOM, draw_frame
from reportgen.charts.paths import line_path
from reportgen.charts.svg import (
    LINE,
    PALETTE,
    color,
    dash_attribute,
    fitted,
    plot,
    printable,
    tenth,
    text_group,
    words,
)

_LEFT, _TOP = 44.0, 12.0
_WIDTH, _HEIGHT = 320.0, 300.0
_EQUAL_F1 = (0.2, 0.4, 0.6, 0.8)
_MOST_CURVES = 12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PrLine:
    """One curve; `precision` and `recall` by rising threshold, each from 0 to 1."""

    name: str
    precision: Sequence[float]
    recall: Sequence[float]
    color: int = 0


def average_precision(precision: Sequence[float], recall: Sequence[float]) -> float | None:
    """The area under the steps of a curve by rising threshold; None where it has no point.

    Thresholds at which nothing is predicted (precision and recall both 0) count as no point.
    """
    p, r = _points(precision, recall)
    if not len(r):
        return None
    # As scikit-learn's average_precision_score: steps, not trapezoids, which are too optimistic.
    return float(np.sum((r - np.append(r[1:], 0.0)) * p))


def pr_curve_plot(title: str, lines: Sequence[PrLine]) -> Markup:
    """Up to twelve curves, 320 × 300 pixels, each with its average precision in the legend."""
    x = Axis(low=0, high=1, start=_LEFT, end=_WIDTH - 14)
    y = Axis(low=0, high=1, start=_HEIGHT - BOTTOM, end=_TOP)
    ticks = [(tick, f"{tick:.1f}") for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    frame = draw_frame(x, y, "recall", y_title="precision", x_labels=ticks, y_labels=ticks)
    shown = list(lines[:_MOST_CURVES])
    curves = [_curve(line, index, x, y) for index, line in enumerate(shown)]
    names = [_name(line) for line in shown]
    if len(lines) > len(shown):
        names.append(f"and {len(lines) - len(shown)} more")

    def sample(left: float, bottom: float, index: int) -> str:
        if index >= len(shown):
            return ""
        return _stroke(f"M{tenth(left)} {tenth(bottom - 5)}h22", shown[index], index)

    key, used = legend(names, _LEFT, _HEIGHT + 12, _WIDTH, sample)
    body = "".join([_equal_f1(x, y), frame, *curves, *key])
    return plot(title, _WIDTH, _HEIGHT + used, body)


def _points(precision: Sequence[float], recall: Sequence[float]) -> tuple[Floats, Floats]:
    p, r = as_floats(precision), as_floats(recall)
    real = np.isfinite(p) & np.isfinite(r) & ~((p == 0) & (r == 0))
    order = np.argsort(-r[real], kind="stable")  # recall falls as the threshold rises
    return p[real][order], r[real][order]


def _curve(line: PrLine, index: int, x: Axis, y: Axis) -> str:
    p, r = _points(line.precision, line.recall)
    path = line_path(x.at(np.clip(r, 0, 1)), y.at(np.clip(p, 0, 1)))
    return _stroke(path, line, index) if path else ""


def _stroke(path: str, line: PrLine, index: int) -> str:
    return (
        f'<path d="{path}" class="l{line.color % len(PALETTE)}" stroke="{color(line.color)}" '
        f'fill="none" stroke-width="1.8" stroke-linejoin="round"{dash_attribute(index)}/>'
    )


def _name(line: PrLine) -> str:
    average = average_precision(line.precision, line.recall)
    figure = "no points" if average is None else f"AP {average:.3f}"
    name = fitted(printable(line.name), 0.5 * _WIDTH, 11)
    return f"{name} ({figure})" if name else figure


def _equal_f1(x: Axis, y: Axis) -> str:
    """Where precision and recall give one F1: p = f r / (2 r - f)."""
    paths, names = "", ""
    for f1 in _EQUAL_F1:
        recall = np.linspace(f1 / (2 - f1), 1, 40)  # below this recall, precision exceeds 1
        precision = f1 * recall / (2 * recall - f1)
        paths += line_path(x.at(recall), y.at(precision))
        names += words(x.end + 1, y.pixel(f1 / (2 - f1)) - 3, f"F1 {f1}")
    lines = f'<path d="{paths}" class="rule" stroke="{LINE}" fill="none"/>'
    return lines + text_group(names, anchor="end")
