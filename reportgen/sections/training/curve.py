"""Curves that the rules judge: one tag of one run, with its sessions joined."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reportgen.sections.training.result import Direction, Role
from reportgen.training_logs.log_run import LoggedHistogram

Floats = NDArray[np.float64]
Kind = Literal["metric", "learning rate", "gradient norm", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricName:
    """Properties of a metric, derived from its tag.

    Attributes:
        role: train or validation, by a word in the tag; "none" if it has neither word.
        family: the tag without that word and without `_step`/`_epoch`, in lower case: what a
            train curve and its validation curve share.
        direction: which way the metric improves.
        kind: a metric that is judged, a learning rate, a gradient norm, or something else.
        trend: whether it should improve at all (losses of GANs and of RL need not).
    """

    role: Role
    family: str
    direction: Direction
    kind: Kind
    trend: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """A resume at `step`, after the log had reached `last_step`; `superseded` points replaced."""

    step: float
    last_step: float
    superseded: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """The points of one tag in the order of steps; float64 arrays of equal length.

    Attributes:
        values: NaN and infinities included.
        times: seconds since 1970, NaN where unknown.
        resumes: where sessions were joined, in order.
    """

    tag: str
    name: MetricName
    steps: Floats
    values: Floats
    times: Floats
    resumes: tuple[Resume, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunCurves:
    """The curves and histograms of one run, by tag."""

    name: str
    curves: dict[str, Curve]
    histograms: dict[str, list[LoggedHistogram]] = field(default_factory=dict)
    planned_steps: int | None = None


def as_floats(values: Any) -> Floats:
    """A copy of `values` as a float64 array."""
    return np.array(values, dtype=np.float64)
