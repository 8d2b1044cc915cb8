"""Steps, values and counts as the sentences of the training chapter write them."""

from __future__ import annotations

import math


def format_step(step: float) -> str:
    """A step in groups of three, with its fraction if it has one: `8,200`, `0.5`."""
    return f"{step:,.0f}" if step == round(step) else f"{step:,.4g}"


def format_value(value: float) -> str:
    """A value in three significant digits, four from 1,000 on: `0.912`, `2.31`, `1.2e-05`."""
    if not math.isfinite(value):
        return "not finite"
    if 1_000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def count_of(count: int, one: str, many: str = "") -> str:
    """`1 point`, `1,200 points`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
