"""The model's parameters in the file, and its modules in train mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.result import StoredParameters

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Array = np.ndarray[Any, Any]


_WORD = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "u8"}  # complex128 is two words
_CHUNK = 1 << 22  # elements at a time, since 64-bit copies are up to eight times as large

Fingerprint = tuple[int, int, int]
"""Number of elements, and two sums over their bits that do not depend on the order."""


def find_parameters(model: nn.Module, proto: Any) -> StoredParameters:
    """Look up every parameter of `model` in the parsed file `proto`, an `onnx.ModelProto`.

    A tensor with a parameter's name and number of elements is that parameter. Any other parameter
    is found by its contents, even transposed or reshaped, and also where equal tensors are stored
    once. Missing ones are batch norms that the exporter multiplied into the layer before, biases of
    zeros that it left out, and parameters that no node reads unchanged.
    """
    stored = {each.name: math.prod(each.dims) for each in proto.graph.initializer}
    groups = list(_parameters(model))
    rest = [group for group in groups if not _has_name(group, stored)]
    # only the rest is fingerprinted: most parameters are found by name
    contents = _fingerprints(proto, {tensor.numel() for _, tensor in rest})
    norms = _batch_norms(model)
    missing = [group for group in rest if _fingerprint_of(group[1]) not in contents]
    merged = [group for group in missing if group[0][0].rpartition(".")[0] in norms]
    others = [group for group in missing if group[0][0].rpartition(".")[0] not in norms]
    zero = [group for group in others if _is_zero(group[1])]
    absent = [group for group in others if not _is_zero(group[1])]
    return StoredParameters(
        found=_elements(groups) - _elements(missing),
        merged=_elements(merged),
        zero=_elements(zero),
        absent=tuple(names[0] for names, _ in absent),
        absent_elements=_elements(absent),
    )


def _is_zero(tensor: Tensor) -> bool:
    return tensor.device.type != "meta" and not bool(tensor.detach().any())


def _elements(groups: Iterable[tuple[tuple[str, ...], Tensor]]) -> int:
    return sum(tensor.numel() for _, tensor in groups)


def _parameters(model: nn.Module) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Every parameter once, with all the names that it has."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    yield from ((tuple(names[key]), tensor) for key, tensor in tensors.items())


def _has_name(group: tuple[tuple[str, ...], Tensor], stored: Mapping[str, int]) -> bool:
    names, tensor = group
    return any(stored.get(name) == tensor.numel() for name in names)


def _batch_norms(model: nn.Module) -> frozenset[str]:
    return frozenset(
        path for path, module in model.named_modules() if "BatchNorm" in type(module).__name__
    )


def _fingerprints(proto: Any, sizes: set[int]) -> frozenset[Fingerprint]:
    """The contents of all tensors in the file that have one of `sizes` elements."""
    import onnx

    if not sizes:
        return frozenset()
    return frozenset(
        _fingerprint(onnx.numpy_helper.to_array(tensor))
        for tensor in proto.graph.initializer
        if math.prod(tensor.dims) in sizes and tensor.data_location != onnx.TensorProto.EXTERNAL
    )


def _fingerprint_of(tensor: Tensor) -> Fingerprint | None:
    """The fingerprint of a parameter's bits; None if it has none in memory."""
    import torch

    try:  # viewed as bytes, since NumPy has no bfloat16
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        return _fingerprint(flat.view(torch.uint8).numpy(), flat.element_size())
    except (RuntimeError, TypeError, NotImplementedError):  # meta, sparse, packed
        return None


def _fingerprint(array: Array, element_bytes: int = 0) -> Fingerprint:
    import numpy as np

    size = element_bytes or array.dtype.itemsize
    words = np.ascontiguousarray(array).reshape(-1).view(np.uint8).view(_WORD[size])
    total, squares = 0, 0
    for start in range(0, len(words), _CHUNK):
        chunk = words[start : start + _CHUNK].astype(np.uint64)
        total = (total + int(chunk.sum(dtype=np.uint64))) % 2**64
        chunk *= chunk
        squares = (squares + int(chunk.sum(dtype=np.uint64))) % 2**64
    return array.size if not element_bytes else array.size // element_bytes, total, squares


# by class name: other libraries define their own (timm's DropPath, BatchNormAct2d)
_NAMES = ("Dropout", "BatchNorm", "RReLU", "StochasticDepth", "DropPath")


def modules_in_training(model: nn.Module) -> tuple[str, ...]:
    """Paths of the modules in train mode whose output differs there: `head.drop (Dropout)`."""
    return tuple(
        f"{path or 'the model'} ({type(module).__name__})"
        for path, module in model.named_modules()
        if module.training and _differs(type(module).__name__, module)
    )


def _differs(kind: str, module: nn.Module) -> bool:
    if not any(name in kind for name in _NAMES):
        return False
    return getattr(module, "p", 1) != 0  # a dropout with p = 0 does nothing in either mode
