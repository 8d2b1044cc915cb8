"""The module graph as rules read it: what feeds what, past functions that only move a tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from reportgen.comparable import OperatorNode
from reportgen.sections.graphs.complete.stored import unpack_graph
from reportgen.sections.graphs.result import Graphs
from reportgen.sections.graphs.roles import ModuleRole, Role

UNCHANGED = frozenset({"identity", "contiguous", "clone", "to", "float", "type_as", "alias_copy"})
"""Functions whose result has the shape and the values of their argument."""
RESHAPED = frozenset({"flatten", "reshape", "view", "unsqueeze", "squeeze", "unflatten"})
"""Functions that keep the order of the elements."""
PERMUTED = frozenset({"transpose", "permute", "movedim", "swapaxes", "mT"})
"""Functions that change the order of the dims."""

_ROLE_OF_FUNCTION: dict[str, Role] = {
    "linear": "linear",
    "conv1d": "convolution",
    "conv2d": "convolution",
    "conv3d": "convolution",
    "batch_norm": "batch norm",
    "instance_norm": "instance norm",
    "layer_norm": "norm",
    "group_norm": "norm",
    "rms_norm": "norm",
    "relu": "rectifier",
    "relu6": "rectifier",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """The nodes of the module graph with their neighbors."""

    nodes: tuple[OperatorNode, ...]
    roles: dict[str, ModuleRole]  # by path
    sources: dict[int, list[int]] = field(default_factory=dict)
    targets: dict[int, list[int]] = field(default_factory=dict)

    def role(self, index: int) -> Role | None:
        """The role of a node; None if rules do not ask about it."""
        node = self.nodes[index]
        if node.kind == "module":
            found = self.roles.get(node.module)
            return found.role if found else None
        return _ROLE_OF_FUNCTION.get(node.operator) if node.kind == "operation" else None

    def module(self, index: int) -> ModuleRole | None:
        """The module that the node is, or that called the node's function itself."""
        return self.roles.get(self.nodes[index].module)

    def with_role(self, *roles: Role) -> Iterator[int]:
        """All nodes with one of `roles`, in execution order."""
        return (index for index in range(len(self.nodes)) if self.role(index) in roles)

    def only_target(self, index: int, past: Collection[str] = UNCHANGED) -> int | None:
        """The one node that uses the result of `index`, past functions in `past`; else None."""
        while len(targets := self.targets.get(index, [])) == 1:
            index = targets[0]
            node = self.nodes[index]
            is_relay = node.operator in past and node.kind == "operation"
            if not is_relay and self.role(index) != "identity":
                return index
            # a relay with two sources, such as type_as, may merge two paths
            if len(self.sources.get(index, ())) > 1:
                return None
        return None

    def place(self, index: int) -> str:
        """Path of the module that the node belongs to."""
        return self.nodes[index].module


def flow_of(result: Graphs) -> Flow:
    """The module graph of `result`; without nodes if the model was not traced."""
    stored = next((graph for graph in result.complete if graph.name == "modules"), None)
    graph = unpack_graph(stored) if stored else None
    flow = Flow(
        nodes=graph.nodes if graph else (), roles={role.path: role for role in result.roles}
    )
    for source, target in graph.edges if graph else ():
        flow.sources.setdefault(target, []).append(source)
        flow.targets.setdefault(source, []).append(target)
    return flow
