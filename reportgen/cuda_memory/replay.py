"""Run a trace through the allocator: peaks, or the point where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .allocator import AllocatorOptions, Block, CachingAllocator, OutOfMemoryError
from .events import Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What the allocator's counters showed.

    `peak_position` is the event at which allocated memory was highest; `failed_position` the
    event that did not fit, or None. `granted[i]` is the size of the block that allocation i got,
    slack included. `flushes` counts how often the cache was given back.
    """

    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    peak_position: int
    failed_position: int | None
    flushes: int
    granted: tuple[int, ...]


def replay(
    trace: Trace,
    sizes: Sequence[int] | None = None,
    *,
    capacity_bytes: int | None = None,
    options: AllocatorOptions | None = None,
) -> Replay:
    """Allocate and free as the trace did, with `sizes[i]` bytes for allocation i.

    Without sizes those of the trace are taken, and library requests count nothing. With a
    capacity the replay stops at the first request that does not fit.
    """
    if sizes is None:
        sizes = [allocation.size_bytes for allocation in trace.allocations]
    allocator = CachingAllocator(capacity_bytes, options)
    blocks: list[Block | None] = [None] * len(sizes)
    granted = [0] * len(sizes)
    peak, peak_position, failed_position = -1, 0, None
    for position, event in enumerate(trace.events):
        if event >= 0:
            size = sizes[event]
            if size == 0:
                continue
            try:
                block = allocator.allocate(size)
            except OutOfMemoryError:
                if _is_optional(trace, event):
                    continue
                failed_position = position
                break
            blocks[event] = block
            granted[event] = block.size
            if allocator.allocated_bytes > peak:
                peak, peak_position = allocator.allocated_bytes, position
        else:
            ended = blocks[~event]
            if ended is not None:
                allocator.free(ended)
    return Replay(
        peak_allocated_bytes=allocator.peak_allocated_bytes,
        peak_requested_bytes=allocator.peak_requested_bytes,
        peak_reserved_bytes=allocator.peak_reserved_bytes,
        peak_position=peak_position,
        failed_position=failed_position,
        flushes=allocator.flushes,
        granted=tuple(granted),
    )


def live_at(trace: Trace, position: int) -> list[int]:
    """The indices of the allocations that are alive right after the event at `position`."""
    live: dict[int, None] = {}
    for event in trace.events[: position + 1]:
        if event >= 0:
            live[event] = None
        else:
            live.pop(~event, None)
    return list(live)


def _is_optional(trace: Trace, index: int) -> bool:
    request = trace.allocations[index].request
    return request is not None and request.optional
