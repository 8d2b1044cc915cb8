"""The autograd graph: the functions of a backward pass, from the outputs to the parameters."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from reportgen.drawing.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphMember,
    GraphNode,
    make_graph,
)
from reportgen.errors import SectionError
from reportgen.sections.graphs.modules import parameters
from reportgen.sections.graphs.trace import Call, Operation, Trace

if TYPE_CHECKING:
    from torch.autograd.graph import Node as Function

# prefixes, because torch appends a version: ViewBackward0
# fmt: off
_RELAYS = (
    "AccumulateGrad", "TBackward", "ViewBackward", "UnsafeViewBackward", "ReshapeAliasBackward",
    "TransposeBackward", "PermuteBackward", "ExpandBackward", "SqueezeBackward",
    "UnsqueezeBackward", "CloneBackward", "AliasBackward", "ToCopyBackward", "SelectBackward",
    "SliceBackward", "SplitBackward", "UnbindBackward", "AsStridedBackward", "UnsafeSplitBackward",
)
# fmt: on

_SHOWN_PARAMETERS = 3  # on one box


def full_autograd_graph(trace: Trace) -> DrawnGraph:
    """One box per autograd function, without groups.

    A parameter and the `AccumulateGrad` that adds to its gradient are one box: each has just one.

    Raises:
        SectionError: no output depends on a parameter that requires a gradient.
    """
    return _AutogradReader(trace, one_box_per_module=False).graph()


def autograd_graph(trace: Trace) -> DrawnGraph:
    """One box per innermost module, in the groups of the modules that created the nodes.

    Raises:
        SectionError: no output depends on a parameter that requires a gradient.
    """
    return _AutogradReader(trace, one_box_per_module=True).graph()


def no_gradient(trace: Trace) -> list[str]:
    """Names of parameters that require a gradient but that no output depends on."""
    reached = {id(getattr(function, "variable", None)) for function in needed_functions(trace)}
    return [name for key, name in trace.names.items() if key not in reached]


class _AutogradReader:
    def __init__(self, trace: Trace, *, one_box_per_module: bool) -> None:
        self._trace = trace
        self._one_box_per_module = one_box_per_module
        self._keys = count(1)
        self._edges: set[Edge] = set()
        self._boxes: dict[Function, int] = {}
        self._needed = needed_functions(trace)
        self._order = list(self._needed)

    def graph(self) -> DrawnGraph:
        if not self._needed:
            raise SectionError("no output depends on a parameter that requires a gradient")
        members = self._members(self._trace.root)
        known = set(self._boxes)
        rest = [f for f in self._order if f not in known]  # made by no recorded operation
        members = (*self._functions(rest, ""), *members, *self._outputs())
        self._connect()
        if not self._one_box_per_module:
            members = tuple(_nodes(members))
        root = GraphGroup(key=next(self._keys), title=self._trace.root.title, members=members)
        return make_graph(root, self._edges)

    def _members(self, call: Call) -> tuple[GraphMember, ...]:
        drawn: list[GraphMember] = []
        for member in call.members:
            if isinstance(member, Operation):
                drawn.extend(self._functions(self._needed_of([member]), member.call.path))
            elif member.is_leaf and self._one_box_per_module:
                drawn.extend(self._leaf(member))
            elif inside := self._members(member):
                drawn.append(_group(next(self._keys), member, inside))
        return tuple(drawn)

    def _needed_of(self, operations: list[Operation]) -> list[Function]:
        return [f for o in operations for f in o.functions if f in self._needed]

    def _functions(self, functions: list[Function], path: str) -> list[GraphNode]:
        drawn: list[GraphNode] = []
        for function in functions:
            key = self._boxes[function] = next(self._keys)
            if (variable := getattr(function, "variable", None)) is not None:
                name = self._trace.names.get(id(variable), "")
                drawn.append(_leaf_box(key, name, variable.shape))
                continue
            title = _title(function)
            minor = title.startswith(_RELAYS)
            drawn.append(GraphNode(key=key, kind="function", title=title, path=path, minor=minor))
        return drawn

    def _leaf(self, call: Call) -> list[GraphNode]:
        functions = self._needed_of(list(call.operations()))
        if not functions:
            return []
        key = next(self._keys)
        self._boxes.update(dict.fromkeys(functions, key))
        leaves = [f.variable for f in functions if hasattr(f, "variable")]
        titles = [_title(f) for f in functions if not hasattr(f, "variable")] or ["AccumulateGrad"]
        main_titles = [t for t in titles if not t.startswith(_RELAYS)] or titles
        alone = len(main_titles) == 1
        above = f"{call.path}."
        leaf_lines = [
            f"{self._trace.names.get(id(leaf), '?').removeprefix(above)} {_tuple(leaf.shape)}"
            for leaf in leaves
        ]
        more = (
            [f"+{len(leaf_lines) - _SHOWN_PARAMETERS} more"]
            if len(leaf_lines) > _SHOWN_PARAMETERS
            else []
        )
        return [
            GraphNode(
                key=key,
                kind="function",
                title=main_titles[0] if alone else call.title,
                name=call.name,
                path=call.path,
                lines=(
                    *(() if alone else (f"{len(titles)} functions",)),
                    *leaf_lines[:_SHOWN_PARAMETERS],
                    *more,
                ),
                holds=len(functions),
            )
        ]

    def _connect(self) -> None:
        for function, key in self._boxes.items():
            for feeding, _ in function.next_functions:
                if feeding in self._boxes and self._boxes[feeding] != key:
                    self._edges.add((self._boxes[feeding], key))

    def _outputs(self) -> list[GraphNode]:
        drawn: list[GraphNode] = []
        for output in self._trace.outputs:
            if output.function is not None:
                key = next(self._keys)
                self._edges.add((self._boxes[output.function], key))
                title, lines = output.name or "output", (_tuple(output.shape),)
                drawn.append(GraphNode(key=key, kind="output", title=title, lines=lines))
        return drawn


def needed_functions(trace: Trace) -> dict[Function, None]:
    """Every autograd node that the outputs depend on, in forward order."""
    found: dict[Function, None] = {}
    waiting: list[tuple[Function, bool]] = [
        (o.function, False) for o in reversed(trace.outputs) if o.function is not None
    ]
    while waiting:  # depth first; recursion would overflow the stack on deep models
        function, done = waiting.pop()
        if function in found:
            continue
        if done:
            found[function] = None
            continue
        waiting.append((function, True))
        feeding = [f for f, _ in function.next_functions if f is not None and f not in found]
        waiting.extend((f, False) for f in reversed(feeding))
    return found


def _nodes(members: tuple[GraphMember, ...]) -> list[GraphNode]:
    return [n for m in members for n in ([m] if isinstance(m, GraphNode) else m.nodes())]


def _leaf_box(key: int, name: str, shape: tuple[int, ...]) -> GraphNode:
    lines = (_tuple(shape),)
    return GraphNode(key=key, kind="parameter", title=name or "input", path=name, lines=lines)


def _group(key: int, call: Call, inside: tuple[GraphMember, ...]) -> GraphGroup:
    return GraphGroup(
        key=key,
        title=call.title,
        name=call.name,
        path=call.path,
        members=inside,
        parameters=parameters(call.module),
    )


def _title(function: Function) -> str:
    return type(function).__name__


def _tuple(shape: tuple[int, ...]) -> str:
    """A shape as torchviz writes it: `(16, 8)`."""
    return f"({', '.join(map(str, shape))})"
