"""Estimates, and the memory of a trace by category, by module and over time; no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .memory_trace import CATEGORIES, MemoryTrace, live_at


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleShare:
    """Bytes of one module at the peak, by category; `path` "" is the root and the loop."""

    path: str
    total_bytes: int
    at_peak: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelinePoint:
    """Allocated bytes by category at one point of the last iteration.

    `progress` counts allocator events from the start of the iteration, 0 to 1.
    """

    progress: float
    phase: str
    allocated: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The memory of one step on a GPU that is large enough; bytes.

    `peak_allocated_bytes` is torch.cuda.max_memory_allocated, `peak_reserved_bytes`
    max_memory_reserved, `peak_device_bytes` that of nvidia-smi (reserved, context, libraries).
    `band_low_bytes` and `band_high_bytes` are the range of the device bytes, the reserved band that
    of the reserved bytes; both come from the ranges in `library.json`. `at_peak` sums to
    the allocated peak. `method` is "fake", "cpu values" or "cpu run"; `notes` list the assumptions.
    """

    mode: str
    precision: str
    optimizer: str
    checkpointing: bool
    batch: int
    gpu: str | None
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    band_low_bytes: int
    band_high_bytes: int
    reserved_band_low_bytes: int
    reserved_band_high_bytes: int
    context_bytes: int
    after_forward_bytes: int
    method: str
    at_peak: dict[str, int]
    peak_module: str
    peak_phase: str
    peak_op: str
    timeline: tuple[TimelinePoint, ...]
    top_modules: tuple[ModuleShare, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LargestBatch:
    """The largest batch that fits a GPU, found by replaying the step at its capacity.

    `safe_batch` fits with the upper end of its band, as smaller ones near it do; `largest_batch`
    with the estimate itself; 0 if a batch of one does not fit. Batches above 256 are searched in
    steps of less than 1 %, so `first_batch_that_fails` is a step larger than `largest_batch`; it is
    None if the search limit was reached. `limited_by` is the largest category at that batch,
    "model" if the model itself raises, or "". `safety_margin_bytes` stays free besides the nominal
    context.
    """

    gpu: str
    usable_bytes: int
    mode: str
    precision: str
    optimizer: str
    checkpointing: bool
    safe_batch: int
    largest_batch: int
    first_batch_that_fails: int | None
    limited_by: str
    safety_margin_bytes: int


TIMELINE_POINTS = 240


def by_category(trace: MemoryTrace, granted: Sequence[int], position: int) -> dict[str, int]:
    """Allocated bytes of each category right after an event; categories in reading order."""
    found: dict[str, int] = defaultdict(int)
    for index in live_at(trace, position):
        found[trace.allocations[index].category] += granted[index]
    return {category: found[category] for category in CATEGORIES if found[category]}


def by_module(
    trace: MemoryTrace, granted: Sequence[int], position: int, *, limit: int = 20
) -> tuple[ModuleShare, ...]:
    """The modules with the most memory right after an event, largest first."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for index in live_at(trace, position):
        if granted[index]:
            allocation = trace.allocations[index]
            found[allocation.path][allocation.category] += granted[index]
    shares = [
        ModuleShare(path=path, total_bytes=sum(held.values()), at_peak=dict(held))
        for path, held in found.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-share.total_bytes, share.path))[:limit])


def timeline(trace: MemoryTrace, granted: Sequence[int]) -> tuple[TimelinePoint, ...]:
    """The last iteration, decimated to its highest points; every phase keeps at least one."""
    start = _last_iteration_start(trace)
    held = dict.fromkeys(CATEGORIES, 0)
    held.update(by_category(trace, granted, start - 1))
    length = max(len(trace.events) - start, 1)
    points: dict[tuple[int, str], tuple[int, TimelinePoint]] = {}
    total = sum(held.values())  # kept up to date below: summing at every event is slow
    phases = trace.phases()
    for position in range(start, len(trace.events)):
        event = trace.events[position]
        index, sign = (event, 1) if event >= 0 else (~event, -1)
        held[trace.allocations[index].category] += sign * granted[index]
        total += sign * granted[index]
        progress = (position - start) / length
        # with the phase in the key, a short phase keeps a point of its own
        bin_key = (int(progress * TIMELINE_POINTS), phases[position])
        if bin_key not in points or total > points[bin_key][0]:
            point = TimelinePoint(
                progress=progress, phase=bin_key[1], allocated={k: v for k, v in held.items() if v}
            )
            points[bin_key] = (total, point)
    return tuple(point for _, point in points.values())


def _last_iteration_start(trace: MemoryTrace) -> int:
    # the labels of the loss are inputs too, but no forward pass follows their mark
    for (start, name), (_, following) in reversed(list(pairwise(trace.marks))):
        if name == "inputs" and following == "forward":
            return start
    return 0
