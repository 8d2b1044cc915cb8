"""Bytes that an operator reads and writes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reportgen.tracing.tensors import tensor_bytes

_aten = torch.ops.aten
_ALLOCATES = {  # neither reads nor writes
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.new_empty,
    _aten.new_empty_strided,
    _aten._unsafe_view,
    _aten._reshape_alias,
    _aten.lift_fresh,
    _aten.resize_,
}
_ONLY_WRITES = {  # does not read the first tensor
    _aten.bernoulli_,
    _aten.exponential_,
    _aten.fill_,
    _aten.full_like,
    _aten.new_full,
    _aten.new_ones,
    _aten.new_zeros,
    _aten.normal_,
    _aten.ones_like,
    _aten.rand_like,
    _aten.randn_like,
    _aten.uniform_,
    _aten.zero_,
    _aten.zeros_like,
}
_LOOKS_UP = {  # reads only the selected elements of the first tensor
    _aten.embedding,
    _aten.gather,
    _aten.index,
    _aten._unsafe_index,
    _aten.index_select,
    _aten.take,
}
_SCATTERS = {  # touches only the written elements of the first tensor
    _aten.index_put_,
    _aten._index_put_impl_,
    _aten.index_copy_,
    _aten.index_add_,
    _aten.scatter_,
    _aten.scatter_add_,
}


def moved_bytes(func: Any, read: list[Tensor], written: list[Tensor]) -> int:
    """Bytes that `func` reads and writes if every tensor passes through memory once.

    Views move nothing. A look-up reads only the selected rows of its table. An expanded
    dimension counts once.
    """
    packet = getattr(func, "_overloadpacket", func)
    if packet in _ALLOCATES or getattr(func, "is_view", False):
        return 0
    if packet in _SCATTERS:
        return 2 * sum(map(_stored_bytes, read[1:]))  # read the source, write the elements
    sizes = [_stored_bytes(tensor) for tensor in read]
    if packet in _ONLY_WRITES and sizes:
        sizes[0] = 0
    out = sum(map(_stored_bytes, written))
    if packet in _LOOKS_UP and sizes:
        sizes[0] = min(sizes[0], out)
    elif packet is _aten._embedding_bag and sizes:  # its result is smaller than the rows it reads
        sizes[0] = min(sizes[0], read[1].numel() * read[0].shape[-1] * read[0].element_size())
    return sum(sizes) + out


def _stored_bytes(tensor: Tensor) -> int:
    """`tensor_bytes`, but an expanded dimension counts once."""
    if tensor.layout != torch.strided or tensor.is_nested or 0 not in tensor.stride():
        return tensor_bytes(tensor)
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    count = math.prod(int(size) for size, stride in sizes if stride or not size)
    return count * tensor.element_size()
