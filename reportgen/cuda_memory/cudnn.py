"""Convolution workspaces from cuDNN's own heuristics, without a device.

Since 9.8 cuDNN supports queries for a described device ("deviceless"): the engine it would run
first and the workspace of that engine. The library comes with torch's CUDA wheels. Only the
backend C API is used, through ctypes. Source: cudnn_graph.h of cuDNN 9.8 and later; the order of
torch's choice from Conv_v8.cpp.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import util
from pathlib import Path
from typing import Any

from .gpus import Gpu

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = 0, 1, 2

# values of cudnn_graph.h: data types, descriptors, attribute types, numerical notes
_FLOAT, _DOUBLE, _HALF, _BFLOAT16 = 0, 1, 2, 9
_TENSOR, _CONVOLUTION, _GRAPH, _HEURISTICS, _CONFIG, _ENGINE, _DEVICE = 17, 1, 15, 4, 3, 2, 38
_INT_TYPE, _BOOL, _INT64, _FLOAT32, _MODE, _HEURISTIC_MODE, _DESCRIPTOR = 1, 2, 3, 4, 7, 8, 15
_CHARACTER, _NUMERICAL_NOTE = 24, 11
_CTYPES: dict[int, Any] = {
    _INT_TYPE: ctypes.c_int, _BOOL: ctypes.c_bool, _INT64: ctypes.c_int64,
    _FLOAT32: ctypes.c_float, _MODE: ctypes.c_int, _HEURISTIC_MODE: ctypes.c_int,
}  # fmt: skip
_TENSOR_CORE, _DOWN_CONVERT = 0, 1
# descriptor type of each operation, and the first of its six attributes
_OPERATIONS = {FORWARD: (10, 700), INPUT_GRADIENT: (12, 706), WEIGHT_GRADIENT: (11, 712)}
# engines to query: torch nearly always accepts the first, and longer lists take longer
_ENGINE_COUNTS = (1, 12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Convolution:
    """One convolution as cuDNN sees it; shapes are [batch, channels, *spatial].

    `kind` says whether the output, the input's or the weight's gradient is computed. The groups
    are the channels of `x` over those of `weight`.
    """

    kind: int
    x: tuple[int, ...]
    weight: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    element_bytes: int
    bfloat16: bool
    channels_last: bool
    tf32: bool

    @property
    def depthwise(self) -> bool:
        """Whether there is one group per input channel."""
        return self.x[1] > 1 and self.weight[1] == 1

    @property
    def pointwise(self) -> bool:
        """Whether it is a matrix product: kernel and stride 1, no padding, one group."""
        return (
            all(size == 1 for size in (*self.weight[2:], *self.stride))
            and not any(self.padding)
            and self.weight[1] == self.x[1]
        )

    @property
    def operand_bytes(self) -> tuple[int, int, int]:
        """Bytes of input, weight and output."""
        x, weight, y = (math.prod(shape) for shape in (self.x, self.weight, self.y))
        return x * self.element_bytes, weight * self.element_bytes, y * self.element_bytes


class CudnnUnavailableError(RuntimeError):
    """cuDNN does not support this convolution."""


def cudnn_workspace_bytes(convolution: Convolution, gpu: Gpu) -> int | None:
    """The workspace of the plan that torch would run; None if cuDNN cannot be queried."""
    if _library() is None or _device_json(gpu) is None:
        return None
    if convolution.bfloat16 and gpu.compute_capability and gpu.compute_capability < (8, 0):
        return None  # tensor cores compute in bf16 from Ampere on
    try:
        return _query(convolution, gpu)
    except CudnnUnavailableError:
        return None


@cache
def cudnn_version() -> str | None:
    """The version of the installed cuDNN, or None."""
    library = _library()
    return None if library is None else str(library.cudnnGetVersion())


@cache
def _library() -> Any:
    """The loaded library, with the CUDA libraries it needs, or None."""
    root = _cudnn_folder()
    if root is None or not sys.platform.startswith("linux"):
        return None
    try:
        for name in ("libcudart.so.*", "libcublasLt.so.*", "libcublas.so.*", "libnvrtc.so.*"):
            for path in sorted(root.parent.glob(f"*/lib/{name}"))[:1]:
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(root / "lib" / "libcudnn.so.9"), ctypes.RTLD_GLOBAL)
    except OSError:
        return None
    library.cudnnGetVersion.restype = ctypes.c_size_t
    # cuDNN 9.8.0: the first with CUDNN_ATTR_ENGINEHEUR_DEVICEPROP
    return library if library.cudnnGetVersion() >= 90800 else None


def _cudnn_folder() -> Path | None:
    spec = util.find_spec("nvidia")
    # nvidia is a namespace package: its wheels may lie in several site-packages
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "cudnn"
        if (folder / "lib" / "libcudnn.so.9").exists():
            return folder
    return None


@cache
def _device_json(gpu: Gpu) -> bytes | None:
    """The device in cuDNN's format: constants of its generation, figures of the GPU."""
    if gpu.compute_capability is None or gpu.compute_capability < (7, 0):
        return None  # _GENERATIONS starts at Volta
    major, minor = gpu.compute_capability
    shared, blocks, threads, cache_bytes = _GENERATIONS.get(
        gpu.compute_capability, _GENERATIONS[(major, 0) if (major, 0) in _GENERATIONS else (8, 0)]
    )
    described = {
        "deviceName": gpu.name, "deviceVer": 100 * major + 10 * minor, "driverVer": 13020,
        "multiProcessorCount": gpu.multiprocessors or 80, "totalGlobalMem": gpu.usable_bytes,
        "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
        "regsPerBlock": 65536, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
        "maxSharedMemoryPerBlockOptin": shared, "reservedSharedMemoryPerBlock": 1024,
        "maxRegistersPerSM": 65536, "maxCtasPerSM": blocks, "maxThreadsPerBlock": 1024,
        "maxThreadsPerSM": threads, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
        "smClockRateKHz": 1500000, "memClockRateKHz": 1500000, "l2CacheSize": cache_bytes,
        "cudaDeviceId": 0,
    }  # fmt: skip
    return json.dumps(described).encode() + b"\0"


# by compute capability: shared memory, blocks and threads of a multiprocessor, level-2 cache
# (CUDA C++ programming guide, table of compute capabilities)
_GENERATIONS: dict[tuple[int, int], tuple[int, int, int, int]] = {
    (7, 0): (98304, 32, 2048, 6 << 20),
    (7, 5): (65536, 16, 1024, 4 << 20),
    (8, 0): (166912, 32, 2048, 40 << 20),
    (8, 6): (101376, 16, 1536, 6 << 20),
    (8, 7): (166912, 16, 1536, 4 << 20),
    (8, 9): (101376, 24, 1536, 64 << 20),
    (9, 0): (232448, 32, 2048, 50 << 20),
    (10, 0): (232448, 32, 2048, 126 << 20),
    (12, 0): (101376, 24, 1536, 96 << 20),
}


class _Descriptor:
    """One backend descriptor, destroyed with its last reference."""

    def __init__(self, kind: int) -> None:
        self.library = _library()
        self.pointer = ctypes.c_void_p()
        _check(self.library.cudnnBackendCreateDescriptor(kind, ctypes.byref(self.pointer)))

    def set(self, attribute: int, kind: int, values: Sequence[float]) -> None:
        self._set(attribute, kind, len(values), _array_type(kind, len(values))(*values))

    def refer(self, attribute: int, other: _Descriptor) -> None:
        self._set(attribute, _DESCRIPTOR, 1, ctypes.byref(other.pointer))

    def _set(self, attribute: int, kind: int, count: int, values: Any) -> None:
        set_attribute = self.library.cudnnBackendSetAttribute
        _check(set_attribute(self.pointer, attribute, kind, ctypes.c_int64(count), values))

    def get(self, attribute: int, kind: int, array: Any) -> int:
        found = ctypes.c_int64()
        room = ctypes.c_int64(len(array))
        get = self.library.cudnnBackendGetAttribute
        _check(get(self.pointer, attribute, kind, room, ctypes.byref(found), array))
        return min(found.value, len(array))

    def finalized(self) -> _Descriptor:
        _check(self.library.cudnnBackendFinalize(self.pointer))
        return self

    def __del__(self) -> None:
        self.library.cudnnBackendDestroyDescriptor(self.pointer)


@cache
def _array_type(kind: int, length: int) -> Any:
    return _CTYPES[kind] * length


def _check(status: int) -> None:
    if status:
        raise CudnnUnavailableError(f"cuDNN status {status}")


@cache
def _device(gpu: Gpu) -> _Descriptor:
    text = _device_json(gpu)
    assert text is not None
    device = _Descriptor(_DEVICE)
    buffer = ctypes.create_string_buffer(text)
    set_attribute = device.library.cudnnBackendSetAttribute
    # CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION
    _check(set_attribute(device.pointer, 2702, _CHARACTER, ctypes.c_int64(len(text)), buffer))
    return device.finalized()


@cache
def _query(convolution: Convolution, gpu: Gpu) -> int:
    """The workspace of the first of cuDNN's ranked engines that torch's filters accept."""
    heuristics = _Descriptor(_HEURISTICS)
    graph = _graph(convolution)
    heuristics.refer(201, graph)  # CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH
    heuristics.set(200, _HEURISTIC_MODE, [0])  # CUDNN_HEUR_MODE_INSTANT, as in torch
    heuristics.refer(204, _device(gpu))  # CUDNN_ATTR_ENGINEHEUR_DEVICEPROP
    heuristics.finalized()
    for count in _ENGINE_COUNTS:
        configs = [_Descriptor(_CONFIG) for _ in range(count)]
        array = (ctypes.c_void_p * count)(*[config.pointer.value for config in configs])
        # CUDNN_ATTR_ENGINEHEUR_RESULTS fills these descriptors, best first
        for config in configs[: heuristics.get(202, _DESCRIPTOR, array)]:
            if _is_allowed(config, convolution):
                size = (ctypes.c_int64 * 1)()
                config.get(303, _INT64, size)  # CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE
                return int(size[0])
    raise CudnnUnavailableError("no engine")


def _is_allowed(config: _Descriptor, convolution: Convolution) -> bool:
    """Whether torch accepts the engine; it skips those that round fp32 inputs too much."""
    if convolution.element_bytes < 4:
        return True
    engine = _Descriptor(_ENGINE)
    config.get(300, _DESCRIPTOR, (ctypes.c_void_p * 1)(engine.pointer.value))  # its engine
    notes = (ctypes.c_int * 16)()  # cuDNN 9 has ten kinds of notes
    found = set(notes[: engine.get(1303, _NUMERICAL_NOTE, notes)])
    return _DOWN_CONVERT not in found and (convolution.tf32 or _TENSOR_CORE not in found)


def _graph(convolution: Convolution) -> _Descriptor:
    kind, first = _OPERATIONS[convolution.kind]
    alpha, beta, described, w, x, y = range(first, first + 6)
    operation = _Descriptor(kind)
    operation.set(alpha, _FLOAT32, [1.0])
    operation.set(beta, _FLOAT32, [0.0])
    operation.refer(described, _layout(convolution))
    operation.refer(x, _tensor(1, convolution.x, convolution))
    operation.refer(y, _tensor(2, convolution.y, convolution))
    operation.refer(w, _tensor(3, convolution.weight, convolution))
    operation.finalized()
    graph = _Descriptor(_GRAPH)
    graph.refer(801, operation)  # CUDNN_ATTR_OPERATIONGRAPH_OPS
    return graph.finalized()


def _layout(convolution: Convolution) -> _Descriptor:
    # half-precision convolutions accumulate in fp32, as torch's do
    dtype = _DOUBLE if convolution.element_bytes == 8 else _FLOAT
    return _layout_of(dtype, convolution.stride, convolution.padding, convolution.dilation)


@cache
def _layout_of(
    dtype: int, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> _Descriptor:
    layout = _Descriptor(_CONVOLUTION)
    layout.set(100, _INT_TYPE, [dtype])
    layout.set(101, _MODE, [1])  # CUDNN_CROSS_CORRELATION, what torch calls a convolution
    layout.set(106, _INT64, [len(stride)])
    layout.set(102, _INT64, dilation)
    layout.set(103, _INT64, stride)
    layout.set(104, _INT64, padding)  # after
    layout.set(105, _INT64, padding)  # before
    return layout.finalized()


def _tensor(identity: int, shape: tuple[int, ...], convolution: Convolution) -> _Descriptor:
    half = _BFLOAT16 if convolution.bfloat16 else _HALF
    dtypes = {8: _DOUBLE, 4: _FLOAT, 2: half}
    return _tensor_of(identity, shape, dtypes[convolution.element_bytes], convolution.channels_last)


# a search for the largest batch asks for the same weights at each batch
@lru_cache(maxsize=4096)
def _tensor_of(
    identity: int, shape: tuple[int, ...], dtype: int, channels_last: bool
) -> _Descriptor:
    order = list(range(len(shape) - 1, -1, -1))
    if channels_last:
        order = [1, *range(len(shape) - 1, 1, -1), 0]
    strides, step = [0] * len(shape), 1
    for axis in order:
        strides[axis] = step
        step *= shape[axis]
    tensor = _Descriptor(_TENSOR)
    tensor.set(901, _INT_TYPE, [dtype])
    tensor.set(902, _INT64, shape)
    tensor.set(903, _INT64, strides)
    tensor.set(906, _INT64, [identity])
    tensor.set(900, _INT64, [16])  # alignment in bytes; blocks of the allocator have 512
    return tensor.finalized()
