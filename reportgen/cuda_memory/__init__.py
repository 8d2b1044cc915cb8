"""Estimate the peak CUDA memory of one inference or training step; no GPU required.

    from reportgen.cuda_memory import MemoryEstimator, Step, find_gpu

    step = Step(mode="train", optimizer="adam", precision="amp-bf16")
    make_inputs = lambda batch: ((torch.empty(batch, 3, 224, 224),), {})
    estimator = MemoryEstimator(model, make_inputs, step)
    estimator.estimate(32).peak_reserved_bytes
    estimator.largest_batch(find_gpu("A100-80GB")).largest_batch

Importing this package, its errors, steps and GPU catalog does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .allocator import AllocatorOptions, CachingAllocator, OutOfMemoryError, allocator_options
from .errors import CudaMemoryError, StepError, UnknownGpuError, UntraceableModelError
from .estimates import Estimate, LargestBatch, ModuleShare, TimelinePoint
from .gpus import Gpu, catalog, find_gpu, user_gpu
from .memory_trace import Allocation, MemoryTrace, Replay, Request, replay
from .step import Step

if TYPE_CHECKING:
    from .estimator import MemoryEstimator, estimate
    from .measure import Measurement, measure_step
    from .tracing.step_tracer import TraceCache

_NEED_TORCH = {
    "Measurement": "measure",
    "MemoryEstimator": "estimator",
    "TraceCache": "tracing.step_tracer",
    "estimate": "estimator",
    "measure_step": "measure",
}

__all__ = [
    "Allocation",
    "AllocatorOptions",
    "CachingAllocator",
    "CudaMemoryError",
    "Estimate",
    "Gpu",
    "LargestBatch",
    "Measurement",
    "MemoryEstimator",
    "MemoryTrace",
    "ModuleShare",
    "OutOfMemoryError",
    "Replay",
    "Request",
    "Step",
    "StepError",
    "TimelinePoint",
    "TraceCache",
    "UnknownGpuError",
    "UntraceableModelError",
    "allocator_options",
    "catalog",
    "estimate",
    "find_gpu",
    "measure_step",
    "replay",
    "user_gpu",
]


def __getattr__(name: str) -> Any:
    """Import a name that requires torch at its first use."""
    if name in _NEED_TORCH:
        return getattr(import_module(f".{_NEED_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
