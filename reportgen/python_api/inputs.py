"""Inputs as people give them in Python -> the input specs of a manifest.

A tensor is an example of its kind: its shape, dtype and range of values are used, its values are
not. So the sections can vary batch size and seed, as they do for a manifest.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from reportgen.errors import ModelError
from reportgen.manifest import InputSpec, parse_shape_argument
from reportgen.manifest.input_spec import Constant, Dtype

if TYPE_CHECKING:
    from torch import Tensor, nn

Inputs: TypeAlias = (
    "Tensor | str | Sequence[Any] | Mapping[str, Any] | None"  # the names are torch's
)
"""The arguments of `forward`: see `read_inputs`."""

_DTYPES: tuple[str, ...] = get_args(Dtype)
_FORMS = (
    "give a tensor, a shape such as (1, 3, 224, 224), a text such as 'ids=batch,128:int64<30522', "
    "a tuple of these for several positional arguments, or a dict for keyword arguments"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadInputs:
    """The inputs as a manifest has them, and the batch size that they were given with."""

    specs: tuple[InputSpec, ...]
    batch: int


def read_inputs(inputs: Inputs, model: nn.Module) -> ReadInputs:
    """The specs of `inputs`, whose leading size is the batch.

    Args:
        inputs: a tensor; a shape, such as `(1, 3, 224, 224)`; a text as on the command line,
            `"ids=batch,128:int64<30522"`; a tuple or list of these and of constants for several
            positional arguments; a dict for keyword arguments. Structures of them may be nested.
            A list of equally shaped tensors inside has one entry per sample, as in torchvision's
            detectors. None to find inputs from the model.
        model: names its arguments.

    Raises:
        ModelError: an input is of a kind that cannot be described, with its name.
    """
    if inputs is None:
        return ReadInputs(specs=(), batch=1)
    if isinstance(inputs, Mapping):
        named, keyword = {str(name): value for name, value in inputs.items()}, True
    else:
        values = list(inputs) if _is_several(inputs) else [inputs]
        named, keyword = dict(zip(_names(model, len(values)), values, strict=True)), False
    batch = next(_batch_sizes(list(named.values())), 1)
    return ReadInputs(
        specs=tuple(
            _named(_spec(value, batch, name), name, keyword=keyword)
            for name, value in named.items()
        ),
        batch=batch,
    )


def _is_several(inputs: Any) -> bool:
    return isinstance(inputs, tuple | list) and not _is_shape(inputs)


def _is_shape(value: Any) -> bool:
    whole = isinstance(value, tuple | list) and len(value) > 0  # torch.Size is a tuple
    return whole and all(isinstance(size, int) and not isinstance(size, bool) for size in value)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")  # of torch or NumPy


def _names(model: nn.Module, number: int) -> list[str]:
    """The names of the first positional arguments of `forward`; `input0` where there is none."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # written in C
        parameters = []
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in by_position]
    return [*names[:number], *(f"input{index}" for index in range(len(names), number))]


def _batch_sizes(values: Sequence[Any]) -> Iterator[int]:
    """The leading sizes, those of the arguments themselves before those of nested structures."""
    nested: list[Any] = []
    for value in values:
        if _is_shape(value):
            yield value[0]
        elif _is_tensor(value):
            if len(value.shape) > 0:
                yield int(value.shape[0])
        elif _is_per_sample(value):
            yield len(value)
        elif isinstance(value, Mapping):
            nested += value.values()
        elif isinstance(value, tuple | list):
            nested += value
    if nested:
        yield from _batch_sizes(nested)


def _is_per_sample(value: Any) -> bool:
    """Whether it is a list of equally shaped tensors, or of dicts of them: one per sample."""
    if not isinstance(value, list) or not value or not all(map(_is_tensor, value)):
        return False
    return len({tuple(each.shape) for each in value}) == 1 and len(value[0].shape) > 0


def _named(spec: InputSpec, name: str, *, keyword: bool) -> InputSpec:
    return spec.model_copy(update={"name": spec.name or name, "keyword": keyword})


def _spec(value: Any, batch: int, name: str) -> InputSpec:
    try:
        return _described(value, batch, name)
    except ValueError as error:  # of pydantic, whose last line says what is wrong
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"input {name!r}: {reason}", hint=_FORMS) from error


def _described(value: Any, batch: int, name: str) -> InputSpec:
    if isinstance(value, InputSpec):
        return value
    if isinstance(value, str) and "," in value:
        return parse_shape_argument(value)
    if _is_shape(value):
        return InputSpec(shape=_with_batch(value, batch))
    if _is_tensor(value):
        return _like(value, batch, name)
    if value is None or isinstance(value, str | bool | int | float):
        return InputSpec(value=Constant(value=value))
    if _is_per_sample(value):
        one = _like(value[0], 0, name)  # no dimension of a sample is the batch
        return InputSpec(items=(one,), per_sample=True)
    if isinstance(value, Mapping):
        fields = {str(key): _spec(each, batch, f"{name}.{key}") for key, each in value.items()}
        return InputSpec(fields=fields)
    if isinstance(value, tuple | list):
        items = tuple(_spec(each, batch, f"{name}.{index}") for index, each in enumerate(value))
        return InputSpec(items=items, as_tuple=isinstance(value, tuple))
    raise ModelError(
        f"input {name!r} is a {type(value).__name__}, which cannot be described", hint=_FORMS
    )


def _with_batch(shape: Sequence[int], batch: int) -> tuple[int | str, ...]:
    sizes: tuple[int | str, ...] = tuple(int(size) for size in shape)
    return ("batch", *sizes[1:]) if sizes and sizes[0] == batch else sizes


def _like(value: Any, batch: int, name: str) -> InputSpec:
    """A random tensor of the shape, dtype and range of values of `value`."""
    import torch

    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _DTYPES or tensor.layout is not torch.strided or tensor.is_nested:
        kind = dtype if tensor.layout is torch.strided else str(tensor.layout)
        raise ModelError(
            f"input {name!r} is a {kind} tensor, which cannot be described",
            hint="analyze a module that takes dense tensors and converts them itself",
        )
    values = {"shape": _with_batch(tuple(tensor.shape), batch), "dtype": dtype}
    return InputSpec.model_validate({**values, **_value_range(tensor)})


def _value_range(tensor: Tensor) -> dict[str, Any]:
    """`low` and `high` of integers and of floats that are not negative; else nothing.

    So token ids stay in the vocabulary, and a mask of ones stays one. Floats with negative values
    are drawn from the standard normal distribution.
    """
    import torch

    if tensor.device.type == "meta" or tensor.numel() == 0 or tensor.dtype is torch.bool:
        return {}
    if tensor.dtype.is_complex:
        return {}
    wide = tensor.detach().to("cpu", torch.float64 if tensor.is_floating_point() else None)
    if tensor.is_floating_point():
        low, high = float(wide.min()), float(wide.max())
        return {"low": 0.0, "high": high} if 0.0 <= low < high < float("inf") else {}
    numbers = wide.to(torch.int64)
    return {"low": int(numbers.min()), "high": int(numbers.max()) + 1}
