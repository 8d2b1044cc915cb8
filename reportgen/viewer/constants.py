"""Which nodes compute constants and shapes only: most readers want to see the others."""

from __future__ import annotations

from collections import defaultdict

from reportgen.comparable import Graph, OperatorNode

_SHAPE_OF = frozenset({"Shape", "Size", "size", "shape", "numel", "dim"})  # read sizes, no values


def constant_nodes(graph: Graph) -> frozenset[int]:
    """Indexes of the operations that no value of an input or a parameter reaches.

    What reads the size of a value does not depend on the value. The nodes of a local function
    depend on its callers.
    """
    targets: dict[int, list[int]] = defaultdict(list)
    for source, target in graph.edges:
        targets[source].append(target)
    waiting = [index for index, node in enumerate(graph.nodes) if _starts(node)]
    reached: set[int] = set(waiting)
    while waiting:
        for target in targets[waiting.pop()]:
            if target not in reached and graph.nodes[target].operator not in _SHAPE_OF:
                reached.add(target)
                waiting.append(target)
    computed = [i for i, node in enumerate(graph.nodes) if node.kind in ("operation", "constant")]
    hidden = frozenset(index for index in computed if index not in reached)
    # a graph without inputs is all constant, and all that there is to see
    return hidden if len(hidden) < len(computed) else frozenset()


def _starts(node: OperatorNode) -> bool:
    """Whether its result is no constant, whatever feeds it."""
    if node.kind != "operation":
        return node.kind in ("input", "parameter", "module")
    in_function = node.body is not None and node.body.owner < 0
    return in_function or node.operator.lower().startswith("rand")
