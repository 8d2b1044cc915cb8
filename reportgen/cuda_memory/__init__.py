"""How much CUDA memory a model takes, from a machine without a GPU.

    from reportgen.cuda_memory import Step, estimate, find_gpu, trace_step

    step = Step(mode="train", optimizer="adam", precision="amp-bf16")
    plan = trace_step(model, lambda batch: ((torch.empty(batch, 3, 224, 224),), {}), step)
    plan.estimate(32).peak_reserved_bytes
    plan.largest_batch(find_gpu("A100-80GB")).largest_batch

Importing this package, its errors, steps and catalog of cards does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .alloc_conf import allocator_options
from .allocator import AllocatorOptions, CachingAllocator, OutOfMemoryError
from .errors import CudaMemoryError, ModelRefusedError, StepError, UnknownGpuError
from .estimates import Estimate, Fit, ModuleShare, TimelinePoint
from .events import Allocation, Request, Trace
from .gpus import Gpu, catalog, find_gpu, user_gpu
from .replay import Replay, replay
from .step import Step

if TYPE_CHECKING:
    from .data_dependent import RealPasses
    from .estimator import Plan, estimate, trace_step
    from .measure import Measurement, measure_step

_NEED_TORCH = {
    "Measurement": "measure",
    "Plan": "estimator",
    "RealPasses": "data_dependent",
    "estimate": "estimator",
    "measure_step": "measure",
    "trace_step": "estimator",
}

__all__ = [
    "Allocation",
    "AllocatorOptions",
    "CachingAllocator",
    "CudaMemoryError",
    "Estimate",
    "Fit",
    "Gpu",
    "Measurement",
    "ModelRefusedError",
    "ModuleShare",
    "OutOfMemoryError",
    "Plan",
    "RealPasses",
    "Replay",
    "Request",
    "Step",
    "StepError",
    "TimelinePoint",
    "Trace",
    "UnknownGpuError",
    "allocator_options",
    "catalog",
    "estimate",
    "find_gpu",
    "measure_step",
    "replay",
    "trace_step",
    "user_gpu",
]


def __getattr__(name: str) -> Any:
    """Bring in what needs torch when it is first asked for."""
    if name in _NEED_TORCH:
        return getattr(import_module(f".{_NEED_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
