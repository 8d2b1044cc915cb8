"""What an operator is, apart from what it costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import (
    is_traceable_wrapper_subclass,
    is_traceable_wrapper_subclass_type,
)

from reportgen.sections.layers.cost.memory_traffic import tensors_in

_aten = torch.ops.aten
PICKS = {_aten.topk, _aten.argmax, _aten.max}
ASKS = {  # about sizes and layouts, and reads no numbers
    _aten.is_same_size,
    _aten._has_same_storage_numel,
    _aten.is_coalesced,
    _aten._nnz,
    _aten._nested_tensor_size,
}
ABOUT_SHAPES = {
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


def moves_nothing(func: Any) -> bool:
    """Whether an operator only makes a view."""
    return getattr(func, "is_view", False) or getattr(func, "namespace", "") == "prim"


def is_nested(tensor: Tensor) -> bool:
    """Whether `tensor` is a strided nested tensor, which has no shape; jagged ones unwrap."""
    return tensor.is_nested and not is_traceable_wrapper_subclass(tensor)


def can_be_taken_apart(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether torch may be asked for the operators that `func` is made of."""
    return func is not torch.ops.prim.device.default and not any(map(is_nested, tensors_in(args)))


def is_wrapper(kind: type) -> bool:
    """Whether tensors of this class wrap others and unwrap on their own: nested, quantized ones.

    Distributed ones count as a whole: what each of their operators runs to learn its own shape,
    the first time only, is none of the model's.
    """
    distributed = kind.__module__.startswith("torch.distributed.")
    wraps = is_traceable_wrapper_subclass_type(kind) and not issubclass(kind, FakeTensor)
    return wraps and not distributed


def dtype_of(read: list[Tensor], written: list[Tensor]) -> str:
    """What an operator computes in: the type of its widest real or complex operand."""
    numbers = [t for t in [*read, *written] if t.is_floating_point() or t.is_complex()]
    tensors = numbers or read or written
    if not tensors:
        return ""
    widest = max(tensors, key=lambda tensor: tensor.element_size())
    return str(widest.dtype).removeprefix("torch.")


def name_of(func: Any) -> str:
    """`aten.linalg_matrix_exp`, without the overload that nobody writes."""
    packet = getattr(func, "_overloadpacket", func)
    return str(packet).removeprefix("torch.ops.")


def storage_of(tensor: Tensor) -> int:
    """A number that all views of one tensor share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without one storage
        return id(tensor)
