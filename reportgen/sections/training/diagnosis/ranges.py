"""Values outside a metric's valid range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from reportgen.sections.training.curve import Curve, RunCurves
from reportgen.sections.training.result import Diagnosis

Range = tuple[float | None, float | None]


def find_out_of_range(run: RunCurves, ranges: Mapping[str, Range]) -> Iterator[Diagnosis]:
    """`out-of-range` for every curve with a finite value beyond its range; both ends are valid.

    Args:
        ranges: (lowest, highest) by tag, None for no limit.
    """
    for tag, (low, high) in ranges.items():
        curve = run.curves.get(tag)
        if curve is not None:
            yield from _violations(run.name, curve, low, high)


def _violations(
    run: str, curve: Curve, low: float | None, high: float | None
) -> Iterator[Diagnosis]:
    lowest = -np.inf if low is None else low
    highest = np.inf if high is None else high
    finite = np.isfinite(curve.values)
    outside = np.flatnonzero(finite & ((curve.values < lowest) | (curve.values > highest)))
    if not len(outside):
        return
    beyond = np.maximum(lowest - curve.values[outside], curve.values[outside] - highest)
    worst = int(outside[np.argmax(beyond)])
    yield Diagnosis(
        kind="out-of-range",
        run=run,
        tag=curve.tag,
        points=len(curve.values),
        evidence={
            "outside": len(outside),
            "first_step": float(curve.steps[outside[0]]),
            "first_value": float(curve.values[outside[0]]),
            "worst_step": float(curve.steps[worst]),
            "worst_value": float(curve.values[worst]),
            **({} if low is None else {"lowest": low}),
            **({} if high is None else {"highest": high}),
        },
    )
