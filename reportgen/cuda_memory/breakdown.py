"""Who holds the memory: by category and module at the peak, and over one iteration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .estimates import ModuleShare, TimelinePoint
from .events import CATEGORIES, Trace
from .replay import live_at

TIMELINE_POINTS = 240


def by_category(trace: Trace, granted: Sequence[int], position: int) -> dict[str, int]:
    """Allocated bytes of each category right after an event; categories in reading order."""
    found: dict[str, int] = defaultdict(int)
    for index in live_at(trace, position):
        found[trace.allocations[index].category] += granted[index]
    return {category: found[category] for category in CATEGORIES if found[category]}


def by_module(
    trace: Trace, granted: Sequence[int], position: int, *, limit: int = 20
) -> tuple[ModuleShare, ...]:
    """The modules that hold most right after an event, largest first."""
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


def timeline(trace: Trace, granted: Sequence[int]) -> tuple[TimelinePoint, ...]:
    """The last iteration, thinned to its highest moments; every phase keeps at least one."""
    start = trace.position_of("inputs", last=True) or 0
    start = _iteration_start(trace, start)
    held = dict.fromkeys(CATEGORIES, 0)
    held.update(by_category(trace, granted, start - 1))
    length = max(len(trace.events) - start, 1)
    points: dict[tuple[int, str], tuple[int, TimelinePoint]] = {}
    total = sum(held.values())
    phases = trace.phases()
    for position in range(start, len(trace.events)):
        event = trace.events[position]
        index, sign = (event, 1) if event >= 0 else (~event, -1)
        held[trace.allocations[index].category] += sign * granted[index]
        total += sign * granted[index]
        progress = (position - start) / length
        bin_key = (int(progress * TIMELINE_POINTS), phases[position])
        if bin_key not in points or total > points[bin_key][0]:
            point = TimelinePoint(
                progress=progress, phase=bin_key[1], allocated={k: v for k, v in held.items() if v}
            )
            points[bin_key] = (total, point)
    return tuple(point for _, point in points.values())


def _iteration_start(trace: Trace, last_inputs: int) -> int:
    """The last iteration starts with the last `inputs` mark that a `forward` mark follows."""
    names = [name for _, name in trace.marks]
    for at in range(len(names) - 2, -1, -1):
        if names[at] == "inputs" and names[at + 1] == "forward":
            return trace.marks[at][0]
    return last_inputs
