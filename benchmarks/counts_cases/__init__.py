"""Models that are easily counted wrong, with the right answers by closed form."""

from __future__ import annotations

from benchmarks.counts_cases import (
    attention,
    convolutions,
    hostile,
    operators,
    parametrized,
    published,
    recurrent,
    sharing,
    structure,
    training,
)
from benchmarks.counts_cases.case import Case, judge

__all__ = ["HUNTED", "PUBLISHED", "Case", "judge"]

PUBLISHED: tuple[Case, ...] = published.CASES
HUNTED: tuple[Case, ...] = (
    *recurrent.CASES,
    *attention.CASES,
    *sharing.CASES,
    *parametrized.CASES,
    *convolutions.CASES,
    *operators.CASES,
    *structure.CASES,
    *training.CASES,
    *hostile.CASES,
)
