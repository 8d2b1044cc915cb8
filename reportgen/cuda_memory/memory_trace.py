"""The allocations and frees of one step in order, and their replay through the allocator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .allocator import AllocatorOptions, Block, CachingAllocator, OutOfMemoryError

CATEGORIES = (
    "parameter", "buffer", "gradient", "ddp_bucket", "optimizer_state", "ema", "input",
    "saved_activation", "temporary", "workspace",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Memory that a library requests; `library_workspaces` turns `rule` and `numbers` into bytes.

    If `optional` memory does not fit, the step goes on: cuDNN takes another plan.
    """

    rule: str
    numbers: tuple[int, ...] = ()
    optional: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """One block requested from the allocator.

    `path` is the module's dotted path ("" for the root and for code outside it); `op` names the
    ATen operator. A library's request has `size_bytes` 0 and a `request` instead.
    """

    size_bytes: int
    category: str
    path: str
    op: str
    request: Request | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryTrace:
    """The allocations of one step at one batch size.

    `events` holds i when allocation i begins and ~i (negative) when it ends; `marks` are pairs
    (position in `events`, phase). `method` is "fake", "cpu values" (fake, with the values of a
    CPU run) or "cpu run". `notes` are sentences on what was assumed.
    """

    batch: int
    allocations: tuple[Allocation, ...]
    events: tuple[int, ...]
    marks: tuple[tuple[int, str], ...]
    method: str
    notes: tuple[str, ...] = ()

    def phase_at(self, position: int) -> str:
        """The phase of the event at that position."""
        phase = ""
        for start, name in self.marks:
            if start > position:
                break
            phase = name
        return phase

    def phases(self) -> list[str]:
        """The phase of every event, in order."""
        phases = [""] * len(self.events)
        ends = [start for start, _ in self.marks[1:]] + [len(self.events)]
        for (start, name), end in zip(self.marks, ends, strict=True):
            phases[start:end] = [name] * (end - start)
        return phases

    def position_of(self, phase: str) -> int | None:
        """Where a phase first starts, or None if it never does."""
        return next((start for start, name in self.marks if name == phase), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """The allocator's counters after a replay.

    `peak_position` is the event at which allocated memory was highest; `failed_position` the
    event that did not fit, or None. `granted[i]` is the size of the block that allocation i got,
    slack included. `flushes` counts how often the cache was released.
    """

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_position: int
    failed_position: int | None
    flushes: int
    granted: tuple[int, ...]


def replay(
    trace: MemoryTrace,
    sizes: Sequence[int] | None = None,
    *,
    capacity_bytes: int | None = None,
    options: AllocatorOptions | None = None,
) -> Replay:
    """Allocate and free as the trace did, with `sizes[i]` bytes for allocation i.

    Without `sizes` those of the trace apply, and library requests take no memory. With a
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
            if size == 0:  # torch allocates nothing for an empty tensor
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
        peak_reserved_bytes=allocator.peak_reserved_bytes,
        peak_position=peak_position,
        failed_position=failed_position,
        flushes=allocator.flushes,
        granted=tuple(granted),
    )


def live_at(trace: MemoryTrace, position: int) -> list[int]:
    """The indices of the allocations that are alive right after the event at `position`."""
    live: dict[int, None] = {}  # a dict keeps the order of allocation
    for event in trace.events[: position + 1]:
        if event >= 0:
            live[event] = None
        else:
            live.pop(~event, None)
    return list(live)


def _is_optional(trace: MemoryTrace, index: int) -> bool:
    request = trace.allocations[index].request
    return request is not None and request.optional
