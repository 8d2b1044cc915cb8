"""ONNX: export, check, parity with PyTorch, latency."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output of the graph; a symbolic dimension is its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """One output compared. An error is None where it is not finite; `note` then says why."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_absolute_error: float | None
    max_relative_error: float | None
    absolute_tolerance: float
    relative_tolerance: float
    passed: bool
    vacuous: bool  # the reference output does not vary, so agreement proves nothing
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityCase:
    """onnxruntime against PyTorch on one batch of one seed."""

    batch: int
    seed: int
    perturbed: bool  # parameters were perturbed (seeded), since the output was constant
    max_absolute_error: float | None
    max_relative_error: float | None
    passed: bool
    outputs: tuple[OutputParity, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """All cases together."""

    passed: bool
    vacuous: bool
    cases: tuple[ParityCase, ...]
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Measured by a clock on this machine, milliseconds; left out by `--no-timings`."""

    batch: int
    runs: int
    threads: int
    median: float
    p10: float
    p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxExport:
    """The exported file and how far it can be trusted."""

    file: str | None  # "model.onnx", None when the manifest asks not to keep it
    bytes: int
    opset: int
    ir_version: int
    producer: str
    nodes: int
    operators: dict[str, int]
    initializers: int
    initializer_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dynamic: tuple[str, ...]  # the dimensions that are dynamic in the file
    strategy: str  # how the export succeeded, in words
    parity: Parity
    latency_ms: Latency | None
    warnings: tuple[str, ...]
