"""Learning rates: constant ones, jumps, and the restarts of a schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reportgen.sections.training.curve import Curve, Floats
from reportgen.sections.training.diagnosis.trend import JudgedRun
from reportgen.sections.training.result import Diagnosis

_FEWEST_FOR_CONSTANT, _FEWEST_FOR_JUMP = 20, 10
_JUMP = 3.0  # times the rate before
_AS_BEFORE = 1.5  # times the highest rate logged before: a coarse log misses the peak
_HARDLY_LOWER = 0.9  # times the rate before: a factor of warm-up times a schedule that falls
_MOST_JUMPS = 2  # more are a schedule
_WARM_UP = 0.15  # of the points, in which a rate may be set in steps
_MOST_RESTARTS = 1_000  # each is compared with every spike
_RAMP = 5  # points after a rise in which a warm-up would go on rising


@dataclass(frozen=True, kw_only=True, slots=True)
class Jump:
    """A rise of a learning rate between neighboring points; `place` is the index after it."""

    place: int
    step: float
    before: float
    after: float


def find_constant_rate(run: JudgedRun) -> Iterator[Diagnosis]:
    """`constant-learning-rate` if every rate of a run is constant over at least 20 points."""
    rates = [(curve, _finite(curve)[1]) for curve in run.learning_rates]
    rates = [(curve, values) for curve, values in rates if len(values) >= _FEWEST_FOR_CONSTANT]
    # All of them: a frozen backbone may have a constant rate beside a schedule.
    if rates and all(_is_constant(values) for _, values in rates):
        curve, values = rates[0]
        yield Diagnosis(
            kind="constant-learning-rate",
            run=run.run.name,
            tag=curve.tag,
            points=len(values),
            evidence={
                "value": float(values[0]),
                "first_step": float(curve.steps[0]),
                "last_step": float(curve.steps[-1]),
            },
        )


def find_rate_jumps(run: JudgedRun) -> Iterator[Diagnosis]:
    """`learning-rate-jump`: a rise by more than 3 × outside of warm-ups and restarts.

    A rise to at most about the highest rate so far is a restart, unless the run was resumed there.
    """
    seen = set[float]()
    for curve in run.learning_rates:
        steps, rates = _finite(curve)
        if len(rates) < _FEWEST_FOR_JUMP:
            continue
        for jump in _unplanned(jumps_of(steps, rates), curve, rates):
            if jump.step not in seen:  # groups of parameters share a schedule
                seen.add(jump.step)
                yield Diagnosis(
                    kind="learning-rate-jump",
                    run=run.run.name,
                    tag=curve.tag,
                    points=len(rates),
                    evidence={"step": jump.step, "before": jump.before, "after": jump.after},
                )


def restart_steps(run: JudgedRun) -> list[float]:
    """The steps at which a learning rate rose again, by a half or more between neighbors."""
    found = set[float]()
    for curve in run.learning_rates:
        steps, rates = _finite(curve)
        found |= {jump.step for jump in jumps_of(steps, rates, 1.5)}
    return sorted(found)[:_MOST_RESTARTS]


def jumps_of(steps: Floats, rates: Floats, factor: float = _JUMP) -> list[Jump]:
    """Rises by more than `factor` between neighbors, outside of the warm-up and of ramps."""
    places = np.flatnonzero((rates[1:] > factor * rates[:-1]) & (rates[:-1] > 0)) + 1
    return [
        Jump(
            place=int(i),
            step=float(steps[i]),
            before=float(rates[i - 1]),
            after=float(rates[i]),
        )
        for i in places
        if not _in_warm_up(rates, int(i)) and not _in_ramp(rates, int(i))
    ]


def _in_warm_up(rates: Floats, place: int) -> bool:
    """Whether the rate has neither fallen before `place` nor been constant for long."""
    before = rates[:place]
    if before[-1] < _HARDLY_LOWER * before.max():
        return False
    rising = np.flatnonzero(before < _HARDLY_LOWER * before[-1])
    flat = place - (int(rising[-1]) + 1 if len(rising) else 0)
    return flat <= max(1, _WARM_UP * len(rates))


def _in_ramp(rates: Floats, place: int) -> bool:
    """Whether the rate goes on rising after `place`, as in the warm-up of a restart."""
    after = rates[place : place + _RAMP]
    return bool(after.max() > 1.1 * rates[place])


def _unplanned(jumps: Sequence[Jump], curve: Curve, rates: Floats) -> list[Jump]:
    if len(jumps) > _MOST_JUMPS or _is_cyclic(rates):
        return []
    return [jump for jump in jumps if _at_resume(curve, jump) or not _is_restart(jump, rates)]


def _is_cyclic(rates: Floats) -> bool:
    """Whether the rate turns from falling to rising more often than a resumed run would."""
    moves = np.sign(np.diff(rates))
    moves = moves[moves != 0]
    return int(((moves[:-1] < 0) & (moves[1:] > 0)).sum()) > _MOST_JUMPS


def _is_restart(jump: Jump, rates: Floats) -> bool:
    """Whether the rate returns to about the highest one before, or stays below it."""
    return jump.after <= _AS_BEFORE * float(rates[: jump.place].max())


def _at_resume(curve: Curve, jump: Jump) -> bool:
    """Whether a session of the run began at the jump, to within a point."""
    interval = float(np.median(np.diff(curve.steps)))
    return any(abs(resume.step - jump.step) <= interval for resume in curve.resumes)


def _is_constant(values: Floats) -> bool:
    # TensorBoard stores float32, whose rounding is 6e-8 of the value.
    return bool(np.ptp(values) <= 1e-6 * abs(values[0]))


def _finite(curve: Curve) -> tuple[Floats, Floats]:
    finite: NDArray[np.bool_] = np.isfinite(curve.values)
    return curve.steps[finite], curve.values[finite]
