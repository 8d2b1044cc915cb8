"""Which sizes of found inputs are free: a second size is tried, and what runs gets a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reportgen.dummy_inputs.candidate import Choice
from reportgen.dummy_inputs.trial_run import why_not, with_choice
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import ModelSpec

_OTHER_BATCH = 3
_IMAGE_RANK, _SEQUENCE_RANK = 4, 3
_STEP = 32  # what most strides divide


@dataclass(frozen=True, kw_only=True, slots=True)
class _Free:
    """A size that might be free: its name, its size now, another one, and where it stands."""

    name: str
    size: int
    other: int
    stands: Callable[[InputSpec, int], bool]


def with_free_dims(model: nn.Module, spec: ModelSpec, choice: Choice) -> Choice:
    """`choice` with a name for every size that ran as another one too; the batch as one of them.

    A batch that is built into the model becomes a number. The model must be on loan.
    """
    choice = _settled_batch(model, spec, choice)
    for free in _candidates(choice.inputs):
        inputs = tuple(_named(item, free) for item in choice.inputs)
        named = replace(choice, inputs=inputs, dims={**choice.dims, free.name: free.size})
        other = replace(named, dims={**named.dims, free.name: free.other})
        if why_not(model, with_choice(spec, other), 1) is None:
            choice = named
    return choice


def has_free_batch(choice: Choice) -> bool:
    """Whether the inputs name the batch."""
    return "batch" in {dim for item in choice.inputs for dim in item.named_dims()}


def _settled_batch(model: nn.Module, spec: ModelSpec, choice: Choice) -> Choice:
    if why_not(model, with_choice(spec, choice), _OTHER_BATCH) is None:
        return choice
    return replace(choice, inputs=tuple(_fixed(item, spec.batch) for item in choice.inputs))


def _fixed(item: InputSpec, batch: int) -> InputSpec:
    shape = item.shape and tuple(batch if dim == "batch" else dim for dim in item.shape)
    items = item.items and tuple(_fixed(part, batch) for part in item.items)
    fields = item.fields and {key: _fixed(part, batch) for key, part in item.fields.items()}
    return item.model_copy(update={"shape": shape, "items": items, "fields": fields})


def _candidates(inputs: tuple[InputSpec, ...]) -> Iterator[_Free]:
    """The number of tokens, the two sides of a picture, the steps of a sequence."""
    for tokens in sorted({s for item in inputs for s in _token_sizes(item)})[:1]:
        yield _Free(name="tokens", size=tokens, other=max(1, tokens // 2), stands=_is_tokens)
    pictures = [item.shape for item in inputs if item.shape and _is_picture(item)]
    for axis, name in ((-2, "height"), (-1, "width")):
        sizes = {shape[axis] for shape in pictures}
        size = sizes.pop() if len(sizes) == 1 else ""
        if isinstance(size, int):
            yield _Free(name=name, size=size, other=size + _STEP, stands=_picture_side(axis))
    for item in inputs:
        where = _step_axis(item)
        if where is not None and item.shape and isinstance(item.shape[where], int):
            steps = int(item.shape[where])
            yield _Free(name="steps", size=steps, other=steps + 1, stands=_is_step)
            break


def _token_sizes(item: InputSpec) -> Iterator[int]:
    shape = item.shape or ()
    if item.dtype == "int64" and len(shape) > 1 and isinstance(shape[1], int):
        yield shape[1]


def _is_tokens(item: InputSpec, axis: int) -> bool:
    return item.dtype == "int64" and axis == 1


def _is_picture(item: InputSpec) -> bool:
    shape = item.shape or ()
    return len(shape) == _IMAGE_RANK and item.dtype.startswith("float") and shape[0] == "batch"


def _picture_side(side: int) -> Callable[[InputSpec, int], bool]:
    return lambda item, axis: _is_picture(item) and axis == _IMAGE_RANK + side


def _step_axis(item: InputSpec) -> int | None:
    shape = item.shape or ()
    if len(shape) != _SEQUENCE_RANK or "batch" not in shape[:2] or item.dtype != "float32":
        return None
    return 1 - shape.index("batch")


def _is_step(item: InputSpec, axis: int) -> bool:
    return _step_axis(item) == axis


def _named(item: InputSpec, free: _Free) -> InputSpec:
    if item.shape is None:
        return item
    shape = tuple(
        free.name if dim == free.size and free.stands(item, axis) else dim
        for axis, dim in enumerate(item.shape)
    )
    return item.model_copy(update={"shape": shape})
