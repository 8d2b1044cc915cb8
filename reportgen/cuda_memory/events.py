"""What one traced step did to memory: allocations and frees in order, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = (
    "parameter", "buffer", "gradient", "optimizer_state", "input", "saved_activation",
    "temporary", "workspace",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Memory that a library asks for; `rule` of `library.py` turns `numbers` into bytes.

    `optional` memory may be refused without failing the step: cuDNN then takes another plan.
    """

    rule: str
    numbers: tuple[int, ...] = ()
    optional: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """One block asked of the allocator: how big, what for, by whom.

    `path` is the module's dotted path ("" for the root and for code outside it); `op` names the
    ATen operator. A library's request has `size_bytes` 0 and a `request` instead.
    """

    size_bytes: int
    category: str
    path: str
    op: str
    request: Request | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Everything one step did at one batch size.

    `events` holds i when allocation i begins and ~i (negative) when it ends; `marks` are pairs
    (position in `events`, phase). `method` is "fake", "cpu values" (fake, told the values of a
    pass on the CPU) or "cpu run". `notes` are plain sentences on what was assumed.
    """

    batch: int
    allocations: tuple[Allocation, ...]
    events: tuple[int, ...]
    marks: tuple[tuple[int, str], ...]
    method: str
    notes: tuple[str, ...] = ()

    def phase_at(self, position: int) -> str:
        """The phase in which the event at that position happened."""
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

    def position_of(self, phase: str, *, last: bool = False) -> int | None:
        """Where a phase first (or last) starts, or None if it never does."""
        starts = [start for start, name in self.marks if name == phase]
        return None if not starts else starts[-1 if last else 0]
