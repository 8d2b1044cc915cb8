"""Module records: what a comparison must know of every module, without running the model."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache, partial
from numbers import Integral, Real
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from reportgen.code_location import SourceRoot, class_location
from reportgen.comparable import ModuleRecord, StateTensor
from reportgen.error_text import shown_text
from reportgen.sections.layers.modules import (
    ModuleNode,
    class_of,
    join,
    quantized_tensors,
    spatial_dimensions,
    walk,
)
from reportgen.tracing.tensors import dtype_name, shape_of

_MOST_VALUES = 64  # longer lists and texts are stored as a hash
_MOST_LEVELS = 4
# They change neither the outputs nor the gradients.
_NO_EFFECT = {"training", "inplace", "device", "name_or_path", "warnings_issued"}
# The path says it already; blocks that differ in nothing else are equal.
_NO_EFFECT |= {"layer_idx", "layer_id", "layer_index", "layer_num", "block_idx", "block_id"}
_SIZES = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}


def module_records(
    model: nn.Module, *, with_digests: bool = False, root: SourceRoot | None = None
) -> tuple[ModuleRecord, ...]:
    """One record per path, depth first in order of registration.

    Args:
        model: is only read. Costs and calls are unknown without a forward pass.
        with_digests: whether to hash the values of all tensors, at about 1 GB/s.
        root: the folder that paths of the user's files start from.
    """
    keys: dict[int, str] = {}  # first key of each tensor
    paths: dict[int, str] = {}  # first path of each module
    digests: dict[int, str] = {}
    records = []
    for node in walk(model):
        first = paths.setdefault(id(node.module), node.path)
        own = list(_own_tensors(node, keys, digests if with_digests else None))
        attributes = attributes_of(node.module)
        arguments = _argument_names(class_of(node.module))
        records.append(
            ModuleRecord(
                path=node.path,
                type=class_name(node.module),
                attributes=attributes,
                computed=tuple(name for name in attributes if name not in arguments),
                tensors=tuple(own),
                parameters=_count_parameters(node.path, own),
                shared_with="" if first == node.path else first,
                source=class_location(class_of(node.module), root),
            )
        )
    return tuple(records)


def class_name(module: nn.Module) -> str:
    """`Conv2d`; of TorchScript the class that was compiled."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(module.original_name)
    return class_of(module).__name__


def _count_parameters(path: str, own: Iterable[StateTensor]) -> int:
    # one parameter may be registered under two names of the module
    distinct = {t.tied_to or join(path, t.name): t for t in own if t.kind == "parameter"}
    return sum(math.prod(tensor.shape) for tensor in distinct.values())


def _own_tensors(
    node: ModuleNode, keys: dict[int, str], digests: dict[int, str] | None
) -> Iterator[StateTensor]:
    module = node.module
    transient: set[str] = getattr(module, "_non_persistent_buffers_set", set())
    # a ScriptModule's tables have no more of a dict than `items`
    parameters, buffers = list(module._parameters.items()), list(module._buffers.items())
    for name, tensor in [*parameters, *buffers]:
        if tensor is None:
            continue
        key = join(node.path, name)
        first = keys.setdefault(id(tensor), key)
        is_parameter = any(each is tensor for _, each in parameters)
        yield StateTensor(
            name=name,
            shape=shape_of(tensor),
            dtype=dtype_name(tensor),
            kind="parameter" if is_parameter else "buffer",
            persistent=name not in transient,
            trainable=is_parameter and tensor.requires_grad,
            tied_to="" if first == key else first,
            digest="" if digests is None else _digest(tensor, digests),
        )
    for name, tensor in quantized_tensors(module).items():
        yield StateTensor(
            name=name, shape=shape_of(tensor), dtype=dtype_name(tensor), trainable=False
        )


def _digest(tensor: Tensor, known: dict[int, str]) -> str:
    """The hash of the values; "" for tensors without plain values in memory."""
    if id(tensor) not in known:
        plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer) and not tensor.is_quantized
        has_values = plain and tensor.layout is torch.strided and not tensor.is_meta
        known[id(tensor)] = _hash_of(tensor) if has_values else ""
    return known[id(tensor)]


def _hash_of(tensor: Tensor) -> str:
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
    values: Any = flat.view(torch.uint8).numpy()  # a buffer, not copied
    return hashlib.blake2b(values, digest_size=8).hexdigest()


def attributes_of(module: nn.Module) -> dict[str, JsonValue]:
    """The attributes that determine what a module computes, constructor arguments first.

    These are the constructor's arguments and torch's `__constants__`, as far as they are plain
    values or functions, and outside torch all public numbers, texts, functions and flat lists.
    `inplace` is left out, since it does not change the result, and None, since it often stands for
    a module that another instance has.
    """
    if isinstance(module, torch.jit.ScriptModule):  # its constructor is not the user's
        return {}
    kind = class_of(module)
    names = list(_argument_names(kind))
    if not kind.__module__.startswith("torch."):
        names += sorted(name for name, value in vars(module).items() if _is_public(name, value))
    registered = {*module._parameters, *module._buffers, *module._modules}
    found: dict[str, JsonValue] = {}
    for name in names:
        if name in found or name in registered or name in _NO_EFFECT:
            continue
        value, is_plain = _plain(_read(module, name))
        if is_plain and value is not None:
            found[name] = _per_dimension(module, name, value)
    return found | _parametrizations(module)


def _is_public(name: str, value: object) -> bool:
    # dicts and nested lists of models describe pretrained weights
    nested = isinstance(value, dict) or (
        isinstance(value, list | tuple) and any(isinstance(v, dict | list | tuple) for v in value)
    )
    return not name.startswith("_") and not nested


@lru_cache(maxsize=1024)
def _argument_names(kind: type) -> tuple[str, ...]:
    constants = sorted(getattr(kind, "__constants__", ()))
    try:
        return (*inspect.signature(kind).parameters, *constants)
    except (TypeError, ValueError):  # a constructor written in C, or a broken signature
        return tuple(constants)


_ABSENT = object()


def _read(module: nn.Module, name: str) -> object:
    try:
        value = getattr(module, name, _ABSENT)
    except Exception:  # a property of the user's class
        return _ABSENT
    # a method that has the name of an argument is not its value
    return _ABSENT if getattr(value, "__self__", None) is module else value


def _parametrizations(module: nn.Module) -> dict[str, JsonValue]:
    """`{"parametrizations.weight": ["_WeightNorm"]}`."""
    parametrized = module._modules.get("parametrizations")
    if not isinstance(parametrized, nn.ModuleDict):
        return {}
    return {
        f"parametrizations.{name}": [class_name(each) for each in steps.children()]
        for name, steps in parametrized.items()
    }


def _per_dimension(module: nn.Module, name: str, value: JsonValue) -> JsonValue:
    """A size of a pooling or convolution, of which 2 means the same as (2, 2)."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if name not in _SIZES or not is_number or not re.search(r"[123]d", class_name(module)):
        return value
    return [value] * spatial_dimensions(module)


def _plain(value: object, level: int = 0) -> tuple[JsonValue, bool]:
    """`value` as JSON without addresses and folders, and whether it is a plain value at all."""
    if value is None or isinstance(value, bool):
        return value, True
    if isinstance(value, str):
        return (shown_text(value), True) if len(value) <= _MOST_VALUES else (_short(value), True)
    if isinstance(value, Enum):
        return value.name, True
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch."), True
    if isinstance(value, Integral | Real):
        return _number(value), True
    if isinstance(value, list | tuple | set | frozenset | dict) and level < _MOST_LEVELS:
        return _plain_items(value, level)
    if isinstance(value, partial) or inspect.isroutine(value) or isinstance(value, type):
        return _callable_name(value), True
    return None, False


def _number(value: Any) -> int | float | str:
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _plain_items(value: Any, level: int) -> tuple[JsonValue, bool]:
    if isinstance(value, dict):
        items = [(str(key), _plain(item, level + 1)) for key, item in value.items()]
        result: JsonValue = {key: item for key, (item, _) in items}
        parts: Iterable[bool] = (is_plain for _, (_, is_plain) in items)
    else:
        plain = [_plain(item, level + 1) for item in value]
        texts = [item for item, _ in plain]
        # a set has another order in every process
        result = sorted(texts, key=repr) if isinstance(value, set | frozenset) else texts
        parts = (is_plain for _, is_plain in plain)
    if not all(parts):
        return None, False
    return (result if len(value) <= _MOST_VALUES else _short(result)), True


def _short(value: JsonValue) -> str:
    digest = hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()
    size = len(value) if isinstance(value, str | list | dict) else 1
    return f"{size} {'characters' if isinstance(value, str) else 'values'}, hash {digest}"


def _callable_name(value: Callable[..., Any]) -> str:
    if not isinstance(value, partial):
        return getattr(value, "__name__", type(value).__name__)
    arguments = [*map(_text, value.args), *(f"{k}={_text(v)}" for k, v in value.keywords.items())]
    return f"{_callable_name(value.func)}({', '.join(arguments)})"


def _text(value: object) -> str:
    plain, is_plain = _plain(value)
    return str(plain) if is_plain else type(value).__name__
