"""The answers: what a step needs, and what fits a card. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleShare:
    """What one module holds at the peak, by category; `path` "" is the root and the loop."""

    path: str
    total_bytes: int
    at_peak: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelinePoint:
    """Allocated bytes by category at one moment of the last iteration.

    `progress` counts allocator events from the start of the iteration, 0 to 1.
    """

    progress: float
    phase: str
    allocated: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """How much memory one step needs on a card that is large enough.

    `peak_allocated_bytes` is torch.cuda.max_memory_allocated, `peak_reserved_bytes`
    max_memory_reserved, `peak_device_bytes` what nvidia-smi shows (reserved, context, libraries).
    The band `band_low_bytes` to `band_high_bytes` is about the device bytes, the reserved band
    about the reserved bytes; both come from the ranges of `library.json`. `at_peak` sums to
    the allocated peak. `method` is "fake", "cpu values" or "cpu run"; `notes` say what was assumed.
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
class Fit:
    """The largest batch that a card takes, found by replaying the step at its capacity.

    `largest_batch` is 0 when not even a batch of one fits; `first_batch_that_fails` is None when
    the search limit was reached. `limited_by` is the largest category where it failed, `model`
    where the model itself refuses that batch, or "".
    `safety_margin_bytes` is kept free besides the nominal context.
    """

    gpu: str
    usable_bytes: int
    mode: str
    precision: str
    optimizer: str
    checkpointing: bool
    largest_batch: int
    first_batch_that_fails: int | None
    limited_by: str
    safety_margin_bytes: int
