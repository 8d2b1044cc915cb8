"""Sizes of a step whose events depend on values or on the number of samples.

No law is exact then. Where two traces have the same events, lines are drawn through their sizes;
where they differ, what grows with the batch is scaled up from the larger one and the rest kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .batch_polynomial import BatchLaw, law_through
from .events import Allocation, Request, Trace
from .library_workspaces import Platform, request_bytes

_CONSTANT = ("parameter", "buffer", "gradient", "optimizer_state")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledRun:
    """Allocations of `trace` that depend on the batch grow in proportion to it.

    `constant` are those that a smaller trace has as well, as many of a kind and of this size.
    """

    trace: Trace
    smallest: int = 1
    constant: frozenset[int] = frozenset()

    def sizes(self, batch: int, platform: Platform) -> list[int]:
        """The bytes of every allocation at this batch on this platform."""
        phases = _phase_of_allocation(self.trace)
        return [
            self._size(each, phase, self.trace.batch if i in self.constant else batch, platform)
            for i, (each, phase) in enumerate(zip(self.trace.allocations, phases, strict=True))
        ]

    def _size(self, allocation: Allocation, phase: str, batch: int, platform: Platform) -> int:
        if allocation.request is not None:
            return request_bytes(_grown(allocation.request, batch, self.trace.batch), platform)
        if allocation.category in _CONSTANT or phase in ("load", "optimizer"):
            return allocation.size_bytes
        return allocation.size_bytes * batch // self.trace.batch


def scaled(small: Trace, larger: Trace) -> BatchLaw | ScaledRun:
    """The lines through two traces, or the larger one scaled where they differ."""
    law = law_through(small, larger)
    return law if law is not None else scaled_run(small, larger)


def scaled_run(small: Trace, larger: Trace) -> ScaledRun:
    """The larger trace, scaled but for what the smaller one has in the same number and size."""
    few, many = _by_kind(small), _by_kind(larger)
    constant = {
        index
        for kind, indices in many.items()
        if len(indices) == len(few.get(kind, ()))
        for index, other in zip(indices, few[kind], strict=True)
        if _asks_for(larger.allocations[index]) == _asks_for(small.allocations[other])
    }
    return ScaledRun(trace=larger, constant=frozenset(constant))


def _by_kind(trace: Trace) -> dict[tuple[str, str, str], list[int]]:
    """The allocations of each module, operator and category, in order."""
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for index, each in enumerate(trace.allocations):
        kinds.setdefault((each.path, each.op, each.category), []).append(index)
    return kinds


def _asks_for(allocation: Allocation) -> tuple[int, Request | None]:
    return allocation.size_bytes, allocation.request


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
