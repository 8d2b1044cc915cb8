"""Statistics that the diagnoses of trends share, computed once per curve.

`costs` are the values of a curve, negated if higher is better: lower is always better.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reportgen.sections.training.curve import Curve, Floats, RunCurves
from reportgen.sections.training.metric_names import is_return, pair_curves
from reportgen.sections.training.result import Diagnosis, Role
from reportgen.sections.training.statistics import (
    Places,
    median,
    noise,
    running_median,
    standard_error,
    window_length,
)


# Without slots, which cached_property needs: a trend is used by many rules, or by none.
@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    """The finite points of a curve that should improve.

    Attributes:
        sign: 1 where lower is better, -1 where higher is; times a value it is the cost.
    """

    run: str
    tag: str
    role: Role
    family: str
    steps: Floats
    values: Floats
    sign: int

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def costs(self) -> Floats:
        """The values, lower is better."""
        return self.sign * self.values

    @cached_property
    def sigma(self) -> float:
        """The standard deviation of the noise."""
        return noise(self.costs)

    @cached_property
    def window(self) -> int:
        """The length of the running median."""
        return window_length(len(self))

    @cached_property
    def _smoothed(self) -> tuple[Places, Floats]:
        return running_median(self.costs, self.window)

    @property
    def medians(self) -> Floats:
        """The running median of the costs, at most 1,000 of them."""
        return self._smoothed[1]

    @property
    def median_places(self) -> Places:
        """The index into `steps` of the center of each running median."""
        return self._smoothed[0]

    @property
    def median_steps(self) -> Floats:
        """The step of the center of each running median."""
        return self.steps[self.median_places]

    @cached_property
    def starts(self) -> int:
        """The number of points whose median is the start: 3 to 10."""
        return min(max(len(self) // 20, 3), 10)

    @cached_property
    def start(self) -> float:
        """The cost at the start."""
        return median(self.costs[: self.starts])

    @cached_property
    def best(self) -> float:
        """The lowest running median."""
        return float(self.medians.min())

    @cached_property
    def best_place(self) -> int:
        """The index into `medians` of the best, the first of several."""
        return int(np.argmin(self.medians))

    @property
    def progress(self) -> float:
        """How far the cost fell from the start to the best; 0 where it did not."""
        return max(self.start - self.best, 0.0)

    def error(self, count: int) -> float:
        """The standard error of the median of `count` neighboring points."""
        return standard_error(self.costs, count, self.sigma)

    def value(self, cost: float) -> float:
        """The logged value of a cost."""
        return self.sign * float(cost)

    def found(self, kind: str, **evidence: float | int | str) -> Diagnosis:
        """A diagnosis of this curve."""
        return Diagnosis(kind=kind, run=self.run, tag=self.tag, points=len(self), evidence=evidence)


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedRun:
    """A run with the trends of its curves."""

    run: RunCurves
    trends: dict[str, Trend]

    @cached_property
    def pairs(self) -> list[tuple[Trend, Trend]]:
        """Train and validation trend of the same metric."""
        return [
            (self.trends[train], self.trends[validation])
            for train, validation in pair_curves(self.run.curves)
            if train in self.trends and validation in self.trends
        ]

    @cached_property
    def learning_rates(self) -> list[Curve]:
        """The curves of learning rates."""
        return [c for c in self.run.curves.values() if c.name.kind == "learning rate"]


def judge(run: RunCurves) -> JudgedRun:
    """`run` with a trend for every curve that should improve.

    In a run with episode returns (reinforcement learning) losses are left out: their target moves.
    """
    returns = any(is_return(tag) for tag in run.curves)
    trends = {
        curve.tag: trend
        for curve in run.curves.values()
        if curve.name.trend and not (returns and "loss" in curve.name.family)
        if len(trend := trend_of(run.name, curve))
    }
    return JudgedRun(run=run, trends=trends)


def trend_of(run: str, curve: Curve) -> Trend:
    """The finite points of `curve`."""
    finite = np.isfinite(curve.values)
    return Trend(
        run=run,
        tag=curve.tag,
        role=curve.name.role,
        family=curve.name.family,
        steps=curve.steps[finite],
        values=curve.values[finite],
        sign=-1 if curve.name.direction == "higher" else 1,
    )
