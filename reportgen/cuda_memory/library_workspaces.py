"""The memory that cuBLAS, cuDNN and the CUDA context take, from a versioned data file.

Every figure of `library.json` has a source and a range; the range becomes the band of an estimate.
The version of torch is read from its metadata, without importing it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from typing import Any

from .cudnn import FORWARD, WEIGHT_GRADIENT, Convolution, cudnn_workspace_bytes
from .gpus import Gpu, find_gpu
from .memory_trace import Request

# of Reduce.cuh: threads of a block, and terms that one thread adds at least and at most
_REDUCTION_THREADS, _FEWEST_TERMS, _MOST_TERMS = 512, 16, 256
_WARP = 32
_PARTIAL_SUMS_LIMIT = 10 << 20  # like the rest of `_copied_bytes`, after cuDNN 9.26's answers
# the figures without workspaces for pointwise convolutions were measured on torch 2.0 to 2.6
_LAST_POINTWISE_FREE_TORCH = (2, 8)
_COPIED_POSITIONS = 14 * 14  # of the largest image whose operands are copied

Level = str  # one value of a range: "low", "nominal" or "high"


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """What the size of a library's request depends on besides its numbers.

    `gpu` None is a recent data-center GPU. `torch_version` is (major, minor).
    """

    gpu: Gpu | None
    precision: str
    channels_last: bool
    torch_version: tuple[int, int]
    level: Level = "nominal"

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability; (8, 0) where it is not known."""
        return (self.gpu and self.gpu.compute_capability) or (8, 0)


@cache
def library_figures() -> dict[str, Any]:
    """The data file `library.json`, read once."""
    text = resources.files(__package__).joinpath("library.json").read_text(encoding="utf-8")
    figures: dict[str, Any] = json.loads(text)
    return figures


@cache
def torch_version(text: str = "") -> tuple[int, int]:
    """(major, minor) of a version such as "2.6"; of the installed torch where none is given."""
    found = re.match(r"(\d+)\.(\d+)", text or metadata.version("torch"))
    return (int(found[1]), int(found[2])) if found else (2, 6)


def request_bytes(request: Request, platform: Platform) -> int:
    """The bytes of a library's request; 0 if it makes none."""
    return _RULES[request.rule](request.numbers, platform)


def context_bytes(rules: frozenset[str], level: Level, gpu: Gpu | None = None) -> int:
    """The CUDA context and the loaded libraries, outside the allocator.

    `rules` are the rules of the trace's requests: they show which libraries were loaded.
    """
    hopper = gpu is not None and (gpu.compute_capability or (8, 0))[0] == 9
    figures = library_figures()["hopper_context_bytes" if hopper else "context_bytes"]
    total = int(figures["base"][level])
    if "cublas" in rules:
        total += int(figures["cublas"][level])
    if "convolution" in rules:
        total += int(figures["cudnn"][level])
    return total


def uncertainty() -> float:
    """The fraction of reserved memory that fragmentation and unmodeled kernels may add or save."""
    return float(library_figures()["tensor_uncertainty"]["fraction"])


def _cublas(_numbers: tuple[int, ...], platform: Platform) -> int:
    sizes = library_figures()["cublas_workspace_bytes"]
    major = platform.capability[0]
    # the rules of CublasHandlePool.cpp; `library.json` names the pull requests
    wide = major == 9 or (major >= 10 and platform.torch_version >= (2, 12))
    return int(sizes["hopper" if wide else "default"])


def _cublaslt_call(_numbers: tuple[int, ...], platform: Platform) -> int:
    """The scratch memory of one call, which torch allocated at each call up to 2.8."""
    if platform.torch_version >= (2, 9):
        return 0
    return int(library_figures()["cublaslt_workspace_bytes"]["default"])


def _cublaslt_kept(_numbers: tuple[int, ...], platform: Platform) -> int:
    """The scratch memory kept per handle in 2.9 and 2.10; later versions share that of cuBLAS."""
    if not (2, 9) <= platform.torch_version < (2, 11):
        return 0
    return int(library_figures()["cublaslt_workspace_bytes"]["default"])


def _convolution(numbers: tuple[int, ...], platform: Platform) -> int:
    """The workspace from cuDNN itself; without cuDNN, the operands that it would copy."""
    convolution = _convolution_of(numbers, platform)
    if convolution.depthwise:
        return 0  # torch's own kernels, and cuDNN's in NHWC, took a few MiB at most on an H200
    figures = library_figures()["convolution_workspace"]
    if convolution.pointwise:
        return _pointwise(convolution, platform)
    asked = cudnn_workspace_bytes(convolution, platform.gpu or find_gpu("A100-80GB"))
    family = "asked" if asked is not None else _kernels(convolution.element_bytes, platform)
    size = _copied_bytes(convolution) if asked is None else asked
    return int(size * float(figures[family][platform.level]))


def _pointwise(convolution: Convolution, platform: Platform) -> int:
    """A matrix product, for which newer versions copy the operands of small images.

    cuDNN's deviceless answers name twice as much for these as was measured.
    """
    figures = library_figures()["convolution_workspace"]
    if platform.torch_version <= _LAST_POINTWISE_FREE_TORCH:
        factor = float(figures["pointwise_measured"][platform.level])
        if factor == 0:
            return 0  # before cuDNN is loaded and queried in vain
        asked = cudnn_workspace_bytes(convolution, platform.gpu or find_gpu("A100-80GB"))
        return int((asked or 0) * factor)
    if platform.channels_last or math.prod(convolution.x[2:]) > _COPIED_POSITIONS:
        return 0
    x, weight, y = convolution.operand_bytes
    copied = x + y + (0 if convolution.kind == FORWARD else weight)
    return int(copied * float(figures["pointwise"][platform.level]))


def _copied_bytes(convolution: Convolution) -> int:
    """What tensor-core kernels copy into their layout, after cuDNN 9.26's answers for an A100.

    The weight's gradient is summed in parts, some sixty copies of a small weight.
    """
    x, weight, y = convolution.operand_bytes
    if convolution.kind == FORWARD:
        return x + weight if convolution.x[1] > 4 else x + y
    if convolution.kind == WEIGHT_GRADIENT:
        return x + y + min(64 * weight, _PARTIAL_SUMS_LIMIT)
    return x + weight + y


def _kernels(element_bytes: int, platform: Platform) -> str:
    """The family of convolution kernels that cuDNN runs on this GPU for this element size."""
    needed = (8, 0) if element_bytes >= 4 else (7, 0)
    if element_bytes > 4 or platform.capability < needed:
        return "cuda_core"
    return "tensor_core_nhwc" if platform.channels_last else "tensor_core_nchw"


def _convolution_of(numbers: tuple[int, ...], platform: Platform) -> Convolution:
    kind, element_bytes, bfloat16, spatial = numbers[:4]
    dims = spatial + 2
    rest = numbers[4:]
    shapes, steps = rest[: 3 * dims], rest[3 * dims :]
    return Convolution(
        kind=kind,
        x=shapes[:dims],
        weight=shapes[dims : 2 * dims],
        y=shapes[2 * dims :],
        stride=steps[:spatial],
        padding=steps[spatial : 2 * spatial],
        dilation=steps[2 * spatial :],
        element_bytes=element_bytes,
        bfloat16=bool(bfloat16),
        channels_last=platform.channels_last,
        tf32=platform.capability >= (8, 0),
    )


def _embedding_backward(numbers: tuple[int, ...], _platform: Platform) -> int:
    """`numbers`: indices, rows of the table, its width, bytes of an index.

    Above 3,072 indices torch sorts them (three arrays and the sort's scratch) and sums in fp32
    segments of ten.
    """
    indices, rows, width, index_bytes = numbers
    if indices <= 3072:
        return 0
    segments = indices // 10 + min(indices, rows)
    return 5 * index_bytes * indices + 4 * segments * width


def _reduction(numbers: tuple[int, ...], platform: Platform) -> int:
    """What blocks exchange that share the sums of one output: `setReduceConfig` of Reduce.cuh.

    `numbers`: sums, terms of each, bytes of an accumulator. The sums lie side by side in memory.
    """
    sums, terms, element_bytes = numbers
    vector = next(size for size in (4, 2, 1) if sums % size == 0)
    most = _REDUCTION_THREADS // vector
    width_limit, height_limit = (
        min(_last_power_of_two(size), most) for size in (sums // vector, terms)
    )
    width = min(width_limit, _WARP)
    height = min(height_limit, most // width)
    width = min(width_limit, most // height)
    grid = -(-(sums // vector) // width)
    per_thread = -(-terms // height)
    room = _multiprocessors(platform) * (_threads_per_multiprocessor(platform) // (width * height))
    if terms < height * _FEWEST_TERMS or per_thread < _MOST_TERMS or grid > room:
        return 0
    blocks = max(
        min(-(-room // grid), -(-per_thread // _FEWEST_TERMS)), -(-per_thread // _MOST_TERMS)
    )
    return element_bytes * sums * blocks * width * vector if blocks > 1 else 0


def _last_power_of_two(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)


def _multiprocessors(platform: Platform) -> int:
    gpu = platform.gpu or find_gpu("A100-80GB")
    return gpu.multiprocessors or 80


def _threads_per_multiprocessor(platform: Platform) -> int:
    """Resident threads of a multiprocessor, from the CUDA programming guide's table."""
    return {(7, 5): 1024, (8, 6): 1536, (8, 7): 1536, (8, 9): 1536, (12, 0): 1536}.get(
        platform.capability, 2048
    )


_RULES: dict[str, Callable[[tuple[int, ...], Platform], int]] = {
    "cublas": _cublas,
    "cublaslt_call": _cublaslt_call,
    "cublaslt_kept": _cublaslt_kept,
    "convolution": _convolution,
    "embedding_backward": _embedding_backward,
    "reduction": _reduction,
}
