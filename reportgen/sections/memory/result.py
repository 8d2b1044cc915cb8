"""The result of the memory section."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """The peak of one step at one batch size; bytes. See `cuda_memory.Estimate`."""

    mode: str  # "inference" | "train"
    precision: str
    optimizer: str
    checkpointing: bool
    batch: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    band_low_bytes: int
    band_high_bytes: int
    method: str
    at_peak: dict[str, int]  # category -> bytes
    peak_module: str
    peak_phase: str  # "forward", "backward", "optimizer", …
    peak_operator: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The largest batch of one step on one GPU; 0 if a single sample does not fit.

    The upper end of the band of `safe_batch` fits; `largest_batch` fits as estimated. The step
    after it is `first_batch_that_fails`; None if the search ended first.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCurve:
    """Peak device memory against batch size of one step."""

    mode: str
    precision: str
    checkpointing: bool
    batches: tuple[int, ...]
    peak_device_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """The safe training batch on one GPU with one change of the step."""

    gpu: str
    change: str  # "mixed precision", "checkpointing", or both
    safe_batch: int
    baseline_safe_batch: int  # without the change


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopOption:
    """What one habit of the training loop adds to the peak on the device; below 0: it saves."""

    option: str  # as in the manifest: "ddp", "prefetch: 2"
    added_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineSample:
    """Allocated bytes at one point of the step, in the order of `Timeline.categories`."""

    progress: float  # of the step's allocator events, 0 to 1
    phase: str
    allocated_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Memory through one step at the manifest's batch."""

    mode: str
    precision: str
    optimizer: str
    checkpointing: bool
    batch: int
    categories: tuple[str, ...]
    samples: tuple[TimelineSample, ...]
    peak_index: int  # of the sample with the most bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class TopModule:
    """Memory of one module at the peak of the timeline's step; "" is code outside modules."""

    path: str
    total_bytes: int
    at_peak: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Estimates at the manifest's batch, what fits, and the curves behind it."""

    estimates: tuple[MemoryEstimate, ...]
    fits: tuple[Fit, ...]
    what_if: tuple[WhatIf, ...]
    loop_options: tuple[LoopOption, ...]  # those that the manifest sets
    curves: tuple[BatchCurve, ...]
    timeline: Timeline | None
    top_modules: tuple[TopModule, ...]  # most first
    torchinfo_bytes: int | None  # the figure torchinfo prints for the same batch
    assumptions: tuple[str, ...]
