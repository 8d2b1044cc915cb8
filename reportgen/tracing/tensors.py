"""The tensors that an operator is given and returns: their storage, bytes and shapes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in the arguments or results of an operator, including those in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that store `tensor`: those of a wrapper or a sparse layout, or itself."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()  # wrappers nest: `parts_of` recurs below
        held = [getattr(tensor, name) for name in names]  # DTensor also lists its device mesh
        return [part for item in held if isinstance(item, Tensor) for part in parts_of(item)]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes that `tensor` takes, for any layout or wrapper class."""
    return sum(int(part.numel()) * part.element_size() for part in parts_of(tensor))


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape of `tensor`; -1 is a ragged dimension."""
    if not tensor.is_nested:
        return tuple(map(int, tensor.shape))
    return tuple(_size(tensor, dim) for dim in range(tensor.dim()))


def _size(tensor: Tensor, dim: int) -> int:
    from torch.fx.experimental.symbolic_shapes import is_nested_int

    try:
        size = tensor.size(dim)
    except RuntimeError:  # a strided nested tensor has no single size there
        return -1
    return -1 if isinstance(size, torch.SymInt) and is_nested_int(size) else int(size)


def dtype_name(tensor: Tensor) -> str:
    """`float32`, `qint8`."""
    return str(tensor.dtype).removeprefix("torch.")


def storage_of(tensor: Tensor) -> int:
    """An identifier that all views of one tensor share, while any of them is alive."""
    try:
        # not `data_ptr`, which is 0 for all fake and meta tensors
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have no single storage
        return id(tensor)


def version_of(tensor: Tensor) -> int:
    """The version counter; 0 for an inference tensor, which has none."""
    return 0 if tensor.is_inference() else tensor._version


def fingerprint(tensor: Tensor) -> tuple[int, ...]:
    """Address, version counter and a sum over the bits: changes without a copy of the values."""
    plain = tensor.detach()
    # wrappers and fake tensors have no bits of their own, sparse tensors no single address
    if type(plain) is not Tensor or plain.layout != torch.strided or plain.is_meta:
        return 0, version_of(tensor), 0
    # writes through `.data` do not increment the version counter, hence the sum
    return plain.data_ptr(), version_of(tensor), _bit_sum(plain)


def _bit_sum(tensor: Tensor) -> int:
    if tensor.is_quantized or not tensor.is_contiguous():
        return 0
    plain = tensor.reshape(-1).view(torch.uint8)
    # 64-bit words: much faster than bytes; viewing them requires an aligned address
    words = plain.numel() // 8 * 8 if tensor.data_ptr() % 8 == 0 else 0
    return int(plain[:words].view(torch.int64).sum()) + int(plain[words:].sum())
