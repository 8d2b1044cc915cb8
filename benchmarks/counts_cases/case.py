"""A benchmark case, and the comparison of a result with it."""

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

    Defaults are checked too: no unused or unregistered parameters, no uncounted operators, no
    mixture of experts. None means that a figure is not checked; if `macs` is None, the result must
    have MACs or list an uncounted operator.
    """

    name: str
    model: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    parameters: int | None
    macs: int | None
    source: str = ""  # issue or publication
    batch: int = 1
    trainable: int | None = None
    training_macs: int | None = None  # forward and backward
    active: int | None = None  # parameters per token; None: no experts
    unused_parameters: int | None = 0  # parameters
    unregistered: int | None = 0  # parameters
    parameter_bytes: int | None = None
    buffers_bytes: int | None = None
    outputs: dict[str, Shape] | None = None
    leaves: int | None = None  # output tensors
    uncounted: tuple[str, ...] | None = ()  # operators that must be listed
    calls: tuple[tuple[str, int], ...] = ()  # path and number of calls
    refused: str | None = None  # text of the expected error


class Lambda(nn.Module):
    """A module of one function with the given children, parameters and buffers."""

    def __init__(self, function: Callable[..., Any], **children: Any) -> None:
        super().__init__()
        self._function = [function]  # in a list: a function that is a module stays unregistered
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._function[0](self, *args, **kwargs)


def judge(case: Case, found: Layers) -> list[str]:
    """The differences between `found` and `case`, one sentence each."""
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
        yield "counted or listed as uncounted", bool(found.macs or found.uncounted), True
    yield "MACs of forward and backward", found.forward_backward.macs, case.training_macs
    yield "active parameters of experts", found.active_parameters or 0, case.active or 0
    yield "trainable parameters", found.trainable_parameters, case.trainable
    yield "unused parameters", root.unused_parameters, case.unused_parameters
    yield "unregistered", sum(item.parameters for item in found.unregistered), case.unregistered
    yield "bytes of parameters", found.parameter_bytes, case.parameter_bytes
    yield "bytes of buffers", found.buffers_bytes, case.buffers_bytes
    yield "output tensors", len(found.output_shapes), case.leaves
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
