"""A curve as the rules judge it: one tag of one run after its sessions were joined."""

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
    """What a tag says of its metric.

    Attributes:
        role: train or validation, by a word in the tag; "none" where it has neither.
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
    """Where a later session went on: from `step`, after `superseded` points were replaced."""

    step: float
    last_step: float
    superseded: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """One tag's points in the order of steps; arrays are of equal length, float64.

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
    """One run as the rules judge it."""

    name: str
    curves: dict[str, Curve]
    histograms: dict[str, list[LoggedHistogram]] = field(default_factory=dict)
    planned_steps: int | None = None


def as_floats(values: Any) -> Floats:
    """`values` as a float64 array of its own."""
    return np.array(values, dtype=np.float64)
