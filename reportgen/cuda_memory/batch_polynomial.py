"""Sizes as polynomials of the batch: few small traces give the law, one more must agree.

Most sizes grow along a line. Where every example meets every other, as in a contrastive loss,
they grow with the square of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from .events import Allocation, Request, Trace
from .library_workspaces import Platform, request_bytes

FIRST_BATCHES = (2, 5)  # a law begins at one of them: some kernels do otherwise with two or four
_STEPS = (1, 5, 9)  # from the first batch to those that are traced to find the law and check it
Curve = tuple[int, int, int]
"""A constant, what is added to it for each example of the batch, and for each pair of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLaw:
    """Allocation i takes the bytes of `curves[i]` at a batch, in the order of `trace`.

    Library requests obey laws of their own: each entry of `requests` is a rule, the curves of its
    numbers, and the allocations that make this very request. It speaks of batches from `smallest`
    on.
    """

    trace: Trace
    smallest: int
    curves: tuple[Curve, ...]
    requests: tuple[tuple[str, tuple[Curve, ...], tuple[int, ...]], ...]

    def sizes(self, batch: int, platform: Platform) -> list[int]:
        """The bytes of every allocation at this batch on this platform."""
        sizes = [_at(curve, batch) for curve in self.curves]
        for rule, curves, indices in self.requests:
            numbers = tuple(_at(curve, batch) for curve in curves)
            size = request_bytes(Request(rule=rule, numbers=numbers), platform)
            for index in indices:
                sizes[index] = size
        return sizes


def find_law(full: Trace, light_trace_at: Callable[[int], Trace]) -> BatchLaw | None:
    """The law of a step, or None where its events or sizes follow none.

    `full` is traced at one of `FIRST_BATCHES`. Light traces leave out the optimizer, whose memory
    does not depend on the batch. Two traces give lines; where a third one is not on them, it bends
    them, and a fourth one must agree. A trace that had to be made at another batch than it was
    asked for, since the step needs values there, says nothing of a law.
    """

    def light(step: int) -> _Body | None:
        trace = light_trace_at(full.batch + step)
        return _without_optimizer(trace) if trace.batch == full.batch + step else None

    first = _without_optimizer(full)
    one, two, three = _STEPS
    second = light(one)
    curves = _curves(first, second) if second is not None else None
    if second is None or curves is None or (third := light(two)) is None:
        return None
    if not _agree(first, curves, third):
        curves = _curves(first, second, third)
        if curves is None or (fourth := light(three)) is None or not _agree(first, curves, fourth):
            return None
    return _law(full, first, curves)


def law_through(first: Trace, second: Trace) -> BatchLaw | None:
    """The law through two whole traces, or None where they differ in more than sizes."""
    body = _without_optimizer(first)
    curves = _curves(body, _without_optimizer(second))
    return None if curves is None else _law(first, body, curves)


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


def _curves(*bodies: _Body) -> list[tuple[Curve, ...]] | None:
    """For every allocation its curve, or those of its request's numbers; None without any.

    Two traces give lines, three give parabolas.
    """
    if not all(_same_events(bodies[0], other) for other in bodies[1:]):
        return None
    batches = [body.batch for body in bodies]
    found = []
    for allocations in zip(*(body.allocations for body in bodies), strict=True):
        numbers = zip(*map(_numbers, allocations), strict=True)
        curves = [_curve_through(batches, values) for values in numbers]
        whole = tuple(curve for curve in curves if curve is not None)
        if len(whole) < len(curves):
            return None
        found.append(whole)
    return found


def _curve_through(batches: list[int], values: tuple[int, ...]) -> Curve | None:
    """Newton's polynomial through two points or three; None where its numbers are not whole."""
    row, heads = list(values), [values[0]]
    for width in range(1, len(batches)):
        gaps = [end - start for start, end in zip(batches, batches[width:], strict=False)]
        if any((b - a) % gap for (a, b), gap in zip(pairwise(row), gaps, strict=True)):
            return None
        row = [(b - a) // gap for (a, b), gap in zip(pairwise(row), gaps, strict=True)]
        heads.append(row[0])
    (x0, x1), (value, slope, square) = batches[:2], (*heads, 0)[:3]
    return value - x0 * slope + x0 * x1 * square, slope - (x0 + x1) * square, square


def _at(curve: Curve, batch: int) -> int:
    constant, slope, square = curve
    return constant + (slope + square * batch) * batch


def _agree(first: _Body, curves: list[tuple[Curve, ...]], other: _Body) -> bool:
    """Whether another trace has the very events and numbers that the curves foretell."""
    return _same_events(first, other) and all(
        tuple(_at(curve, other.batch) for curve in own) == _numbers(allocation)
        for own, allocation in zip(curves, other.allocations, strict=True)
    )


def _law(full: Trace, body: _Body, curves: list[tuple[Curve, ...]]) -> BatchLaw:
    """The law of the whole trace; what only the optimizer allocates is constant."""
    sizes = [(allocation.size_bytes, 0, 0) for allocation in full.allocations]
    requests: dict[tuple[str, tuple[Curve, ...]], list[int]] = {}
    of_index = dict(zip(body.kept, curves, strict=True))
    for index, allocation in enumerate(full.allocations):
        if allocation.request is not None:
            own = of_index.get(index) or tuple((n, 0, 0) for n in allocation.request.numbers)
            requests.setdefault((allocation.request.rule, own), []).append(index)
        elif index in of_index:
            sizes[index] = of_index[index][0]
    return BatchLaw(
        trace=full,
        smallest=1 if full.batch == FIRST_BATCHES[0] else full.batch,
        curves=tuple(sizes),
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
