"""NaN and infinite values, and values outside the manifest's ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from reportgen.sections.training.curve import Curve, RunCurves
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import Places

_FIRST_POINTS = 2  # that may be infinite, as a metric that is not defined yet
_FIRST_NORMS = 20  # steps in which mixed precision looks for its loss scale
_LAST_NORMS = 3  # a single step may overflow; three in a row do not recover by a lower scale
Range = tuple[float | None, float | None]


def find_non_finite(run: RunCurves) -> Iterator[Diagnosis]:
    """One diagnosis for every metric and gradient norm with non-finite values."""
    for curve in run.curves.values():
        if curve.name.kind in ("metric", "gradient norm"):
            bad = np.flatnonzero(~np.isfinite(curve.values))
            kind = _kind(curve, bad)
            if kind:
                yield _diagnosis(run.name, curve, bad, kind)


def _kind(curve: Curve, bad: Places) -> str:
    """The rule that reports the points `bad` of `curve`; "" for none."""
    if not len(bad):
        return ""
    points, is_norm = len(curve.values), curve.name.kind == "gradient norm"
    if len(bad) == points and curve.name.direction != "lower":
        return "non-finite-values"  # never had a value, as the score of a class without samples
    last = _LAST_NORMS if is_norm else 1
    if not np.isfinite(curve.values[-last:]).any():
        return "ends-in-non-finite"
    infinite = np.isinf(curve.values[bad]).all()
    if infinite and bad[-1] < (_FIRST_NORMS if is_norm else _FIRST_POINTS):
        return "infinity-at-the-start"
    if is_norm and _overflows_of_mixed_precision(bad, points):
        return ""
    return "non-finite-values"


def _overflows_of_mixed_precision(bad: Places, points: int) -> bool:
    """Whether single steps overflowed: the scaler skips them and lowers its scale."""
    after_start = bad[bad >= _FIRST_NORMS]
    # GradScaler doubles its scale every 2,000 steps, so overflows are rare, and never in a row.
    return len(after_start) <= 1 + points // 100 and bool((np.diff(after_start) > 1).all())


def _diagnosis(run: str, curve: Curve, bad: Places, kind: str) -> Diagnosis:
    values = curve.values
    nans = int(np.isnan(values[bad]).sum())
    finite = np.flatnonzero(np.isfinite(values))
    since = int(finite[-1]) + 1 if len(finite) else 0  # of the stretch at the end
    evidence: dict[str, float | int | str] = {
        "nans": nans,
        "infinities": len(bad) - nans,
        "first_step": float(curve.steps[bad[0]]),
        "last_step": float(curve.steps[bad[-1]]),
        "finite_after": int(len(values) - 1 - bad[-1]),
    }
    if kind == "ends-in-non-finite":
        evidence["since_step"] = float(curve.steps[since])
        evidence["to_the_end"] = len(values) - since
    if len(finite):
        evidence["last_finite_value"] = float(values[finite[-1]])
    return Diagnosis(kind=kind, run=run, tag=curve.tag, points=len(values), evidence=evidence)


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
    finite = np.isfinite(curve.values)  # NaN and infinities have findings of their own
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
