"""Errors that the caller can fix, each with a hint."""

from __future__ import annotations


class CudaMemoryError(ValueError):
    """Base class of the errors of this package; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnknownGpuError(CudaMemoryError):
    """No GPU of that name is in the catalog, or its description is not valid."""


class StepError(CudaMemoryError):
    """The step is not valid: mode, precision, optimizer, batch or loss."""


class UntraceableModelError(CudaMemoryError):
    """The model raises with these inputs, on fake tensors and on the CPU."""
