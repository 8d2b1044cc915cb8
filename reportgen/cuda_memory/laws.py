"""Sizes as affine functions of the batch: two traces give the law, a third must agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .events import Request, Trace
from .library import Platform, request_bytes

FIRST_BATCH, SECOND_BATCH, CHECK_BATCH = 2, 3, 7


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLaw:
    """Allocation i takes `constants[i] + slopes[i] * batch` bytes in the order of `trace`.

    The numbers of library requests obey laws of their own, by index of the allocation.
    """

    trace: Trace
    constants: tuple[int, ...]
    slopes: tuple[int, ...]
    requests: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]

    def sizes(self, batch: int, platform: Platform) -> list[int]:
        """The bytes of every allocation at this batch on this platform."""
        sizes = [a + b * batch for a, b in zip(self.constants, self.slopes, strict=True)]
        for index, numbers in self.requests:
            request = self.trace.allocations[index].request
            assert request is not None
            at_batch = tuple(a + b * batch for a, b in numbers)
            sizes[index] = request_bytes(
                Request(rule=request.rule, numbers=at_batch), platform
            )
        return sizes


def find_law(trace_at: Callable[[int], Trace]) -> BatchLaw | None:
    """The law of a step, or None where its events or sizes are not affine in the batch."""
    first, second = trace_at(FIRST_BATCH), trace_at(SECOND_BATCH)
    law = law_through(first, second)
    if law is None or not agrees(law, trace_at(CHECK_BATCH)):
        return None
    return law


def law_through(first: Trace, second: Trace) -> BatchLaw | None:
    """The law through two traces, or None where they differ in more than sizes."""
    if not _same_events(first, second):
        return None
    step = second.batch - first.batch
    constants, slopes = [], []
    requests = []
    for index, (one, other) in enumerate(zip(first.allocations, second.allocations, strict=True)):
        line = _line(one.size_bytes, other.size_bytes, first.batch, step)
        if line is None:
            return None
        constants.append(line[0])
        slopes.append(line[1])
        if one.request is not None and other.request is not None:
            lines = [
                _line(a, b, first.batch, step)
                for a, b in zip(one.request.numbers, other.request.numbers, strict=True)
            ]
            if None in lines:
                return None
            requests.append((index, tuple(line for line in lines if line is not None)))
    return BatchLaw(
        trace=first, constants=tuple(constants), slopes=tuple(slopes), requests=tuple(requests)
    )


def agrees(law: BatchLaw, trace: Trace) -> bool:
    """Whether a third trace has the very events, sizes and numbers that the law foretells."""
    if not _same_events(law.trace, trace):
        return False
    batch = trace.batch
    sizes = (a + b * batch for a, b in zip(law.constants, law.slopes, strict=True))
    found = (allocation.size_bytes for allocation in trace.allocations)
    if any(size != known for size, known in zip(sizes, found, strict=True)):
        return False
    for index, numbers in law.requests:
        request = trace.allocations[index].request
        if request is None or request.numbers != tuple(a + b * batch for a, b in numbers):
            return False
    return True


def own_sizes(trace: Trace, platform: Platform) -> list[int]:
    """The bytes of every allocation as traced, library requests included."""
    return [
        a.size_bytes if a.request is None else request_bytes(a.request, platform)
        for a in trace.allocations
    ]


def _same_events(one: Trace, other: Trace) -> bool:
    return (
        one.events == other.events
        and len(one.allocations) == len(other.allocations)
        and all(
            a.op == b.op and _rule(a.request) == _rule(b.request)
            for a, b in zip(one.allocations, other.allocations, strict=True)
        )
    )


def _rule(request: Request | None) -> str | None:
    return None if request is None else request.rule


def _line(first: int, second: int, first_batch: int, step: int) -> tuple[int, int] | None:
    slope, rest = divmod(second - first, step)
    return None if rest else (first - slope * first_batch, slope)
