"""Snapshots of the state of a model, to detect what a pass changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.sections.behavior.runner import is_same
from reportgen.tracing.tensors import fingerprint

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # hooks, `_buffers` and so on
_MAX_ITEMS = 200  # compared of one container
_MAX_DEPTH = 3

Frozen = Any  # a copy of a tensor, a number, a string, or a tuple of these


class Snapshot:
    """Parameters, buffers, training flags and plain attributes of a model at one moment."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {name: fingerprint(p) for name, p in model.named_parameters()}
        self._buffers = copy_buffers(model)
        self._attributes = dict(_attributes(model))

    def changed_since(self, earlier: Snapshot) -> tuple[str, ...]:
        """Names of the parameters, buffers and attributes that differ."""
        return (
            *self.registered_changed_since(earlier),
            *changed_names(self._attributes, earlier._attributes),
        )

    def registered_changed_since(self, earlier: Snapshot) -> tuple[str, ...]:
        """Names of the parameters and buffers that differ."""
        return (
            *changed_names(self._parameters, earlier._parameters),
            *changed_names(self._buffers, earlier._buffers),
        )


def copy_buffers(model: nn.Module) -> dict[str, Frozen]:
    """Copies of all buffers, by name."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def changed_names(now: dict[str, Frozen], then: dict[str, Frozen]) -> tuple[str, ...]:
    """Names whose values differ, or that exist only in one of both."""
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


def _attributes(model: nn.Module) -> Iterator[tuple[str, Frozen]]:
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        yield f"{dot}training", module.training
        if isinstance(module, torch.jit.ScriptModule):
            continue  # its attributes mirror its registered modules and tensors
        for name, value in vars(module).items():
            if name not in _MODULE_ATTRIBUTES:
                yield f"{dot}{name}", _frozen(value, _MAX_DEPTH)


def _frozen(value: object, depth: int) -> Frozen:
    """A copy to compare with later; None for values that cannot be compared."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, bool | int | float | str | bytes | complex):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        items = list(value.items())[:_MAX_ITEMS]
        return len(value), tuple((str(key), _frozen(item, depth - 1)) for key, item in items)
    if isinstance(value, list | tuple | deque):
        part = list(value)[:_MAX_ITEMS]
        return len(value), tuple(_frozen(item, depth - 1) for item in part)
    return None
