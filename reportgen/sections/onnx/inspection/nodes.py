"""The nodes of a file, and the modules that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reportgen.onnx.model.origin import origin_of


def all_nodes(model: Any) -> Iterator[Any]:
    """Every node of the file, those in branches, loop bodies and local functions included."""
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)


def module_path(node: Any) -> str:
    """The path of the module that a node comes from; "" for the model itself, and if unknown."""
    return origin_of(node).module


def enclosing_path(node: Any) -> str:
    """The path of the module around that one, or its own at the top; "" if unknown.

    What onnxruntime fuses (a convolution, its norm, its activation) has one such module in common.
    """
    modules = origin_of(node).modules
    return next(filter(None, modules[-2:]), "the model itself") if modules else ""
