"""Models that are easily counted wrong, with the right answers by closed form."""

from __future__ import annotations

from benchmarks.counts_cases import (
    architectures,
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
    unregistered,
    wrapped,
)
from benchmarks.counts_cases.case import Case, judge

__all__ = ["HUNTED", "PUBLISHED", "Case", "judge"]

PUBLISHED: tuple[Case, ...] = published.CASES
HUNTED: tuple[Case, ...] = (
    *recurrent.CASES,
    *attention.CASES,
    *sharing.CASES,
    *unregistered.CASES,
    *parametrized.CASES,
    *convolutions.CASES,
    *operators.CASES,
    *structure.CASES,
    *wrapped.CASES,
    *training.CASES,
    *hostile.CASES,
    *architectures.CASES,
)
