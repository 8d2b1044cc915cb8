"""The cost of products with nested tensors of the strided kind, which have no shape to read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_aten = torch.ops.aten
_PRODUCTS = {_aten.matmul, _aten.bmm, _aten.mm}
_ATTENTION = {
    _aten.scaled_dot_product_attention,
    _aten._scaled_dot_product_attention_math,
    _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention,
}


def is_nested(tensor: Tensor) -> bool:
    """Whether torch keeps the sizes of `tensor` to itself; jagged ones unwrap on their own."""
    return tensor.is_nested and not is_traceable_wrapper_subclass(tensor)


def nested_flops(packet: Any, args: tuple[Any, ...]) -> int | None:
    """FLOPs of an operator on nested tensors, item by item; None where it has no formula."""
    if packet is _aten.linear:
        return 2 * int(args[0].numel()) * int(args[1].shape[0])
    if packet in _PRODUCTS:
        return sum(2 * a.numel() * int(b.shape[-1]) for a, b in _items(args[:2]))
    if packet in _ATTENTION:
        return sum(
            2 * q.numel() // int(q.shape[-1]) * int(k.shape[-2]) * int(q.shape[-1] + v.shape[-1])
            for q, k, v in _items(args[:3])
        )
    return None


def _items(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.unbind() for tensor in tensors), strict=True))
