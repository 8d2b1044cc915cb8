"""Tensors inside any structure, each with the key a reader would write; what a model holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributions import Distribution

_DEPTH = 100  # deeper than any structure that somebody means


def named_tensors(value: object, key: str = "") -> dict[str, Tensor]:
    """Every tensor in `value`, depth first, by key: `logits`, `past.0.1`; a bare tensor's is `""`.

    Tuples, lists, mappings, dataclasses and other objects with attributes are walked; of a
    distribution its parameters are listed (`loc`, `scale`), of a nested tensor its parts.
    None, numbers, strings, modules and functions hold no tensor and are passed over.
    A key that another leaf has already (`1` and `"1"`) is told apart as `1#2`.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in _walk(value, key, ()):
        alone, times = name, 1
        while alone in found:
            times += 1
            alone = f"{name}#{times}"
        found[alone] = tensor
    return found


def modules_of(model: nn.Module) -> Iterator[nn.Module]:
    """`model.modules()`, also where the model has an attribute of that name."""
    from torch import nn

    return nn.Module.modules(model)


def buffers_of(model: nn.Module) -> Iterator[Tensor]:
    """`model.buffers()`, also where the model has an attribute of that name."""
    from torch import nn

    return nn.Module.buffers(model)


def _walk(value: object, key: str, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    import torch

    if isinstance(value, torch.Tensor) and not value.is_nested:
        yield key, value
        return
    if id(value) in above or len(above) > _DEPTH:
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
    """What a value of torch's own, or an object of the user's class, is made of."""
    import torch
    from torch.distributions import Distribution, Transform

    if isinstance(value, torch.Tensor):
        yield from _nested(value)
    elif isinstance(value, Distribution):
        yield from _parameters(value)
    elif isinstance(value, Transform):  # it can be called, as functions can
        yield from ((name, child) for name, child in vars(value).items() if name[:1] != "_")
    elif not isinstance(value, _opaque()) and not callable(value):
        attributes = getattr(value, "__dict__", {})
        yield from ((name, child) for name, child in attributes.items() if name[:1] != "_")


def _opaque() -> tuple[type, ...]:
    """What is no structure of a reader's: modules, classes, and sizes that torch traces.

    A size of a traced tensor holds its tracer, and with it every tensor traced so far.
    """
    import torch

    traced = (torch.SymInt, torch.SymFloat, torch.SymBool)
    return (torch.nn.Module, type, ModuleType, *traced)


def _nested(value: Any) -> Iterator[tuple[str, object]]:
    import torch

    if value.layout is torch.jagged:
        yield "values", value.values()
        yield "offsets", value.offsets()
    else:
        yield from ((str(index), part) for index, part in enumerate(value.unbind()))


def _parameters(value: Distribution) -> Iterator[tuple[str, object]]:
    """The parameters it was given; a second form of one (probs of logits) is only derived.

    Of one that has none of its own, those of its base and of its transforms.
    """
    given = vars(value)
    names = [name for name in value.arg_constraints if name in given]
    if "logits" in names and "probs" in names:
        names.remove("logits" if given.get("_param") is given["probs"] else "probs")
    yield from ((name, given[name]) for name in names)
    for name in ("base_dist", "_mixture_distribution", "_component_distribution"):
        if name in given:
            yield name.strip("_"), given[name]
    if not names:
        yield "transforms", given.get("transforms")
