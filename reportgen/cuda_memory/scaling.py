"""Sizes of a step that had to run for real: read off two small batches, drawn on as lines.

What such a model allocates depends on its values, so no law is exact. Where two runs have the
same events their lines are drawn on; where they differ, what grows with the batch is scaled up
from the larger run and the rest kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .events import Allocation, Request, Trace
from .laws import BatchLaw, law_through
from .library import Platform, request_bytes

_CONSTANT = ("parameter", "buffer", "gradient", "optimizer_state")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledRun:
    """Allocations of `trace` that depend on the batch grow in proportion to it."""

    trace: Trace
    smallest: int = 1

    def sizes(self, batch: int, platform: Platform) -> list[int]:
        """The bytes of every allocation at this batch on this platform."""
        phases = _phase_of_allocation(self.trace)
        return [
            self._size(allocation, phase, batch, platform)
            for allocation, phase in zip(self.trace.allocations, phases, strict=True)
        ]

    def _size(self, allocation: Allocation, phase: str, batch: int, platform: Platform) -> int:
        if allocation.request is not None:
            return request_bytes(_grown(allocation.request, batch, self.trace.batch), platform)
        if allocation.category in _CONSTANT or phase in ("load", "optimizer"):
            return allocation.size_bytes
        return allocation.size_bytes * batch // self.trace.batch


def scaled(small: Trace, larger: Trace) -> BatchLaw | ScaledRun:
    """The lines through two real runs, or the larger run scaled where they differ."""
    law = law_through(small, larger)
    return law if law is not None else ScaledRun(trace=larger)


def _grown(request: Request, batch: int, traced_batch: int) -> Request:
    """A convolution's input and output grow by their first dimension; the rest stays."""
    if request.rule != "convolution":
        return request
    numbers = list(request.numbers)
    dims = numbers[3] + 2
    for at in (4, 4 + 2 * dims):
        numbers[at] = max(numbers[at] * batch // traced_batch, 1)
    return replace(request, numbers=tuple(numbers))


def _phase_of_allocation(trace: Trace) -> list[str]:
    found = [""] * len(trace.allocations)
    for event, phase in zip(trace.events, trace.phases(), strict=True):
        if event >= 0:
            found[event] = phase
    return found
