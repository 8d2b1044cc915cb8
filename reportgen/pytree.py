"""Named tensors in nested structures; modules and buffers of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributions import Distribution

_MOST_LEVELS = 100  # guards against structures that create new children forever


def named_tensors(value: object, key: str = "") -> dict[str, Tensor]:
    """All tensors in `value`, depth first, by key: `logits`, `past.0.1`; "" for a single tensor.

    Traverses tuples, lists, mappings, dataclasses and objects with attributes, the parameters of
    distributions (`loc`, `scale`) and the components of nested tensors. Modules and functions are
    skipped. Duplicate keys (`1` and `"1"`) get a suffix: `1#2`.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in _walk(value, key, ()):
        unique, count = name, 1
        while unique in found:
            count += 1
            unique = f"{name}#{count}"
        found[unique] = tensor
    return found


def modules_of(model: nn.Module) -> Iterator[nn.Module]:
    """`model.modules()`, even if a subclass redefines `modules`."""
    from torch import nn

    return nn.Module.modules(model)


def buffers_of(model: nn.Module) -> Iterator[Tensor]:
    """`model.buffers()`, even if a subclass redefines `buffers`."""
    from torch import nn

    return nn.Module.buffers(model)


def _walk(value: object, key: str, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    import torch

    if isinstance(value, torch.Tensor) and not value.is_nested:
        yield key, value
        return
    if id(value) in above or len(above) > _MOST_LEVELS:  # a cycle, or too deep
        return
    for name, child in _children(value):
        yield from _walk(child, f"{key}.{name}" if key else name, (*above, id(value)))


def _children(value: object) -> Iterator[tuple[str, object]]:
    if value is None or isinstance(value, str | bytes | int | float | complex):
        return
    if isinstance(value, Mapping):
        yield from ((str(name), child) for name, child in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
    else:
        yield from _parts(value)


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    """The named components of a torch object or of an object with attributes."""
    import torch
    from torch.distributions import Distribution, Transform

    if isinstance(value, torch.Tensor):
        yield from _nested(value)
    elif isinstance(value, Distribution):
        yield from _parameters(value)
    elif isinstance(value, Transform):  # callable, so the last branch would skip it
        yield from ((name, child) for name, child in vars(value).items() if name[:1] != "_")
    elif not isinstance(value, _opaque()) and not callable(value):
        attributes = getattr(value, "__dict__", {})
        yield from ((name, child) for name, child in attributes.items() if name[:1] != "_")


def _opaque() -> tuple[type, ...]:
    """Types that are not traversed: modules, classes and symbolic sizes."""
    import torch

    # A symbolic size references its tracer, and through it every tensor traced so far.
    symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)
    return (torch.nn.Module, type, ModuleType, *symbolic)


def _nested(value: Any) -> Iterator[tuple[str, object]]:
    import torch

    if value.layout is torch.jagged:
        yield "values", value.values()
        yield "offsets", value.offsets()
    else:
        yield from ((str(index), part) for index, part in enumerate(value.unbind()))


def _parameters(value: Distribution) -> Iterator[tuple[str, object]]:
    """The constructor's parameters, without derived ones (`probs` of `logits`).

    Distributions without parameters have those of their base and of their transforms.
    """
    given = vars(value)  # not getattr: `probs` and `logits` are lazy properties of each other
    names = [name for name in value.arg_constraints if name in given]
    if "logits" in names and "probs" in names:
        names.remove("logits" if given.get("_param") is given["probs"] else "probs")
    yield from ((name, given[name]) for name in names)
    for name in ("base_dist", "_mixture_distribution", "_component_distribution"):
        if name in given:
            yield name.strip("_"), given[name]
    if not names:
        yield "transforms", given.get("transforms")
