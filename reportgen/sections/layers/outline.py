"""A flat list of layers as the tree it is, equal neighbors drawn once as `×12`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from reportgen.sections.layers.result import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A layer, the number of equal neighbors that it stands for, and its children."""

    layer: Layer
    times: int = 1
    last: str  # path of the last of the equal neighbors; the layer's own if `times` is 1
    depth: int
    children: tuple[Branch, ...]
    hidden: int = 0  # layers below that `pruned` left out

    @property
    def name(self) -> str:
        """The last part of the path: `conv1`, or `0 … 11` for a row of equal layers."""
        first, last = _tail(self.layer.path), _tail(self.last)
        return first if self.times == 1 else f"{first} … {last}"


@dataclass(slots=True)
class _Node:
    layer: Layer
    children: list[_Node] = field(default_factory=list)


def outline(layers: Sequence[Layer]) -> tuple[Branch, ...]:
    """The tree of `layers` (depth first); neighbors with equal figures are one branch."""
    top: list[_Node] = []
    path: list[_Node] = []
    for layer in layers:
        node = _Node(layer)
        while path and path[-1].layer.depth >= layer.depth:
            path.pop()
        (path[-1].children if path else top).append(node)
        path.append(node)
    return _grouped(top, 0)


def rows(branches: Sequence[Branch]) -> Iterator[Branch]:
    """Every branch, depth first: the tree as the rows of a table."""
    for branch in branches:
        yield branch
        yield from rows(branch.children)


def pruned(branches: Sequence[Branch], most: int) -> tuple[Branch, ...]:
    """`branches` cut at the greatest depth that leaves at most `most` rows, the top always."""
    deepest = max((branch.depth for branch in rows(branches)), default=0)
    for depth in range(deepest, 0, -1):
        if sum(1 for branch in rows(branches) if branch.depth <= depth) <= most:
            return _cut(branches, depth)
    return _cut(branches, 0)


def _cut(branches: Sequence[Branch], depth: int) -> tuple[Branch, ...]:
    return tuple(
        replace(
            branch,
            children=_cut(branch.children, depth) if branch.depth < depth else (),
            hidden=0 if branch.depth < depth else sum(1 for _ in rows(branch.children)),
        )
        for branch in branches
    )


def _grouped(nodes: Sequence[_Node], depth: int) -> tuple[Branch, ...]:
    branches: list[Branch] = []
    last_figures: object = None
    for node in nodes:
        figures = _figures(node)
        if branches and figures == last_figures:
            before = branches[-1]
            branches[-1] = replace(before, times=before.times + 1, last=node.layer.path)
        else:
            branches.append(
                Branch(
                    layer=node.layer,
                    last=node.layer.path,
                    depth=depth,
                    children=_grouped(node.children, depth + 1),
                )
            )
        last_figures = figures
    return tuple(branches)


def _figures(node: _Node) -> object:
    """What must be equal for two neighbors to share a branch: all figures, without the paths."""
    layer = node.layer
    return (
        layer.type,
        layer.calls,
        layer.input_shapes,
        layer.output_shapes,
        layer.parameters,
        layer.own_parameters,
        layer.macs,
        layer.lower_bound,
        layer.forward_backward_macs,
        layer.trainable,
        layer.shared_with,
        tuple((_tail(child.layer.path), _figures(child)) for child in node.children),
    )


def _tail(path: str) -> str:
    return path.rpartition(".")[2]
