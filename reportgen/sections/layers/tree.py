"""Parameter counts, and the rows of the layer table: registered modules joined with a trace."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reportgen.code_location import SourceRoot, code_location
from reportgen.pytree import modules_of
from reportgen.sections.layers.modules import (
    ModuleNode,
    count_torchscript_constants,
    describe,
    first_visits,
    groups_of,
    is_skeleton,
    is_within,
    join,
    kernel_of,
    own_parameters,
    own_tensors,
    parameters_by_name,
    quantized_tensors,
    walk,
)
from reportgen.sections.layers.pruning import count_masked, zero_share
from reportgen.sections.layers.records import module_records
from reportgen.sections.layers.result import ExecutedVia, Layer
from reportgen.sections.layers.tracing.forward import ForwardTrace
from reportgen.sections.layers.tracing.module_tracker import FailedCall, LayerCall
from reportgen.sections.layers.tracing.op_counter import FirstRead
from reportgen.tracing.tensors import dtype_name, parts_of, tensor_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Counts and bytes of the parameters and buffers of a model, each tensor once."""

    parameters: int
    by_path: int  # tied parameters counted under every name
    trainable_parameters: int
    quantized_parameters: int
    quantized_bytes: int
    buffers: int
    buffers_bytes: int
    parameter_bytes: int
    bytes_by_dtype: dict[str, int]
    tied: tuple[tuple[str, ...], ...]
    overlapping: tuple[tuple[str, ...], ...]  # distinct parameters in the same memory
    frozen: tuple[str, ...]
    masked: int  # parameters that pruning masks remove
    torchscript_constants: int  # elements of TorchScript constants, not included above


def weigh(model: nn.Module) -> Weights:
    """Count parameters and buffers, unique by identity of the tensor."""
    nodes = walk(model)
    named = parameters_by_name(nodes)
    registered = _unique(named.values())
    quantized = _quantized(nodes)
    payload = [part for p in [*registered, *quantized] for part in _packed_parts(p)]
    buffers = _unique(b for node in nodes for b in node.module._buffers.values() if b is not None)
    by_dtype: dict[str, int] = {}
    for tensor in [*registered, *quantized, *buffers]:
        for part in parts_of(tensor):
            dtype = dtype_name(part)
            by_dtype[dtype] = by_dtype.get(dtype, 0) + tensor_bytes(part)
    return Weights(
        parameters=_numbers([*registered, *quantized]),
        by_path=_numbers(named.values()) + sum(_numbers(_quantized([node])) for node in nodes),
        trainable_parameters=_numbers(p for p in registered if p.requires_grad),
        quantized_parameters=_numbers([*quantized, *filter(_packed_parts, registered)]),
        quantized_bytes=sum(map(tensor_bytes, payload)),
        buffers=_numbers(buffers),
        buffers_bytes=sum(map(tensor_bytes, buffers)),
        parameter_bytes=sum(map(tensor_bytes, [*registered, *quantized])),
        bytes_by_dtype=dict(sorted(by_dtype.items())),
        tied=_tied(nodes),
        overlapping=_overlapping(named),
        # in reverse, so that the first of several names of a tensor wins
        frozen=tuple(
            {id(p): name for name, p in reversed(named.items()) if not p.requires_grad}.values()
        )[::-1],
        masked=count_masked(modules_of(model)),
        torchscript_constants=count_torchscript_constants(model),
    )


def _packed_parts(tensor: Tensor) -> list[Tensor]:
    """The packed integers of a quantized `tensor`; empty if it is not quantized."""
    if tensor.is_quantized:
        return [tensor]
    parts = parts_of(tensor)
    if len(parts) < 2 or tensor.layout != torch.strided:  # a sparse tensor has integers as well
        return []
    return [part for part in parts if not (part.is_floating_point() or part.is_complex())]


def find_unused_parameters(model: nn.Module, trace: ForwardTrace) -> tuple[str, ...]:
    """Names of the parameters that no operator of the pass read, tied ones under each name.

    None after a failure: those that the rest of the pass would have read are unknown.
    """
    if trace.failed is not None:
        return ()
    nodes = walk(model)
    never_read = _never_read(nodes, trace)
    # placeholders for `torch.func.functional_call` are not meant to be read
    names = [name for name, p in never_read.items() if not is_skeleton(p, model)]
    return (*names, *_never_unpacked(nodes, trace))


def _never_read(nodes: list[ModuleNode], trace: ForwardTrace) -> dict[str, nn.Parameter]:
    named = parameters_by_name(nodes)
    used = {id(named[name]) for name in trace.used if name in named}
    return {name: parameter for name, parameter in named.items() if id(parameter) not in used}


def _never_unpacked(nodes: list[ModuleNode], trace: ForwardTrace) -> dict[str, Tensor]:
    # An operator receives packed weights as a TorchScript object, which is no tensor that it
    # could be seen to read: they count as used if their module was called.
    called = {call.path for call in trace.calls}
    ran = {id(node.module) for node in nodes if node.path in called}
    return {
        join(node.path, name): tensor
        for node in nodes
        if id(node.module) not in ran
        for name, tensor in quantized_tensors(node.module).items()
    }


def build_layers(
    model: nn.Module,
    trace: ForwardTrace,
    both_flops: Mapping[str, int] | None = None,
    *,
    count_zeros: bool = False,
    with_digests: bool = False,
    root: SourceRoot | None = None,
) -> tuple[Layer, ...]:
    """One row for each path, depth first in order of registration.

    `both_flops` are FLOPs of forward and backward pass by path; None if unknown. Zeros are counted
    and values hashed on request, since those of random weights mean nothing.
    `root` is the folder that paths of the user's files start from.
    """
    nodes = walk(model)
    complete = trace.failed is None
    unused = set(map(id, _never_read(nodes, trace).values())) if complete else set()
    unpacked = _never_unpacked(nodes, trace) if complete else {}
    owners_used = {name.rpartition(".")[0] for name in trace.used}
    calls: dict[str, list[LayerCall]] = {}
    for call in trace.calls:
        calls.setdefault(call.path, []).append(call)
    first_path: dict[int, str] = {}
    rows: list[Layer] = []
    records = module_records(model, with_digests=with_digests, root=root)
    for index, (node, record) in enumerate(zip(nodes, records, strict=True)):
        subtree = nodes[index : _end_of_subtree(nodes, index)]
        held = _unique(parameters_by_name(subtree).values())
        quantized = _numbers(_quantized(subtree))
        unused_packed = _numbers(_below(unpacked, subtree).values())
        own = _unique(own_parameters(node).values())
        mine = calls.get(node.path, [])
        shapes = _shapes_of(node, mine, trace)
        first = first_path.setdefault(id(node.module), node.path)
        rows.append(
            Layer(
                path=node.path,
                type=describe(node.module),
                depth=node.depth,
                calls=len(mine),
                input_shapes=shapes.inputs,
                output_shapes=shapes.outputs,
                input_keys=tuple(mine[0].inputs) if mine else (),
                output_keys=tuple(mine[0].outputs) if mine else (),
                output_bytes=sum(call.output_bytes for call in mine),
                parameters=_numbers(held) + quantized,
                own_parameters=_numbers(own) + _numbers(_quantized([node])),
                trainable_parameters=_numbers(p for p in held if p.requires_grad),
                unused_parameters=_numbers(p for p in held if id(p) in unused) + unused_packed,
                macs=_macs(trace.flops, subtree),
                own_macs=_macs(trace.flops, [node]),
                lower_bound=any(each.path in trace.uncounted_in for each in subtree),
                forward_backward_macs=None if both_flops is None else _macs(both_flops, subtree),
                own_forward_backward_macs=None if both_flops is None else _macs(both_flops, [node]),
                trainable=any(p.requires_grad for p in held),
                leaf=node.leaf,
                shared_with=None if first == node.path else first,
                executed_via=_executed_via(node, mine, owners_used, subtree, calls, trace.failed),
                dtype=_dtypes([*own, *_quantized([node])]),
                output_dtype=", ".join(mine[0].output_dtypes) if mine else "",
                kernel=kernel_of(node.module),
                groups=groups_of(node.module),
                masked_parameters=count_masked([node.module]),
                zero_share=zero_share(node.module) if count_zeros else None,
                class_name=record.type,
                attributes=dict(record.attributes),
                computed=record.computed,
                tensors=record.tensors,
                source=record.source,
                call=code_location(*trace.called_at[node.path], root)
                if node.path in trace.called_at
                else "",
            )
        )
    return tuple(rows)


def _macs(flops: Mapping[str, int], nodes: list[ModuleNode]) -> int:
    return sum(flops.get(node.path, 0) for node in nodes) // 2


def _below(packed: dict[str, Tensor], subtree: list[ModuleNode]) -> dict[str, Tensor]:
    """The `packed` weights of `subtree`, by name, each module once."""
    paths = {node.path for node in first_visits(subtree)}
    return {name: t for name, t in packed.items() if name.rpartition(".")[0] in paths}


def rows_parameters(model: nn.Module, layers: tuple[Layer, ...]) -> int:
    """The sum of the rows' own parameters, without tensors of an earlier row."""
    total = sum(layer.own_parameters for layer in layers)
    counted: set[Hashable] = set()
    for node in walk(model):
        own = own_tensors(node)
        total -= sum(tensor.numel() for key, tensor in own.items() if key in counted)
        counted.update(own)
    return total


def _dtypes(tensors: list[Tensor]) -> str:
    return ", ".join(sorted({dtype_name(part) for t in tensors for part in parts_of(t)}))


def _shapes_of(node: ModuleNode, mine: list[LayerCall], trace: ForwardTrace) -> FirstRead:
    """Shapes of the first call; if only the weights were used, those of the operator."""
    if mine:
        return FirstRead(tuple(mine[0].inputs.values()), tuple(mine[0].outputs.values()))
    if trace.failed is not None and trace.failed.path == node.path:
        return FirstRead(tuple(trace.failed.inputs.values()), ())
    return trace.seen.get(node.path, FirstRead((), ()))


def _end_of_subtree(nodes: list[ModuleNode], index: int) -> int:
    end = index + 1
    while end < len(nodes) and nodes[end].depth > nodes[index].depth:
        end += 1
    return end


def _executed_via(
    node: ModuleNode,
    mine: list[LayerCall],
    owners_used: set[str],
    subtree: list[ModuleNode],
    calls: dict[str, list[LayerCall]],
    failed: FailedCall | None,
) -> ExecutedVia:
    if failed is not None and (node.path == failed.path or is_within(failed.path, node.path)):
        return "failed"
    if mine:
        return "called" if all(call.hooked for call in mine) else "forward"
    if node.path in owners_used:
        return "weights"
    if isinstance(node.module, torch.jit.ScriptModule):
        return "compiled"
    if any(part.path in calls or part.path in owners_used for part in subtree[1:]):
        return "children"
    return "never" if failed is None else "unknown"


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    # a dict, unlike a set, keeps the order
    return list({id(tensor): tensor for tensor in tensors}.values())


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _quantized(nodes: list[ModuleNode]) -> list[Tensor]:
    modules = [node.module for node in first_visits(nodes)]
    return [tensor for module in modules for tensor in quantized_tensors(module).values()]


def _tied(nodes: list[ModuleNode]) -> tuple[tuple[str, ...], ...]:
    """Groups of names of one parameter that several modules, or one module twice, register.

    One module at two paths is a shared module, not a tie.
    """
    names: dict[int, list[str]] = {}
    for node in first_visits(nodes):
        for name, parameter in own_parameters(node).items():
            names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def _overlapping(named: dict[str, nn.Parameter]) -> tuple[tuple[str, ...], ...]:
    """Groups of names of distinct parameters with the same data pointer."""
    names: dict[tuple[torch.device, int], dict[int, str]] = {}
    for name, parameter in named.items():
        # subclasses and sparse tensors may have no data pointer
        if type(parameter) is nn.Parameter and parameter.layout == torch.strided:
            address = parameter.data_ptr() if parameter.device.type != "meta" else 0
            if address:  # 0 for empty tensors
                together = names.setdefault((parameter.device, address), {})
                together.setdefault(id(parameter), name)
    return tuple(tuple(group.values()) for group in names.values() if len(group) > 1)
