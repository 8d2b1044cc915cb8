"""The form of a graph in report.json: what many nodes have in common is stored once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from reportgen.comparable import Graph, NodeBody, OperatorNode


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeDescription:
    """What nodes have in common; the fields are those of `OperatorNode`."""

    operator: str
    kind: str
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredGraph:
    """A complete graph: nothing is merged or left out.

    Attributes:
        name: `modules`, `autograd` or `onnx`.
        attributes: of the whole graph: `{"opset": 20}`.
        modules: paths of modules.
        descriptions: of nodes.
        nodes: in execution order: id, index into `modules`, index into `descriptions`.
        edges: indexes into `nodes`, producer and consumer by turns: flat lists stand on one line.
        figures: one of each node by name, such as `macs`; None where it is unknown.
        bodies: of nodes that another node runs: index, index of that node, name of the graph.
    """

    name: str
    attributes: Mapping[str, JsonValue]
    modules: tuple[str, ...]
    descriptions: tuple[NodeDescription, ...]
    nodes: tuple[tuple[str, int, int], ...]
    edges: tuple[int, ...]
    bodies: tuple[tuple[int, int, str], ...] = ()
    figures: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def pack_graph(graph: Graph) -> StoredGraph:
    """The compact form of `graph`."""
    modules: dict[str, int] = {}
    places: dict[str, int] = {}  # text of a description -> its index
    descriptions: list[NodeDescription] = []
    nodes: list[tuple[str, int, int]] = []
    for node in graph.nodes:
        # attributes are lists and numbers, which have no hash
        key = json.dumps([node.operator, node.kind, dict(node.attributes), node.outputs])
        if places.setdefault(key, len(descriptions)) == len(descriptions):
            descriptions.append(
                NodeDescription(
                    operator=node.operator,
                    kind=node.kind,
                    attributes=node.attributes,
                    outputs=node.outputs,
                )
            )
        module = modules.setdefault(node.module, len(modules))
        nodes.append((node.id, module, places[key]))
    return StoredGraph(
        name=graph.name,
        attributes=graph.attributes,
        modules=tuple(modules),
        descriptions=tuple(descriptions),
        nodes=tuple(nodes),
        edges=tuple(index for edge in graph.edges for index in edge),
        bodies=tuple(
            (index, node.body.owner, node.body.name)
            for index, node in enumerate(graph.nodes)
            if node.body is not None
        ),
        figures=graph.figures,
    )


def unpack_graph(stored: StoredGraph) -> Graph:
    """The graph that `pack_graph` packed."""
    bodies = {i: NodeBody(owner=owner, name=name) for i, owner, name in stored.bodies}
    return Graph(
        name=stored.name,
        attributes=stored.attributes,
        nodes=tuple(
            _node(id_, stored.modules[module], stored.descriptions[description], bodies.get(index))
            for index, (id_, module, description) in enumerate(stored.nodes)
        ),
        edges=tuple(zip(stored.edges[::2], stored.edges[1::2], strict=True)),
        figures=stored.figures,
    )


def _node(
    id_: str, module: str, description: NodeDescription, body: NodeBody | None
) -> OperatorNode:
    return OperatorNode(
        id=id_,
        operator=description.operator,
        kind=description.kind,
        module=module,
        attributes=description.attributes,
        outputs=description.outputs,
        body=body,
    )
