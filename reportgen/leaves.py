"""Tensors inside any structure, each with the key a reader would write to reach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def tensor_leaves(value: object, key: str = "") -> dict[str, Tensor]:
    """Every tensor in `value`, depth first, by key: `logits`, `past.0.1`; a bare tensor's is `""`.

    Tuples, lists, mappings, dataclasses and objects with `to_tuple`-like mappings are walked;
    None, numbers and strings hold no tensor and are passed over.
    """
    return dict(_walk(value, key))


def _walk(value: object, key: str) -> Iterator[tuple[str, Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield key, value
        return
    for name, child in _children(value):
        yield from _walk(child, f"{key}.{name}" if key else name)


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((str(name), child) for name, child in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
