"""What a user of the estimator can fix, each with a hint."""

from __future__ import annotations


class CudaMemoryError(ValueError):
    """Base of everything here that the caller can fix; `hint` says how."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnknownGpuError(CudaMemoryError):
    """No card of that name is in the catalog."""


class StepError(CudaMemoryError):
    """The step asked for does not exist: mode, precision, optimizer, batch, loss."""


class UntraceableModelError(CudaMemoryError):
    """The model cannot be traced with these inputs, and neither can a real run on the CPU."""
