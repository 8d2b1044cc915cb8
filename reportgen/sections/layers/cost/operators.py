"""Properties of operators and of the tensors that they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import (
    is_traceable_wrapper_subclass,
    is_traceable_wrapper_subclass_type,
)

from reportgen.tracing.tensors import dtype_name, tensors_in

_aten = torch.ops.aten
# argmax and max select one expert, as a router with k = 1 may do instead of a top-k
SELECTORS = {_aten.topk, _aten.argmax, _aten.max}
METADATA_QUERIES = {  # read sizes and layouts, no elements
    _aten.is_same_size,
    _aten._has_same_storage_numel,
    _aten.is_coalesced,
    _aten._nnz,
    _aten._nested_tensor_size,
}
SHAPE_QUERIES = {  # dispatched for wrappers that define their own sizes, such as jagged tensors
    _aten.sym_is_contiguous.default,
    _aten.is_contiguous.default,
    _aten.is_contiguous.memory_format,
    _aten.is_strides_like_format.default,
    _aten.is_non_overlapping_and_dense.default,
    _aten.size.default,
    _aten.sym_size.default,
    _aten.stride.default,
    _aten.sym_stride.default,
    _aten.storage_offset.default,
    _aten.sym_storage_offset.default,
    _aten.numel.default,
    _aten.sym_numel.default,
    _aten.dim.default,
    torch.ops.prim.layout.default,
}


def is_view_or_query(func: Any) -> bool:
    """Whether an operator only returns a view or metadata."""
    return getattr(func, "is_view", False) or getattr(func, "namespace", "") == "prim"


def is_nested(tensor: Tensor) -> bool:
    """Whether `tensor` is a strided nested tensor, which has no shape; jagged ones unwrap."""
    return tensor.is_nested and not is_traceable_wrapper_subclass(tensor)


def is_decomposable(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether `func.decompose` may be called; it fails on strided nested tensors."""
    return func is not torch.ops.prim.device.default and not any(map(is_nested, tensors_in(args)))


def is_wrapper(kind: type) -> bool:
    """Whether tensors of this class wrap others and unwrap by themselves: nested, quantized.

    Distributed tensors are excluded: on their first run, their operators run others to infer
    shapes, which are not operators of the model.
    """
    distributed = kind.__module__.startswith("torch.distributed.")
    wraps = is_traceable_wrapper_subclass_type(kind) and not issubclass(kind, FakeTensor)
    return wraps and not distributed


def dtype_of(read: list[Tensor], written: list[Tensor]) -> str:
    """The dtype in which an operator computes: that of its widest floating-point operand."""
    numbers = [t for t in [*read, *written] if t.is_floating_point() or t.is_complex()]
    tensors = numbers or read or written
    if not tensors:
        return ""
    return dtype_name(max(tensors, key=lambda tensor: tensor.element_size()))


def name_of(func: Any) -> str:
    """The name of an operator without its overload: `aten.linalg_matrix_exp`."""
    packet = getattr(func, "_overloadpacket", func)
    return str(packet).removeprefix("torch.ops.")
