"""Sizes as affine functions of the batch: two traces give the law, a third must agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .events import Allocation, Request, Trace
from .library import Platform, request_bytes

FIRST_BATCH, SECOND_BATCH, CHECK_BATCH = 2, 3, 7
Line = tuple[int, int]
"""A constant and what is added to it for each example of the batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLaw:
    """Allocation i takes `constants[i] + slopes[i] * batch` bytes in the order of `trace`.

    Library requests obey laws of their own: each entry of `requests` is a rule, the lines of its
    numbers, and the allocations that make this very request.
    """

    trace: Trace
    constants: tuple[int, ...]
    slopes: tuple[int, ...]
    requests: tuple[tuple[str, tuple[Line, ...], tuple[int, ...]], ...]

    def sizes(self, batch: int, platform: Platform) -> list[int]:
        """The bytes of every allocation at this batch on this platform."""
        sizes = [a + b * batch for a, b in zip(self.constants, self.slopes, strict=True)]
        for rule, lines, indices in self.requests:
            numbers = tuple(a + b * batch for a, b in lines)
            size = request_bytes(Request(rule=rule, numbers=numbers), platform)
            for index in indices:
                sizes[index] = size
        return sizes


def find_law(full: Trace, light_trace_at: Callable[[int], Trace]) -> BatchLaw | None:
    """The law of a step, or None where its events or sizes are not affine in the batch.

    `full` is traced at `FIRST_BATCH`. Light traces leave out the optimizer, whose memory does not
    depend on the batch.
    """
    first = _without_optimizer(full)
    second = _without_optimizer(light_trace_at(SECOND_BATCH))
    lines = _lines(first, second)
    if lines is None:
        return None
    if not _agree(first, lines, _without_optimizer(light_trace_at(CHECK_BATCH))):
        return None
    return _law(full, first, lines)


def law_through(first: Trace, second: Trace) -> BatchLaw | None:
    """The law through two whole traces, or None where they differ in more than sizes."""
    body = _without_optimizer(first)
    lines = _lines(body, _without_optimizer(second))
    return None if lines is None else _law(first, body, lines)


def own_sizes(trace: Trace, platform: Platform) -> list[int]:
    """The bytes of every allocation as traced, library requests included."""
    known: dict[Request, int] = {}
    sizes = []
    for allocation in trace.allocations:
        request = allocation.request
        if request is None:
            sizes.append(allocation.size_bytes)
            continue
        if request not in known:
            known[request] = request_bytes(request, platform)
        sizes.append(known[request])
    return sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Body:
    """A trace without its optimizer phases: `kept` are indices into the whole trace."""

    batch: int
    events: tuple[int, ...]
    kept: tuple[int, ...]
    allocations: tuple[Allocation, ...]


def _without_optimizer(trace: Trace) -> _Body:
    number: dict[int, int] = {}
    kept: list[int] = []
    events: list[int] = []
    for event, phase in zip(trace.events, trace.phases(), strict=True):
        if event >= 0 and phase != "optimizer":
            number[event] = len(kept)
            kept.append(event)
            events.append(number[event])
        elif event < 0 and ~event in number:
            events.append(~number[~event])
    allocations = tuple(trace.allocations[index] for index in kept)
    return _Body(batch=trace.batch, events=tuple(events), kept=tuple(kept), allocations=allocations)


def _lines(first: _Body, second: _Body) -> list[tuple[Line, ...]] | None:
    """For every allocation its line, or the lines of its request's numbers; None if any bends."""
    if not _same_events(first, second):
        return None
    step = second.batch - first.batch
    lines = []
    for one, other in zip(first.allocations, second.allocations, strict=True):
        found = []
        for a, b in zip(_numbers(one), _numbers(other), strict=True):
            slope, rest = divmod(b - a, step)
            if rest:
                return None
            found.append((a - slope * first.batch, slope))
        lines.append(tuple(found))
    return lines


def _agree(first: _Body, lines: list[tuple[Line, ...]], third: _Body) -> bool:
    """Whether a third trace has the very events and numbers that the lines foretell."""
    return _same_events(first, third) and all(
        tuple(a + b * third.batch for a, b in line) == _numbers(allocation)
        for line, allocation in zip(lines, third.allocations, strict=True)
    )


def _law(full: Trace, body: _Body, lines: list[tuple[Line, ...]]) -> BatchLaw:
    """The law of the whole trace; what only the optimizer allocates is constant."""
    constants = [allocation.size_bytes for allocation in full.allocations]
    slopes = [0] * len(constants)
    requests: dict[tuple[str, tuple[Line, ...]], list[int]] = {}
    of_index = dict(zip(body.kept, lines, strict=True))
    for index, allocation in enumerate(full.allocations):
        if allocation.request is not None:
            own = of_index.get(index) or tuple((n, 0) for n in allocation.request.numbers)
            requests.setdefault((allocation.request.rule, own), []).append(index)
        elif index in of_index:
            constants[index], slopes[index] = of_index[index][0]
    return BatchLaw(
        trace=full,
        constants=tuple(constants),
        slopes=tuple(slopes),
        requests=tuple((*key, tuple(indices)) for key, indices in requests.items()),
    )


def _numbers(allocation: Allocation) -> tuple[int, ...]:
    request = allocation.request
    return (allocation.size_bytes,) if request is None else request.numbers


def _same_events(one: _Body, other: _Body) -> bool:
    return one.events == other.events and all(
        a.op == b.op and _rule(a) == _rule(b) and len(_numbers(a)) == len(_numbers(b))
        for a, b in zip(one.allocations, other.allocations, strict=True)
    )


def _rule(allocation: Allocation) -> str | None:
    return None if allocation.request is None else allocation.request.rule
