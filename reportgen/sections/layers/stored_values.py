"""What is unusual about the values that a model stores: its parameters, buffers and attributes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.file_kind import TORCH, file_kind
from reportgen.manifest import ModelSpec
from reportgen.sections.layers.modules import first_visits, join, parameters_by_name, walk
from reportgen.sections.layers.result import ConstantWeight, StoredValues

_LEAST_COPY = 64  # elements; smaller tensors may be equal by chance or by convention
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)
_END = 64  # elements that are compared before whole tensors are hashed


def stored_values(model: nn.Module, spec: ModelSpec) -> StoredValues:
    """The facts about `model`, which is only read."""
    nodes = first_visits(walk(model))
    named = {name: p for name, p in parameters_by_name(nodes).items() if _has_values(p)}
    distinct = {id(p): (name, p) for name, p in reversed(named.items())}
    plain = {name: p.detach() for name, p in reversed(distinct.values())}
    return StoredValues(
        non_finite=tuple(name for name, p in plain.items() if _is_not_finite(p)),
        constant=tuple(_constant_weights(model)),
        copies=tuple(_copies({n: p for n, p in plain.items() if p.dim() > 1})),
        trainable_buffers=tuple(
            join(node.path, name)
            for node in nodes
            for name, buffer in node.module._buffers.items()
            if buffer is not None and buffer.requires_grad
        ),
        plain_tensors=tuple(_plain_tensors(model)),
        pickled_weights=spec.weights is not None and _is_pickle(spec),
    )


def _has_values(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer)
    return plain and tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)


def _is_not_finite(tensor: Tensor) -> bool:
    # NaN and infinity propagate into a sum, which may overflow without them too
    return tensor.is_floating_point() and not (
        bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
    )


def _constant_weights(model: nn.Module) -> Iterator[ConstantWeight]:
    """Matrices of layers whose elements are all equal and not zero.

    Zero is left out: heads, gates and low-rank factors begin at zero on purpose.
    """
    for node in first_visits(walk(model)):
        if not isinstance(node.module, _LAYERS):
            continue
        for name, weight in node.module._parameters.items():
            if weight is None or not _has_values(weight) or not weight.is_floating_point():
                continue
            is_matrix = weight.dim() > 1 and sum(size > 1 for size in weight.shape) > 1
            if is_matrix and weight.requires_grad:
                value = _constant(weight.detach())
                if value:
                    yield ConstantWeight(name=join(node.path, name), value=value)


def _constant(weight: Tensor) -> float | None:
    """The value of all elements; None if they differ."""
    ends = weight.flatten()[:_END]
    # most weights differ at their beginning, and are not read further
    if bool((ends != ends[0]).any()) or bool((weight != ends[0]).any()):
        return None
    return float(ends[0])


def _copies(named: dict[str, Tensor]) -> Iterator[tuple[str, ...]]:
    """Groups of names of equal tensors that are not tied and not constant."""
    groups: dict[Any, list[str]] = defaultdict(list)
    for name, tensor in named.items():
        if tensor.numel() >= _LEAST_COPY and tensor.is_floating_point():
            ends = tuple(tensor.flatten()[:_END].tolist())
            if len(set(ends)) > 1:
                groups[tuple(tensor.shape), tensor.dtype, ends].append(name)
    for names in groups.values():
        if len(names) > 1:
            same: dict[bytes, list[str]] = defaultdict(list)
            for name in names:
                same[_digest(named[name])].append(name)
            yield from (tuple(equal) for equal in same.values() if len(equal) > 1)


def _digest(tensor: Tensor) -> bytes:
    values: Any = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.blake2b(values, digest_size=16).digest()


def _plain_tensors(model: nn.Module) -> Iterator[str]:
    """Attributes of modules that are floating-point tensors and not registered.

    Views and other references to registered tensors are left out: they are no state of their own.
    """
    registered = {
        tensor.untyped_storage().data_ptr()
        for tensor in [*model.parameters(), *model.buffers()]
        if _has_values(tensor)
    }
    for node in first_visits(walk(model)):
        for name, value in vars(node.module).items():
            if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
                continue
            counts = _has_values(value) and value.is_floating_point() and value.numel() > 1
            if counts and value.untyped_storage().data_ptr() not in registered:
                yield join(node.path, name)


def _is_pickle(spec: ModelSpec) -> bool:
    try:
        return spec.weights is not None and file_kind(spec.weights) == TORCH
    except OSError:
        return False
