"""Formats of steps, values and counts in the sentences of the training section."""

from __future__ import annotations

import math


def format_step(step: float) -> str:
    """A step with thousands separators, and its fraction if it has one: `8,200`, `0.5`."""
    return f"{step:,.0f}" if step == round(step) else f"{step:,.4g}"


def format_value(value: float) -> str:
    """Three significant digits, whole from 1,000 on: `0.912`, `2.31`, `1.2e-05`, `12,340`."""
    if not math.isfinite(value):
        return "not finite"
    if 1_000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def count_of(count: int, one: str, many: str = "") -> str:
    """`1 point`, `1,200 points`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
