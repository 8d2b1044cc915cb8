"""What a case says of a model, and how an answer of ours is judged by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from reportgen.sections.layers import Layers

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model with the right answers, by closed form.

    What is left at its default must be as that says: nothing idle, nothing unregistered, no
    operator uncounted, no mixture of experts. None elsewhere means that it is not judged; without
    a closed form of the multiply-adds it is judged whether there are any, or an operator is named
    that is not counted.
    """

    name: str
    model: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    parameters: int | None
    macs: int | None
    source: str = ""  # where people met it
    batch: int = 1
    trainable: int | None = None
    training_macs: int | None = None  # forward and backward
    active: int | None = None  # parameters that a token passes through; None: no experts
    unused_parameters: int | None = 0  # parameters
    unregistered: int | None = 0  # parameters
    parameter_bytes: int | None = None
    buffers_bytes: int | None = None
    outputs: dict[str, Shape] | None = None
    leaves: int | None = None  # tensors that come out
    uncounted: tuple[str, ...] | None = ()  # operators to be named
    calls: tuple[tuple[str, int], ...] = ()  # how often the module of a path ran
    refused: str | None = None  # words of the reason why there is no answer


class Lambda(nn.Module):
    """A module of one function, with whatever children, parameters and buffers are given."""

    def __init__(self, function: Callable[..., Any], **children: Any) -> None:
        super().__init__()
        self._function = [function]  # in a list: a function that is a module stays unregistered
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._function[0](self, *args, **kwargs)


def judge(case: Case, found: Layers) -> list[str]:
    """What is wrong with `found`, a short sentence each; nothing where all is right."""
    return [
        f"{what} {said:,} instead of {right:,}"
        if isinstance(said, int) and isinstance(right, int)
        else f"{what} {said} instead of {right}"
        for what, said, right in _compared(case, found)
        if right is not None and said != right
    ]


def _compared(case: Case, found: Layers) -> Iterator[tuple[str, Any, Any]]:
    root = found.layers[0]
    yield "parameters", found.parameters, case.parameters
    yield "MACs", found.macs, case.macs
    yield "FLOPs", found.flops, None if case.macs is None else 2 * case.macs
    if case.macs is None:
        yield "counted or named", bool(found.macs or found.uncounted), True
    yield "MACs of forward and backward", found.forward_backward.macs, case.training_macs
    yield "active parameters of experts", found.active_parameters or 0, case.active or 0
    yield "trainable parameters", found.trainable_parameters, case.trainable
    yield "never ran", root.unused_parameters, case.unused_parameters
    yield "unregistered", sum(item.parameters for item in found.unregistered), case.unregistered
    yield "bytes of parameters", found.parameter_bytes, case.parameter_bytes
    yield "bytes of buffers", found.buffers_bytes, case.buffers_bytes
    yield "tensors that come out", len(found.output_shapes), case.leaves
    yield "outputs", found.output_shapes, case.outputs
    named = tuple(sorted(item.operator for item in found.uncounted))
    yield "uncounted", named, None if case.uncounted is None else tuple(sorted(case.uncounted))
    calls = {row.path: row.calls for row in found.layers}
    for path, times in case.calls:
        yield f"calls of {path}", calls.get(path), times
    yield "MACs of the root's row", root.macs, found.macs
    yield "MACs of all rows", sum(row.own_macs for row in found.layers), found.macs
    if found.forward_backward.macs is not None:
        own = sum(row.own_forward_backward_macs or 0 for row in found.layers)
        yield "MACs of all rows, forward and backward", own, found.forward_backward.macs
    yield "parameters of the root's row", root.parameters, found.parameters
