"""Quick answers for operators whose fake kernels are slow: only shapes and types matter here.

A fake batch norm runs through a Python decomposition and an in-place foreach operator through
hundreds of tensors, to no effect on memory. Values are never computed in a fake run anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor
Shortcut = Callable[[tuple[Any, ...]], Any]

PASS = object()
"""Returned by a shortcut that does not apply; the operator then runs."""


def _batch_norm(args: tuple[Any, ...]) -> Any:
    """Output, saved mean and inverse deviation, these empty outside training and fp32 in it."""
    x, training = args[0], args[5]
    channels = x.shape[1] if training else 0
    dtype = torch.float32 if x.element_size() < 4 else x.dtype
    saved = tuple(torch.empty(channels, dtype=dtype) for _ in range(2))
    return (_alike(x), *saved)


def _batch_norm_backward(args: tuple[Any, ...]) -> Any:
    x, weight, mask = args[1], args[2], args[9]
    parameter = weight if weight is not None else x
    gradients = [
        torch.empty(x.shape[1], dtype=parameter.dtype) if wanted else None for wanted in mask[1:]
    ]
    return (_alike(x) if mask[0] else None, *gradients)


def _like_second(args: tuple[Any, ...]) -> Any:
    return _alike(args[1]) if args[0].dtype is args[1].dtype else PASS


def _in_place(args: tuple[Any, ...]) -> Any:
    """The operand itself; scalars keep their values, because optimizers read their steps."""
    return args[0] if args[0].dim() else PASS


def _in_place_list(args: tuple[Any, ...]) -> Any:
    tensors = args[0]
    return None if tensors and tensors[0].dim() else PASS


def _new_list(args: tuple[Any, ...]) -> Any:
    tensors = args[0]
    return [_alike(tensor) for tensor in tensors] if tensors and tensors[0].dim() else PASS


def _zeros(args: tuple[Any, ...]) -> Any:
    return _alike(args[0]) if args[0].dim() else PASS


def _alike(tensor: Tensor) -> Tensor:
    """A new tensor of the same shape, type and layout, dense."""
    if tensor.is_contiguous():
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.empty_like(tensor)


_IN_PLACE = "relu_ hardtanh_ silu_ hardswish_ add_.Tensor mul_.Tensor copy_ zero_ fill_.Scalar"
_IN_PLACE_LISTS = (
    "_foreach_add_.Tensor _foreach_add_.List _foreach_add_.Scalar _foreach_mul_.Scalar "
    "_foreach_mul_.List _foreach_mul_.Tensor _foreach_lerp_.Scalar _foreach_lerp_.List "
    "_foreach_addcmul_.Scalar _foreach_addcdiv_.Scalar _foreach_addcdiv_.ScalarList "
    "_foreach_addcmul_.ScalarList _foreach_div_.ScalarList _foreach_div_.List "
    "_foreach_div_.Scalar _foreach_sqrt_ _foreach_neg_ _foreach_zero_ _foreach_sub_.Scalar "
    "_foreach_reciprocal_ _foreach_copy_ _foreach_maximum_.List"
)

_NEW_LISTS = "_foreach_sqrt _foreach_add.List _foreach_mul.Scalar _foreach_neg _foreach_sub.List"


def _overloads(names: str) -> list[Any]:
    """The operator overloads of these names that this torch has."""
    found = []
    for name in names.split():
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(aten, packet, None), overload or "default", None)
        if operator is not None:
            found.append(operator)
    return found


FAKE_SHORTCUTS: dict[Any, Shortcut] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.threshold_backward.default: _like_second,
    aten.zeros_like.default: _zeros,
    **dict.fromkeys(_overloads(_NEW_LISTS), _new_list),
    **dict.fromkeys(_overloads(_IN_PLACE), _in_place),
    **dict.fromkeys(_overloads(_IN_PLACE_LISTS), _in_place_list),
}
