"""The rows of the table: what is registered, joined with what ran."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from reportgen.sections.layers.cost import tensor_bytes
from reportgen.sections.layers.modules import (
    Node,
    own_parameters,
    parameters_by_name,
    quantized_tensors,
    walk,
)
from reportgen.sections.layers.naming import describe
from reportgen.sections.layers.result import Layer, Reached
from reportgen.sections.layers.trace import Call, Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What a model holds, each tensor once."""

    parameters: int
    trainable_parameters: int
    quantized_parameters: int
    buffers: int
    buffers_bytes: int
    parameter_bytes: int
    bytes_by_dtype: dict[str, int]
    tied: tuple[tuple[str, ...], ...]


def weigh(model: nn.Module) -> Weights:
    """Count parameters and buffers, unique by identity of the tensor."""
    nodes = walk(model)
    registered = _unique(parameters_by_name(nodes).values())
    quantized = _quantized(nodes)
    buffers = _unique(b for node in nodes for b in node.module._buffers.values() if b is not None)
    by_dtype: dict[str, int] = {}
    for tensor in [*registered, *quantized, *buffers]:
        dtype = dtype_name(tensor)
        by_dtype[dtype] = by_dtype.get(dtype, 0) + tensor_bytes(tensor)
    return Weights(
        parameters=_numbers([*registered, *quantized]),
        trainable_parameters=_numbers(p for p in registered if p.requires_grad),
        quantized_parameters=_numbers(quantized),
        buffers=_numbers(buffers),
        buffers_bytes=sum(map(tensor_bytes, buffers)),
        parameter_bytes=sum(map(tensor_bytes, [*registered, *quantized])),
        bytes_by_dtype=dict(sorted(by_dtype.items())),
        tied=_tied(nodes),
    )


def dtype_name(tensor: Tensor) -> str:
    """`float32`, `qint8`."""
    return str(tensor.dtype).removeprefix("torch.")


def never_ran(model: nn.Module, trace: Trace) -> tuple[str, ...]:
    """Names of the parameters that no operator of the pass read, tied ones under each name."""
    named = parameters_by_name(walk(model))
    used = {id(named[name]) for name in trace.used if name in named}
    return tuple(name for name, parameter in named.items() if id(parameter) not in used)


def build_layers(model: nn.Module, trace: Trace) -> tuple[Layer, ...]:
    """One row for each path, depth first in order of registration."""
    nodes = walk(model)
    named = parameters_by_name(nodes)
    idle = {id(named[name]) for name in never_ran(model, trace)}
    owners_used = {name.rpartition(".")[0] for name in trace.used}
    calls: dict[str, list[Call]] = {}
    for call in trace.calls:
        calls.setdefault(call.path, []).append(call)
    first_path: dict[int, str] = {}
    rows: list[Layer] = []
    for index, node in enumerate(nodes):
        subtree = nodes[index : _end_of_subtree(nodes, index)]
        held = _unique(parameters_by_name(subtree).values())
        quantized = _numbers(_quantized(subtree))
        own = _unique(own_parameters(node).values())
        mine = calls.get(node.path, [])
        first = mine[0] if mine else None
        repeats = first_path.setdefault(id(node.module), node.path)
        rows.append(
            Layer(
                path=node.path,
                type=describe(node.module),
                depth=node.depth,
                calls=len(mine),
                input_shapes=tuple(first.inputs.values()) if first else (),
                output_shapes=tuple(first.outputs.values()) if first else (),
                input_keys=tuple(first.inputs) if first else (),
                output_keys=tuple(first.outputs) if first else (),
                output_bytes=sum(call.output_bytes for call in mine),
                parameters=_numbers(held) + quantized,
                own_parameters=_numbers(own) + _numbers(_quantized([node])),
                trainable_parameters=_numbers(p for p in held if p.requires_grad),
                never_ran_parameters=_numbers(p for p in held if id(p) in idle),
                macs=sum(trace.flops.get(part.path, 0) for part in subtree) // 2,
                own_macs=trace.flops.get(node.path, 0) // 2,
                trainable=any(p.requires_grad for p in held),
                leaf=node.leaf,
                repeats=None if repeats == node.path else repeats,
                reached=_reached(node, mine, owners_used, subtree, calls),
                dtype=", ".join(sorted({dtype_name(t) for t in [*own, *_quantized([node])]})),
            )
        )
    return tuple(rows)


def _end_of_subtree(nodes: list[Node], index: int) -> int:
    end = index + 1
    while end < len(nodes) and nodes[end].depth > nodes[index].depth:
        end += 1
    return end


def _reached(
    node: Node,
    mine: list[Call],
    owners_used: set[str],
    subtree: list[Node],
    calls: dict[str, list[Call]],
) -> Reached:
    if mine:
        return "called" if all(call.hooked for call in mine) else "forward"
    if node.path in owners_used:
        return "weights"
    below = subtree[1:]
    if any(part.path in calls or part.path in owners_used for part in below):
        return "children"
    return "never"


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _quantized(nodes: list[Node]) -> list[Tensor]:
    modules = _unique_modules(nodes)
    return [tensor for module in modules for tensor in quantized_tensors(module).values()]


def _unique_modules(nodes: list[Node]) -> list[nn.Module]:
    return list({id(node.module): node.module for node in nodes}.values())


def _tied(nodes: list[Node]) -> tuple[tuple[str, ...], ...]:
    """Names of one parameter, where different modules register it or one registers it twice.

    A whole module that stands under two paths is a repeat of that module, not a tie.
    """
    names: dict[int, list[str]] = {}
    for node in _first_visits(nodes):
        for name, parameter in own_parameters(node).items():
            names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def _first_visits(nodes: list[Node]) -> list[Node]:
    first: dict[int, Node] = {}
    for node in nodes:
        first.setdefault(id(node.module), node)
    return list(first.values())
