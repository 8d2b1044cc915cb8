"""The roofline model: a lower bound for the time of each operator on a GPU.

An operator takes the longer of FLOPs ÷ peak rate of its data type and bytes ÷ bandwidth; a pass
takes the sum. Nothing is fused, as in eager PyTorch; by torch's defaults convolutions of float32
run in TF32 where the GPU can, and matrix products do not. Rates are the vendor's for dense
arithmetic, so real kernels are slower; tensors that stay in a cache can be faster.
`benchmarks/gpu_truth.py` compares the bound with measured times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import fsum

from reportgen.cuda_memory.errors import UnknownGpuError
from reportgen.cuda_memory.gpus import Gpu, find_gpu
from reportgen.manifest import Target
from reportgen.sections.layers.result import LayerTime, PassTime, Roofline
from reportgen.sections.layers.tracing.op_counter import OpWork

LAUNCH_SECONDS = 5e-6  # launch overhead of one kernel in eager PyTorch
_DIGITS = 9
_SLOWEST = 10  # layers listed
_RATES = {
    "float32": "fp32",
    "tf32": "tf32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "complex64": "fp32",
    "complex32": "fp16",
    "int8": "int8",
    "uint8": "int8",
    "qint8": "int8",
    "quint8": "int8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}
_REAL_PER_COMPLEX = 4  # a complex multiply-add is four real ones


class _UnknownRateError(Exception):
    """No data sheet gives a rate or the bandwidth of the GPU."""


def rooflines(
    targets: Iterable[Target], forward: Counter[OpWork], both: Counter[OpWork] | None, batch: int
) -> tuple[Roofline, ...]:
    """One estimate per target for `batch` samples; `both` is forward and backward together."""
    return tuple(_roofline(target, forward, both, batch) for target in targets)


def _roofline(
    target: Target, forward: Counter[OpWork], both: Counter[OpWork] | None, batch: int
) -> Roofline:
    try:
        gpu = find_gpu(target.name)
    except UnknownGpuError:
        return Roofline(gpu=target.name, reason="unknown rates: the GPU is not in the catalog")
    try:
        times = _times(gpu, forward)
        layers = _working_layers(times)
        return Roofline(
            gpu=target.name,
            forward=_pass_time(times, batch),
            forward_backward=None if both is None else _pass_time(_times(gpu, both), batch),
            slowest=tuple(layers[:_SLOWEST]),
            memory_bound_layers=sum(layer.bound == "memory" for layer in layers),
            working_layers=len(layers),
        )
    except _UnknownRateError as unknown:
        return Roofline(gpu=target.name, reason=str(unknown))


class _Time:
    """Equal operator calls on one GPU: their number, the time of each, and what limits it."""

    __slots__ = ("memory_bound", "path", "seconds", "times")

    def __init__(self, gpu: Gpu, work: OpWork, times: int) -> None:
        if gpu.bandwidth_bytes_per_second is None:
            raise _UnknownRateError(f"the memory bandwidth of {gpu.name} is unknown")
        # without FLOPs no rate is needed: integer and float64 copies have a time on any GPU
        computing = work.flops / _rate(gpu, work.dtype) if work.flops else 0.0
        moving = work.bytes / gpu.bandwidth_bytes_per_second
        self.path = work.path
        self.times = times
        self.seconds = max(computing, moving)
        self.memory_bound = moving >= computing


def _rate(gpu: Gpu, dtype: str) -> float:
    """Real FLOPs a second that multiply-adds of `dtype` reach at best; a complex one is four."""
    kind = _RATES.get(dtype)
    unit = "ops" if kind == "int8" else "flops"  # data sheets give TOPS for integers
    rate = getattr(gpu, f"{kind}_{unit}_per_second") if kind else None
    if rate is None and kind == "tf32":
        rate = gpu.fp32_flops_per_second
    if rate is None:
        raise _UnknownRateError(f"the {dtype} rate of {gpu.name} is unknown")
    return float(rate) / (_REAL_PER_COMPLEX if dtype.startswith("complex") else 1)


def _times(gpu: Gpu, work: Counter[OpWork]) -> list[_Time]:
    return [_Time(gpu, each, times) for each, times in work.items()]


def _pass_time(times: list[_Time], batch: int) -> PassTime | None:
    seconds = fsum(each.seconds * each.times for each in times)
    if not seconds:
        return None
    memory_bound = fsum(each.seconds * each.times for each in times if each.memory_bound)
    return PassTime(
        seconds=seconds,
        samples_per_second=batch / seconds,
        memory_bound_share=memory_bound / seconds,
        seconds_with_launch_overhead=fsum(
            max(each.seconds, LAUNCH_SECONDS) * each.times for each in times
        ),
    )


def _working_layers(times: list[_Time]) -> list[LayerTime]:
    """Every layer whose own operators take time, the slowest first."""
    spent: dict[str, list[_Time]] = {}
    for each in times:
        spent.setdefault(each.path, []).append(each)
    whole = fsum(each.seconds * each.times for each in times)
    layers = [_layer_time(path, mine, whole) for path, mine in spent.items()]
    working = [layer for layer in layers if layer.seconds]
    return sorted(working, key=lambda layer: (-layer.seconds, _by_number(layer.path)))


def _by_number(path: str) -> list[str]:
    """A key by which `features.2` comes before `features.12`."""
    return [part.zfill(_DIGITS) if part.isdigit() else part for part in path.split(".")]


def _layer_time(path: str, mine: list[_Time], whole: float) -> LayerTime:
    seconds = fsum(each.seconds * each.times for each in mine)
    memory_bound = fsum(each.seconds * each.times for each in mine if each.memory_bound)
    return LayerTime(
        path=path,
        seconds=seconds,
        share=seconds / whole if whole else 0.0,
        bound="memory" if 2 * memory_bound >= seconds else "compute",
    )
