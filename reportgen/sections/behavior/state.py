"""What a model remembers, and what a pass has changed of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.sections.behavior.runner import is_same

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_MOST_ITEMS = 200  # of a container that are looked at
_DEEPEST = 3

Frozen = Any  # a tensor's copy, a number, a text, or a tuple of these


class Snapshot:
    """Parameters, buffers, training flags and plain attributes of a model at one moment."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {name: _mark(p) for name, p in model.named_parameters()}
        self._buffers = buffers_of(model)
        self._attributes = dict(_attributes(model))

    def changed_since(self, earlier: Snapshot) -> tuple[str, ...]:
        """Names of everything that is not what it was then."""
        return (
            *changed_names(self._parameters, earlier._parameters),
            *changed_names(self._buffers, earlier._buffers),
            *changed_names(self._attributes, earlier._attributes),
        )

    def registered_changed_since(self, earlier: Snapshot) -> tuple[str, ...]:
        """Names of the parameters and buffers that are not what they were then."""
        return (
            *changed_names(self._parameters, earlier._parameters),
            *changed_names(self._buffers, earlier._buffers),
        )


def buffers_of(model: nn.Module) -> dict[str, Frozen]:
    """Copies of all buffers, by name."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def changed_names(now: dict[str, Frozen], then: dict[str, Frozen]) -> tuple[str, ...]:
    """Names of what is not equal then and now."""
    missing = object()
    return tuple(
        name
        for name in dict.fromkeys((*then, *now))
        if not _equal(now.get(name, missing), then.get(name, missing))
    )


def _equal(a: Frozen, b: Frozen) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return is_same(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if type(a) is not type(b):
        return False
    return bool(a == b) or bool(a != a and b != b)  # NaN differs from itself


def _mark(parameter: Tensor) -> tuple[int, ...]:
    """Where a parameter lies, how often it was written to, and a sum over its bits.

    Writing through `.data` is not counted by autograd, so the sum is needed; a copy of every
    weight is not.
    """
    place = parameter.data_ptr() if parameter.layout == torch.strided else 0
    return place, version_of(parameter), _bit_sum(parameter.detach())


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 for one made for inference, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


def _bit_sum(tensor: Tensor) -> int:
    """A sum over the bits, wrapping around; words of 64 bits are ten times faster than others."""
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_contiguous():
        return 0
    plain = tensor.reshape(-1).view(torch.uint8)
    whole = plain.numel() // 8 * 8 if tensor.data_ptr() % 8 == 0 else 0
    return int(plain[:whole].view(torch.int64).sum()) + int(plain[whole:].sum())


def _attributes(model: nn.Module) -> Iterator[tuple[str, Frozen]]:
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        yield f"{dot}training", module.training
        if isinstance(module, torch.jit.ScriptModule):
            continue  # its attributes are a mirror of what is compiled
        for name, value in vars(module).items():
            if name not in _MODULE_ATTRIBUTES:
                yield f"{dot}{name}", _frozen(value, _DEEPEST)


def _frozen(value: object, depth: int) -> Frozen:
    """A copy to compare with later; what cannot be compared counts as None."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, bool | int | float | str | bytes | complex):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        items = list(value.items())[:_MOST_ITEMS]
        return len(value), tuple((str(key), _frozen(item, depth - 1)) for key, item in items)
    if isinstance(value, list | tuple | deque):
        shown = list(value)[:_MOST_ITEMS]
        return len(value), tuple(_frozen(item, depth - 1) for item in shown)
    return None
