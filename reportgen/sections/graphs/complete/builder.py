"""Collects the nodes and edges of a graph, and gives each node an id that survives renaming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import JsonValue

from reportgen.comparable import Graph, OperatorNode


def shape_text(sizes: Iterable[int | str]) -> str:
    """`batch×64×56×56`; `scalar` for no sizes."""
    return "×".join(map(str, sizes)) or "scalar"


_COMMON = "float32"  # the dtype that needs no mention


def value_text(dtype: str, sizes: Iterable[int | str]) -> str:
    """`float16 batch×64`; the dtype is left out if it is float32."""
    shape = shape_text(sizes)
    return shape if dtype == _COMMON else f"{dtype} {shape}"


class GraphBuilder:
    """Nodes in execution order.

    An id is the path of a module, or `path/operator`; the second node with the same one gets `#2`.
    """

    # names of values, such as relu_17, change with every earlier node; ids must not

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[OperatorNode] = []
        self._edges: dict[tuple[int, int], None] = {}
        self._taken: Counter[str] = Counter()

    def add(self, id_: str, operator: str, kind: str, **fields: Any) -> int:
        """Append a node; returns its index."""
        self._taken[id_] += 1
        number = self._taken[id_]
        unique = id_ if number == 1 else f"{id_}#{number}"
        self._nodes.append(OperatorNode(id=unique, operator=operator, kind=kind, **fields))
        return len(self._nodes) - 1

    def add_operation(self, module: str, operator: str, **fields: Any) -> int:
        """Append an operation that belongs to the module at path `module`."""
        return self.add(f"{module}/{operator}", operator, "operation", module=module, **fields)

    def connect(self, sources: Iterable[int], target: int) -> None:
        """Edges from `sources` to `target`, each once."""
        self._edges.update({(source, target): None for source in sources if source != target})

    def graph(
        self,
        attributes: Mapping[str, JsonValue] | None = None,
        figures: Mapping[str, Mapping[int, int]] | None = None,
    ) -> Graph:
        """Everything that was added; `figures` by name and index of the node."""
        indexes = range(len(self._nodes))
        return Graph(
            name=self._name,
            nodes=tuple(self._nodes),
            edges=tuple(sorted(self._edges)),
            attributes=attributes or {},
            figures={
                name: tuple(map(values.get, indexes)) for name, values in (figures or {}).items()
            },
        )
