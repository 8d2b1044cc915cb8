"""Allocation sizes at batch sizes that were not traced.

Sizes are polynomials of the batch: linear in most models, quadratic where every sample meets every
other, as in a contrastive loss. Traces at two batches give the polynomials, a third verifies them.
Where the events depend on values or on the number of samples, no polynomial is exact: what grows
with the batch is scaled in proportion and the rest kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from .library_workspaces import Platform, request_bytes
from .memory_trace import Allocation, MemoryTrace, Request

# where a polynomial starts: 2, since batch norm does not train on one sample; 5 if a backward
# formula keeps other tensors at a batch of 2, as that of Bilinear does
FIRST_BATCHES = (2, 5)
# from the first batch to those that determine the polynomial and verify it
_OFFSETS = (1, 5, 9)
_CONSTANT = ("parameter", "buffer", "gradient", "ddp_bucket", "optimizer_state", "ema")
Coefficients = tuple[int, int, int]  # of 1, batch and batch squared


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPolynomial:
    """Row i of `sizes_by_batch` tells what allocation i of `trace` takes at a batch, in bytes.

    Library requests have polynomials of their own: each entry of `requests` is a rule, the rows of
    `numbers` that it takes, and the indices of the allocations that make this request. The
    polynomials hold for batches from `smallest` on. `live` has the coefficients of the bytes in
    use after each event, library requests left out. A row consists of `Coefficients`.
    """

    trace: MemoryTrace
    smallest: int
    sizes_by_batch: Any = field(repr=False, compare=False)
    numbers: Any = field(repr=False, compare=False)
    requests: tuple[tuple[str, slice, tuple[int, ...]], ...]
    live: Any = field(repr=False, compare=False)

    @property
    def is_linear(self) -> bool:
        """Whether no size grows faster than the batch."""
        return not (self.sizes_by_batch[:, 2].any() or self.numbers[:, 2].any())

    def least_peak_bytes(self, batch: int) -> int:
        """A lower bound of the allocated peak on any platform; takes no replay."""
        return int(_values_at(self.live, batch).max(initial=0))

    def largest_batch_within(self, capacity_bytes: int, limit: int) -> int:
        """The largest batch up to `limit` with a least peak within the capacity; 0 if none is."""
        return bisect_right(range(1, limit + 1), capacity_bytes, key=self.least_peak_bytes)

    def sizes(self, batch: int, platform: Platform) -> list[int]:
        """The bytes of every allocation at this batch on this platform."""
        sizes: list[int] = _values_at(self.sizes_by_batch, batch).tolist()
        numbers = tuple(_values_at(self.numbers, batch).tolist())
        for rule, rows, indices in self.requests:
            # once per group: equal convolutions share one query of cuDNN
            size = request_bytes(Request(rule=rule, numbers=numbers[rows]), platform)
            for index in indices:
                sizes[index] = size
        return sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class _StepEvents:
    """The part of a trace that depends on the batch; `kept` are indices into the whole trace."""

    batch: int
    events: tuple[int, ...]
    kept: tuple[int, ...]
    allocations: tuple[Allocation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTrace:
    """A trace of two iterations at two batch sizes; `trace` is the trace with both at `batch`."""

    trace: MemoryTrace
    first: _StepEvents  # at batch + 1
    second: _StepEvents  # at batch


def pair_iterations(traced: MemoryTrace) -> PairedTrace | None:
    """Read a trace whose first iteration ran at `batch + 1` and whose second ran at `batch`.

    None if the two iterations differ in more than sizes, optimizer steps aside.
    """
    iterations = _iterations(traced)
    if len(iterations) != 2:
        return None
    first, second = replace(iterations[0], batch=traced.batch + 1), iterations[1]
    if not _same_events(first, second):
        return None
    allocations = list(traced.allocations)
    for index, same in zip(first.kept, second.allocations, strict=True):
        allocations[index] = replace(
            allocations[index], size_bytes=same.size_bytes, request=same.request
        )
    return PairedTrace(
        trace=replace(traced, allocations=tuple(allocations)), first=first, second=second
    )


def fit_lines(pair: PairedTrace) -> BatchPolynomial | None:
    """The lines through a paired trace, not verified; None where there are none."""
    return _polynomial_of_pair(pair, _coefficients(pair.second, pair.first))


def fit_pair(
    pair: PairedTrace, trace_iteration: Callable[[int], MemoryTrace]
) -> BatchPolynomial | None:
    """The polynomials of a paired trace, or None where its sizes follow none.

    `trace_iteration(batch)` traces one iteration without optimizer, to verify the polynomials at a
    third batch.
    """

    def events_at(batch: int) -> _StepEvents | None:
        trace = trace_iteration(batch)
        # another batch: the model turned out to be data-dependent
        return _iterations(trace)[0] if trace.batch == batch else None

    return _polynomial_of_pair(pair, _verified_coefficients(pair.second, pair.first, events_at))


def _polynomial_of_pair(
    pair: PairedTrace, coefficients: list[tuple[Coefficients, ...]] | None
) -> BatchPolynomial | None:
    if coefficients is None:
        return None
    by_index = dict(
        zip((*pair.first.kept, *pair.second.kept), (*coefficients, *coefficients), strict=True)
    )
    return _polynomial(pair.trace, by_index)


def fit_polynomial(
    full: MemoryTrace, light_trace_at: Callable[[int], MemoryTrace]
) -> BatchPolynomial | None:
    """The polynomials of a step, or None where its events or sizes follow none.

    `full` is traced at one of `FIRST_BATCHES`. Light traces leave out the optimizer, whose memory
    does not depend on the batch. A light trace made at another batch than the requested one, as
    for a data-dependent model, cannot be used.
    """

    def events_at(batch: int) -> _StepEvents | None:
        trace = light_trace_at(batch)
        return _without_optimizer(trace) if trace.batch == batch else None

    first = _without_optimizer(full)
    second = events_at(full.batch + _OFFSETS[0])
    if second is None:
        return None
    coefficients = _verified_coefficients(first, second, events_at)
    if coefficients is None:
        return None
    return _polynomial(full, dict(zip(first.kept, coefficients, strict=True)))


def traced_sizes(trace: MemoryTrace, platform: Platform) -> list[int]:
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


def _verified_coefficients(
    first: _StepEvents, second: _StepEvents, events_at: Callable[[int], _StepEvents | None]
) -> list[tuple[Coefficients, ...]] | None:
    """Lines that a third batch confirms, else parabolas that a fourth one confirms, else None."""
    lines = _coefficients(first, second)
    if lines is None or (third := events_at(first.batch + _OFFSETS[1])) is None:
        return None
    if _agree(first, lines, third):
        return lines
    parabolas = _coefficients(first, second, third)
    if parabolas is None or (fourth := events_at(first.batch + _OFFSETS[2])) is None:
        return None
    return parabolas if _agree(first, parabolas, fourth) else None


def _iterations(trace: MemoryTrace) -> list[_StepEvents]:
    """Each iteration from its inputs to its optimizer step.

    Requests without numbers are left out: they do not depend on the batch, and some happen only
    in the first iteration. So are the frees of what an earlier iteration allocated.
    """
    names = [name for _, name in trace.marks]
    found = []
    for at, (start, name) in enumerate(trace.marks[:-1]):
        if name == "inputs" and names[at + 1] == "forward":
            later = trace.marks[at + 2 :]
            end = next(
                position
                for i, (position, mark) in enumerate(later, at + 2)
                if mark in ("optimizer", "end") or names[i : i + 2] == ["inputs", "forward"]
            )
            events = range(start, end)
            found.append(
                _step_events(trace, events, lambda a: a.request is None or a.request.numbers)
            )
    return found


def _without_optimizer(trace: MemoryTrace) -> _StepEvents:
    phases = trace.phases()
    positions = [i for i, event in enumerate(trace.events) if event < 0 or phases[i] != "optimizer"]
    return _step_events(trace, positions)


def _step_events(
    trace: MemoryTrace, positions: Iterable[int], is_kept: Callable[[Allocation], object] = bool
) -> _StepEvents:
    """The events at these positions, renumbered; a free is kept with its allocation only."""
    number: dict[int, int] = {}
    events: list[int] = []
    for position in positions:
        event = trace.events[position]
        if event < 0:
            if ~event in number:
                events.append(~number[~event])
        elif is_kept(trace.allocations[event]):
            number[event] = len(number)
            events.append(number[event])
    return _StepEvents(
        batch=trace.batch,
        events=tuple(events),
        kept=tuple(number),
        allocations=tuple(trace.allocations[index] for index in number),
    )


def _coefficients(*traced: _StepEvents) -> list[tuple[Coefficients, ...]] | None:
    """For every allocation the polynomial of its size, or those of its request's numbers.

    Two traces give lines, three give parabolas; None where there are none with whole coefficients.
    """
    if not all(_same_events(traced[0], other) for other in traced[1:]):
        return None
    batches = [each.batch for each in traced]
    found = []
    for allocations in zip(*(each.allocations for each in traced), strict=True):
        numbers = zip(*map(_numbers, allocations), strict=True)
        fitted = [_interpolate(batches, values) for values in numbers]
        whole = tuple(coefficients for coefficients in fitted if coefficients is not None)
        if len(whole) < len(fitted):
            return None
        found.append(whole)
    return found


def _interpolate(batches: list[int], values: tuple[int, ...]) -> Coefficients | None:
    """Newton's polynomial through two or three points; None if a coefficient is not whole."""
    row, heads = list(values), [values[0]]
    for width in range(1, len(batches)):
        gaps = [end - start for start, end in zip(batches, batches[width:], strict=False)]
        # bytes are whole: a fraction means that the size is no polynomial of this degree
        if any((b - a) % gap for (a, b), gap in zip(pairwise(row), gaps, strict=True)):
            return None
        row = [(b - a) // gap for (a, b), gap in zip(pairwise(row), gaps, strict=True)]
        heads.append(row[0])
    (x0, x1), (value, slope, square) = batches[:2], (*heads, 0)[:3]
    return value - x0 * slope + x0 * x1 * square, slope - (x0 + x1) * square, square


def _value_at(coefficients: Coefficients, batch: int) -> int:
    constant, slope, square = coefficients
    return constant + (slope + square * batch) * batch


def _values_at(rows: Any, batch: int) -> Any:
    return rows @ (1, batch, batch * batch)


def _agree(
    first: _StepEvents, coefficients: list[tuple[Coefficients, ...]], other: _StepEvents
) -> bool:
    """Whether another trace has the same events and the sizes that the polynomials predict."""
    return _same_events(first, other) and all(
        tuple(_value_at(each, other.batch) for each in own) == _numbers(allocation)
        for own, allocation in zip(coefficients, other.allocations, strict=True)
    )


def _polynomial(
    full: MemoryTrace, by_index: dict[int, tuple[Coefficients, ...]]
) -> BatchPolynomial:
    """The polynomials of the whole trace; allocations that `by_index` lacks are constant."""
    sizes = [(allocation.size_bytes, 0, 0) for allocation in full.allocations]
    groups: dict[tuple[str, tuple[Coefficients, ...]], list[int]] = {}
    for index, allocation in enumerate(full.allocations):
        if allocation.request is not None:
            own = by_index.get(index) or tuple((n, 0, 0) for n in allocation.request.numbers)
            groups.setdefault((allocation.request.rule, own), []).append(index)
        elif index in by_index:
            sizes[index] = by_index[index][0]
    numbers: list[Coefficients] = []
    requests = []
    for (rule, own), indices in groups.items():
        rows = slice(len(numbers), len(numbers) + len(own))
        numbers += own
        requests.append((rule, rows, tuple(indices)))
    sizes_by_batch = _rows(sizes)
    return BatchPolynomial(
        trace=full,
        # from batch 5 on only, if batch 2 did not follow the polynomial
        smallest=1 if full.batch == FIRST_BATCHES[0] else full.batch,
        sizes_by_batch=sizes_by_batch,
        numbers=_rows(numbers),
        requests=tuple(requests),
        live=_live_bytes(full, sizes_by_batch),
    )


def _rows(coefficients: list[Coefficients]) -> Any:
    import numpy as np

    return np.array(coefficients, dtype=np.int64).reshape(-1, 3)


def _live_bytes(trace: MemoryTrace, sizes_by_batch: Any) -> Any:
    """The coefficients of the sum of the sizes in use after each event, one row per event."""
    import numpy as np

    events = np.array(trace.events, dtype=np.int64)
    began = events >= 0
    changes = sizes_by_batch[np.where(began, events, ~events)]
    return np.where(began[:, None], changes, -changes).cumsum(axis=0)


def _numbers(allocation: Allocation) -> tuple[int, ...]:
    request = allocation.request
    return (allocation.size_bytes,) if request is None else request.numbers


def _same_events(one: _StepEvents, other: _StepEvents) -> bool:
    return one.events == other.events and all(
        a.op == b.op and _rule(a) == _rule(b) and len(_numbers(a)) == len(_numbers(b))
        for a, b in zip(one.allocations, other.allocations, strict=True)
    )


def _rule(allocation: Allocation) -> str | None:
    return None if allocation.request is None else allocation.request.rule


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledTrace:
    """Allocations of `trace` that depend on the batch grow in proportion to it.

    `constant` are the indices of those that a smaller trace has in the same number and size.
    """

    trace: MemoryTrace
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
            return request_bytes(
                _scale_request(allocation.request, batch, self.trace.batch), platform
            )
        if allocation.category in _CONSTANT or phase in ("load", "optimizer"):
            return allocation.size_bytes
        return allocation.size_bytes * batch // self.trace.batch


def extrapolate(small: MemoryTrace, larger: MemoryTrace) -> BatchPolynomial | ScaledTrace:
    """The lines through two traces, or the larger one scaled if they differ in their events."""
    events = _without_optimizer(small)
    coefficients = _coefficients(events, _without_optimizer(larger))
    if coefficients is None:
        return scale_trace(small, larger)
    return _polynomial(small, dict(zip(events.kept, coefficients, strict=True)))


def scale_trace(small: MemoryTrace, larger: MemoryTrace) -> ScaledTrace:
    """The larger trace, scaled except for what both traces have in the same number and size."""
    few, many = _by_kind(small), _by_kind(larger)
    constant = {
        index
        for kind, indices in many.items()
        if len(indices) == len(few.get(kind, ()))
        for index, other in zip(indices, few[kind], strict=True)
        if larger.allocations[index] == small.allocations[other]
    }
    return ScaledTrace(trace=larger, constant=frozenset(constant))


def _by_kind(trace: MemoryTrace) -> dict[tuple[str, str, str], list[int]]:
    """The allocations of each module, operator and category, in order."""
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for index, each in enumerate(trace.allocations):
        kinds.setdefault((each.path, each.op, each.category), []).append(index)
    return kinds


def _scale_request(request: Request, batch: int, traced_batch: int) -> Request:
    """Scale the first dimension of a convolution's input and output."""
    if request.rule != "convolution":
        return request
    numbers = list(request.numbers)  # see cuda_kernels._workspace: four, then x, weight and y
    dims = numbers[3] + 2
    for at in (4, 4 + 2 * dims):
        numbers[at] = max(numbers[at] * batch // traced_batch, 1)
    return replace(request, numbers=tuple(numbers))


def _phase_of_allocation(trace: MemoryTrace) -> list[str]:
    found = [""] * len(trace.allocations)
    for event, phase in zip(trace.events, trace.phases(), strict=True):
        if event >= 0:
            found[event] = phase
    return found
