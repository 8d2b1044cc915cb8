"""The graph of a file from inside: which node makes what, for which module, with what values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.runtime import Runtime

if TYPE_CHECKING:
    from reportgen.onnx.runtime import Array, Feed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Node:
    """A node of the main graph.

    Attributes:
        place: its number in the file.
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
    def told(self) -> str:
        """The node for a reader: `MatMul node_MatMul_3`."""
        return f"{self.proto.op_type} {self.proto.name}".strip()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inside:
    """The main graph of a file, its weights left where they are.

    Attributes:
        nodes: in the order of the file.
        maker: the node that makes a value, by the value's name.
        readers: the nodes that read a value.
        outputs: the names of the graph's outputs.
        initializers: the names of the stored tensors.
    """

    path: Path
    model: Any
    nodes: tuple[Node, ...]
    maker: dict[str, Node]
    readers: dict[str, list[Node]]
    outputs: tuple[str, ...]
    initializers: frozenset[str]

    def leaving(self, nodes: Iterable[Node]) -> list[str]:
        """The values made by these nodes that others read or the graph gives, in order."""
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

    def runs_of(self, module: str) -> list[list[Node]]:
        """The nodes of a module in unbroken rows: mostly one for each call."""
        rows: list[list[Node]] = []
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
        between = self.nodes[before + 1 : place]
        return all(node.proto.op_type == "Constant" for node in between)

    def run(self, feed: Feed, names: Iterable[str]) -> dict[str, Array]:
        """The values of these names on `feed`, computed node by node without optimization.

        Raises:
            CannotRunError: onnxruntime cannot load the file so.
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
            prefix=".inside-", suffix=".onnx", dir=self.path.parent
        ) as file:  # beside the file, since its weights may lie there
            file.write(model.SerializeToString())
            file.flush()
            values = Runtime(Path(file.name), optimization="none").run(feed)
        return dict(zip(wanted, values, strict=True))

    def initializer(self, name: str) -> Array | None:
        """A stored tensor, read from the file; None if there is no such."""
        import onnx

        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                array: Array = onnx.numpy_helper.to_array(tensor, str(self.path.parent))
                return array
        return None


def look_inside(path: Path) -> Inside:
    """The graph of a file; weights of their own file stay there."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    nodes = tuple(_node(place, proto) for place, proto in enumerate(model.graph.node))
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in read_values(node.proto):
            readers.setdefault(name, []).append(node)
    return Inside(
        path=path,
        model=model,
        nodes=nodes,
        maker={name: node for node in nodes for name in node.proto.output if name},
        readers=readers,
        outputs=tuple(value.name for value in model.graph.output),
        initializers=frozenset(tensor.name for tensor in model.graph.initializer),
    )


def read_values(proto: Any) -> Iterator[str]:
    """The values that a node reads, those that its branches take from outside included."""
    yield from (name for name in proto.input if name)
    for attribute in proto.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for node in graph.node:
                yield from read_values(node)


def _node(place: int, proto: Any) -> Node:
    origin = origin_of(proto)
    return Node(
        place=place,
        proto=proto,
        modules=origin.modules or ("",),
        operation=origin.operation,
        torch_operator=origin.torch_operator,
    )
