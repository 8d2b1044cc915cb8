"""What an ONNX file contains: opset, stored tensors, unused, duplicate and foldable parts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reportgen.onnx.model.protos import STANDARD, all_graphs, subgraphs
from reportgen.sections.onnx.file_result import Duplicate, Inventory, StoredTensor
from reportgen.sections.onnx.inspection.graph import TensorData, all_nodes, module_path, ranked

_LARGEST = 10
_END = 1024  # bytes
_IR_WITH_CONSTANTS = 4  # from this IR version on an initializer that is an input is a default
_RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def make_inventory(
    model: Any,
    opset: int,
    stored: Sequence[TensorData],
    constants: Sequence[TensorData],
    not_read: str,
) -> Inventory:
    """What the file holds; its weights must still be in `model` unless `not_read` says why not."""
    live, dead_nodes = _live_names(model.graph)
    foldable, candidates = _foldable(model)
    readers = _first_readers(model.graph)
    sizes = Counter[str]()
    for tensor in stored:
        sizes[tensor.dtype] += tensor.bytes
    return Inventory(
        opset_release=opset_release(opset),
        opset_month=opset_month(opset),
        newest_opset=newest_opset(),
        opsets_behind=newest_opset() - opset,
        domains=ranked(Counter(_domain(node) for node in all_nodes(model))),
        local_functions=tuple(sorted(function.name for function in model.functions)),
        bytes_by_dtype=ranked(sizes),
        largest=tuple(_with_module(t, readers) for t in sorted(stored, key=_by_size)[:_LARGEST]),
        external_bytes=sum(tensor.bytes for tensor in stored if tensor.external),
        constants=len(constants),
        constant_bytes=sum(tensor.bytes for tensor in constants),
        unused=tuple(t.summary for t in sorted(stored, key=_by_size) if t.name not in live),
        dead_nodes=dead_nodes,
        duplicates=None if not_read else find_duplicates(stored),
        foldable=len(foldable),
        foldable_candidates=candidates,
        foldable_operators=ranked(Counter(node.op_type for node in foldable)),
        not_read=not_read,
    )


def _first_readers(graph: Any) -> dict[str, Any]:
    """For every name the first node of the main graph that reads it."""
    # reversed, so that the first reader overwrites later ones
    return {name: node for node in reversed(graph.node) for name in node.input}


def _with_module(tensor: TensorData, readers: Mapping[str, Any]) -> StoredTensor:
    # the exporter calls a weight that it transposed `val_17`: only the module identifies it
    reader = readers.get(tensor.name)
    return replace(tensor.summary, module="" if reader is None else module_path(reader))


def find_duplicates(stored: Iterable[TensorData]) -> tuple[Duplicate, ...]:
    """Groups of equal tensors, the most wasteful first."""
    # cheap keys first: few tensors agree in dtype, shape and ends, and only those are read whole
    groups = [[tensor for tensor in stored if tensor.bytes and not tensor.sparse]]
    for key in (_kind, _ends, _digest):
        groups = [part for group in groups for part in _split(group, key)]
    found = [_duplicate(group) for group in groups]
    return tuple(sorted(found, key=lambda one: (-one.wasted_bytes, one.names)))


def _split(group: list[TensorData], key: Callable[[TensorData], object]) -> list[list[TensorData]]:
    """The parts of two or more with the same `key`; None equals nothing."""
    parts = defaultdict[object, list[TensorData]](list)
    for tensor in group:
        found = key(tensor)
        if found is not None:
            parts[found].append(tensor)
    return [part for part in parts.values() if len(part) > 1]


def _kind(tensor: TensorData) -> tuple[str, tuple[int, ...]]:
    return tensor.dtype, tensor.shape


def _ends(tensor: TensorData) -> bytes | None:
    raw = _bytes_of(tensor)
    return None if raw is None else bytes(raw[:_END]) + bytes(raw[-_END:])


def _digest(tensor: TensorData) -> bytes | None:
    raw = _bytes_of(tensor)
    return None if raw is None else hashlib.blake2b(raw, digest_size=16).digest()


def _duplicate(group: list[TensorData]) -> Duplicate:
    first = group[0]
    values = first.values()
    uniform = values is not None and bool((values == values[0]).all())
    return Duplicate(
        names=tuple(sorted(tensor.name for tensor in group)),
        dtype=first.dtype,
        shape=first.shape,
        wasted_bytes=first.bytes * (len(group) - 1),
        uniform=uniform,
    )


def _bytes_of(tensor: TensorData) -> memoryview | bytes | None:
    raw = tensor.raw()
    if raw is not None or tensor.external:
        return raw
    if tensor.dtype == "string":  # never raw
        return b"\0".join(tensor.tensor.string_data)
    values = tensor.values()
    return None if values is None else values.tobytes()


def _live_names(graph: Any) -> tuple[set[str], int]:
    """Names that an output depends on, and the number of nodes that none depends on."""
    live = {value.name for value in graph.output}
    dead = 0
    for node in reversed(graph.node):  # a valid graph is sorted
        if not live.intersection(filter(None, node.output)):
            dead += 1
            continue
        live.update(node.input)
        for inner in (graph for body in subgraphs(node) for graph in all_graphs(body)):
            # names of the main graph are visible inside, also as results of a branch
            live.update(value.name for value in inner.output)
            live.update(name for inside in inner.node for name in inside.input)
    return live, dead


def _foldable(model: Any) -> tuple[list[Any], int]:
    """Nodes of the main graph that depend on stored values only, and how many were examined."""
    graph = model.graph
    defaults = {value.name for value in graph.input}
    known = {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    if model.ir_version >= _IR_WITH_CONSTANTS:
        known -= defaults
    found, candidates = [], 0
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            known.update(node.output)
            continue
        candidates += 1
        if _is_pure(node) and all(name in known for name in node.input if name):
            known.update(node.output)
            found.append(node)
    return found, candidates


def _is_pure(node: Any) -> bool:
    """Whether the node is deterministic; subgraphs and local functions count as not."""
    if node.domain not in STANDARD or node.op_type in _RANDOM:
        return False
    return not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _domain(node: Any) -> str:
    return node.domain if node.domain not in STANDARD else "ai.onnx"


def _by_size(tensor: TensorData) -> tuple[int, str]:
    return -tensor.bytes, tensor.name


# Month of the GitHub release that brought the set, https://github.com/onnx/onnx/releases.
# Sets 2, 3 and 4 were never part of one. A set whose month is not certain is left out.
_RELEASED = {
    1: "December 2017",
    5: "March 2018",
    7: "May 2018",
    8: "August 2018",
    9: "January 2019",
    10: "April 2019",
    11: "September 2019",
    12: "May 2020",
    13: "November 2020",
    14: "April 2021",
    15: "July 2021",
    16: "February 2022",
    17: "June 2022",
    18: "December 2022",
    19: "May 2023",
    20: "October 2023",
    21: "March 2024",
    22: "October 2024",
    23: "May 2025",
    24: "August 2025",
    25: "December 2025",
    27: "June 2026",
}


def opset_month(opset: int) -> str | None:
    """The month of the release that brought a standard operator set; None if not known."""
    return _RELEASED.get(opset)


def opset_release(opset: int) -> str | None:
    """The first ONNX version with a standard operator set: `1.13.0`; None for no such set."""
    import onnx

    found = [row[0] for row in onnx.helper.VERSION_TABLE if row[2] == opset]
    return str(found[0]) if found else None


def newest_opset() -> int:
    """The newest standard operator set that the installed onnx knows."""
    import onnx

    return int(onnx.defs.onnx_opset_version())
