"""Run a step on the CUDA device and read torch's counters, to compare with an estimate."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from .errors import CudaMemoryError
from .step import Step, check_batch
from .tracing.checkpointing import enable_checkpointing
from .tracing.fake_copy import LOW_PRECISION, MakeInputs, map_tensors
from .tracing.train_loop import Batch, run_inference, run_training


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Measured peaks; `context_bytes` is the device memory besides reserved memory."""

    gpu: str
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    context_bytes: int


class _NullObserver:
    def mark(self, phase: str) -> None:
        pass

    def relabel(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        pass

    def relabel_gradients(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        pass


def measure_step(
    model: nn.Module, make_inputs: MakeInputs, *, batch: int, step: Step
) -> Measurement:
    """Run the step on the current CUDA device, on a copy of the model, and read the peaks.

    Measure in a fresh process: cuBLAS keeps its workspaces, and the context grows with every kernel
    that is loaded. Raises `CudaMemoryError` without a device, or if memory runs out.
    """
    check_batch(batch)
    if not torch.cuda.is_available():
        raise CudaMemoryError("there is no CUDA device to measure on", "omit --measure")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        _run(model, make_inputs, batch, step)
    except torch.OutOfMemoryError as err:
        raise CudaMemoryError(f"batch {batch} ran out of memory", "use a smaller batch") from err
    torch.cuda.synchronize()
    reserved = torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    # mem_get_info is about the whole device, so the memory of other processes counts too
    context = total - free - torch.cuda.memory_reserved()
    return Measurement(
        gpu=torch.cuda.get_device_name(),
        peak_allocated_bytes=torch.cuda.max_memory_allocated(),
        peak_reserved_bytes=reserved,
        peak_device_bytes=reserved + context,
        context_bytes=context,
    )


def _run(model: nn.Module, make_inputs: MakeInputs, batch: int, step: Step) -> None:
    args, kwargs = make_inputs(batch)
    low = LOW_PRECISION.get(step.precision)
    copied = _on_device(model, low)
    copied.train(step.trains)
    if step.channels_last:
        copied = copied.to(memory_format=torch.channels_last)
    if step.checkpoints:
        enable_checkpointing(copied, step)

    def to_device(tensor: torch.Tensor) -> torch.Tensor:
        dtype = low if low is not None and tensor.is_floating_point() else tensor.dtype
        # cast on the CPU, or the device holds both for a moment
        return tensor.to("cpu", dtype).to("cuda")

    def next_batch() -> Batch:  # copies each time, as a data loader does
        return map_tensors(to_device, args), map_tensors(to_device, kwargs)

    previous = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.benchmark = step.cudnn_benchmark
        torch.backends.cuda.matmul.allow_tf32 = step.precision == "tf32"
        run = run_training if step.trains else run_inference
        run(_NullObserver(), copied, next_batch, step, "cuda")
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32 = previous


def _on_device(model: nn.Module, low: torch.dtype | None) -> nn.Module:
    made = copy.deepcopy(model)
    if any(tensor.is_meta for tensor in (*made.parameters(), *nn.Module.buffers(made))):
        made = made.to_empty(device="cpu")
        # zeros, because uninitialized memory may hold NaN or indices out of range
        for tensor in (*made.parameters(), *nn.Module.buffers(made)):
            tensor.data.zero_()
    if low is not None:
        made = made.to(low)
    return made.to("cuda")
