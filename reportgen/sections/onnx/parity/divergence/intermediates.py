"""Intermediate values of a file, matched with the outputs of the model's modules."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.runtime import Runtime
from reportgen.sections.onnx.parity.recorders import ModuleCall

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.onnx.runtime import Array, Feed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileNode:
    """A node of the main graph.

    Attributes:
        place: its position in the file.
        modules: paths of the modules around it, the model itself ("") first.
        operation: the operation of PyTorch that it belongs to, by name in the traced graph.
        torch_operator: which operator of PyTorch that is: `aten.linear.default`.
    """

    place: int
    proto: Any
    modules: tuple[str, ...]
    operation: str
    torch_operator: str

    @property
    def label(self) -> str:
        """Type and name: `MatMul node_MatMul_3`."""
        return f"{self.proto.op_type} {self.proto.name}".strip()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileGraph:
    """The main graph of a file; external weights are not loaded.

    Attributes:
        nodes: in the order of the file.
        maker: the node that computes a value, by the value's name.
        readers: the nodes that read a value.
        outputs: the names of the graph's outputs.
        initializers: the names of the stored tensors.
    """

    path: Path
    model: Any
    nodes: tuple[FileNode, ...]
    maker: dict[str, FileNode]
    readers: dict[str, list[FileNode]]
    outputs: tuple[str, ...]
    initializers: frozenset[str]

    def values_read_outside(self, nodes: Iterable[FileNode]) -> list[str]:
        """The outputs of these nodes that other nodes read or that are outputs of the graph."""
        inner = list(nodes)
        places = {node.place for node in inner}
        return [
            name
            for node in inner
            for name in node.proto.output
            if name
            and (
                name in self.outputs
                or any(reader.place not in places for reader in self.readers.get(name, []))
            )
        ]

    def contiguous_nodes(self, module: str) -> list[list[FileNode]]:
        """The nodes of a module in contiguous groups: mostly one for each call."""
        rows: list[list[FileNode]] = []
        before: int | None = None
        for node in self.nodes:
            if module not in node.modules or node.proto.op_type == "Constant":
                continue
            if before is not None and self._is_next(before, node.place):
                rows[-1].append(node)
            else:
                rows.append([node])
            before = node.place
        return rows

    def _is_next(self, before: int, place: int) -> bool:
        # constants may stand between the nodes of one call
        between = self.nodes[before + 1 : place]
        return all(node.proto.op_type == "Constant" for node in between)

    def run(self, feed: Feed, names: Iterable[str]) -> dict[str, Array]:
        """The values of these names on `feed`, computed node by node without optimization.

        Raises:
            OnnxRuntimeError: onnxruntime cannot load the file with these outputs.
        """
        import onnx

        wanted = list(dict.fromkeys((*self.outputs, *names)))
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        shown = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in wanted if name not in shown
        )
        with tempfile.NamedTemporaryFile(
            prefix=".file_graph-", suffix=".onnx", dir=self.path.parent
        ) as file:  # beside the file, since its weights may lie there
            file.write(model.SerializeToString())
            file.flush()
            values = Runtime(Path(file.name), optimization="none").run(feed)
        return dict(zip(wanted, values, strict=True))

    def initializer(self, name: str) -> Array | None:
        """A stored tensor, read from the file; None if there is none of this name."""
        import onnx

        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                array: Array = onnx.numpy_helper.to_array(tensor, str(self.path.parent))
                return array
        return None


def load_file_graph(path: Path) -> FileGraph:
    """The graph of a file, without external weights."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    nodes = tuple(_node(place, proto) for place, proto in enumerate(model.graph.node))
    readers: dict[str, list[FileNode]] = {}
    for node in nodes:
        for name in read_values(node.proto):
            readers.setdefault(name, []).append(node)
    return FileGraph(
        path=path,
        model=model,
        nodes=nodes,
        maker={name: node for node in nodes for name in node.proto.output if name},
        readers=readers,
        outputs=tuple(value.name for value in model.graph.output),
        initializers=frozenset(tensor.name for tensor in model.graph.initializer),
    )


def read_values(proto: Any) -> Iterator[str]:
    """The values that a node reads, including what its subgraphs read from outside."""
    yield from (name for name in proto.input if name)
    for attribute in proto.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for node in graph.node:
                yield from read_values(node)


def _node(place: int, proto: Any) -> FileNode:
    origin = origin_of(proto)
    return FileNode(
        place=place,
        proto=proto,
        modules=origin.modules or ("",),
        operation=origin.operation,
        torch_operator=origin.torch_operator,
    )


Judge = Callable[["Tensor", "Tensor"], tuple[bool, float]]
"""Whether two tensors agree, and the error as a multiple of what the tolerance allows."""

_SAMPLE = 256  # elements
_FAR = 0.1  # of the element plus the typical one
_MOST = 0.5  # of the elements


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Match:
    """A value of the file that is an output of a module.

    Attributes:
        call: the call of the module; `reference` is PyTorch's output.
        excess: the largest error as a multiple of what the tolerance allows there.
    """

    value: str
    call: ModuleCall
    reference: Tensor
    found: Tensor
    agrees: bool
    excess: float


def match_modules(
    file_graph: FileGraph, calls: list[ModuleCall], feed: Feed, judge: Judge
) -> dict[str, Match]:
    """Every value that is the output of one of these calls, by its name.

    A value that is the output of a module and of the one around it belongs to the inner one.
    """
    pairs = list(_pairs(file_graph, calls))
    values = values_of(file_graph, feed, [name for names, _ in pairs for name in names])
    matches: dict[str, Match] = {}
    for names, call in pairs:  # an inner module's call ends before that of the outer one
        for reference in call.tensors:
            match = _match(names, call, reference, values, judge)
            if match is not None:
                matches.setdefault(match.value, match)
    return {name: _reconsidered(match, calls, judge) for name, match in matches.items()}


def values_of(file_graph: FileGraph, feed: Feed, names: Collection[str]) -> dict[str, Tensor]:
    """What the file computes for these names, without optimization."""
    import torch

    found = file_graph.run(feed, names) if names else {}
    return {name: torch.from_numpy(array) for name, array in found.items() if _is_numeric(array)}


def upstream(file_graph: FileGraph, end: str, agreeing: Collection[str]) -> list[str]:
    """The values from which `end` is computed, itself first, back to those that agree."""
    found, open_ = {end: None}, [end]
    while open_:
        for name in _read_for(file_graph, open_.pop()):
            if name in file_graph.maker and name not in found and name not in agreeing:
                found[name] = None
                open_.append(name)
    return list(found)


def agreeing_inputs(file_graph: FileGraph, end: str, matches: dict[str, Match]) -> list[Match]:
    """The agreeing outputs of modules from which `end` is computed."""
    agreeing = {name for name, match in matches.items() if match.agrees}
    region = upstream(file_graph, end, agreeing)
    read = {name for value in region for name in _read_for(file_graph, value)}
    return [matches[name] for name in sorted(read & agreeing)]


def _read_for(file_graph: FileGraph, value: str) -> Iterator[str]:
    node = file_graph.maker.get(value)
    return read_values(node.proto) if node else iter(())


def _pairs(
    file_graph: FileGraph, calls: list[ModuleCall]
) -> Iterator[tuple[list[str], ModuleCall]]:
    """Each call with the values that leave its nodes, if its nodes can be identified."""
    by_path: dict[str, list[ModuleCall]] = {}
    for call in calls:
        by_path.setdefault(call.path, []).append(call)
    rows = {path: file_graph.contiguous_nodes(path) for path in by_path}
    done: dict[str, int] = {}
    for call in calls:
        number = done[call.path] = done.get(call.path, -1) + 1
        nodes = _nodes_of_call(rows[call.path], number, len(by_path[call.path]))
        if nodes:
            yield file_graph.values_read_outside(nodes), call


def _nodes_of_call(rows: list[list[FileNode]], number: int, calls: int) -> list[FileNode]:
    if len(rows) == calls:
        return rows[number]
    # calls in direct succession form one group, which ends with the last call
    return rows[0] if len(rows) == 1 and number == calls - 1 else []


def _match(
    names: list[str],
    call: ModuleCall,
    reference: Tensor,
    values: dict[str, Tensor],
    judge: Judge,
) -> Match | None:
    """The value that is this output: one that agrees, else the last of the same shape."""
    found: Match | None = None
    for name in names:
        value = values.get(name)
        if value is None or value.shape != reference.shape:
            continue
        agrees, excess = judge(reference, value)
        found = Match(
            value=name,
            call=call,
            reference=reference,
            found=value,
            agrees=agrees,
            excess=excess,
        )
        if agrees:
            break
    return found


def _reconsidered(match: Match, calls: list[ModuleCall], judge: Judge) -> Match:
    """The match with any other module's output, if that agrees."""
    if match.agrees:
        return match
    # a convolution with a batch norm folded into it computes the latter's output
    for reference in (tensor for call in calls for tensor in call.tensors):
        if may_agree(reference, match.found):
            agrees, excess = judge(reference, match.found)
            if agrees:
                return replace(match, reference=reference, agrees=True, excess=excess)
    return match


def may_agree(reference: Tensor, found: Tensor) -> bool:
    """Whether most of a sample of elements are close: a cheap check before a full comparison."""
    if reference.shape != found.shape or reference.numel() == 0:
        return reference.shape == found.shape
    step = max(1, reference.numel() // _SAMPLE)
    a, b = (tensor.detach().reshape(-1)[::step].double() for tensor in (reference, found))
    near = (a - b).abs() <= _FAR * (a.abs() + a.abs().nanmedian())
    return bool((near | ~(a.isfinite() & b.isfinite())).double().mean() > _MOST)


def _is_numeric(array: Any) -> bool:
    return getattr(array, "dtype", None) is not None and array.dtype.kind in "fiub"
