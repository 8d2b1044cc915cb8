"""Memory: what a step takes on a CUDA card, and the largest batch that fits."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The largest batch of one step on one card; 0 where not even one sample fits."""

    gpu: str
    usable_bytes: int
    mode: str
    precision: str
    optimizer: str
    checkpointing: bool
    largest_batch: int
    first_batch_that_fails: int | None
    limited_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Peak device memory against batch size of one step."""

    mode: str
    precision: str
    checkpointing: bool
    batches: tuple[int, ...]
    peak_device_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Estimates at the manifest's batch, what fits, and the curves behind it."""

    estimates: tuple[MemoryEstimate, ...]
    fits: tuple[Fit, ...]
    curves: tuple[Curve, ...]
    torchinfo_bytes: int | None  # the figure torchinfo prints for the same batch
    assumptions: tuple[str, ...]
