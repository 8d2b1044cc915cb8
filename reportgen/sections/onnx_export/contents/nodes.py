"""The nodes of a file, and the modules that the exporter says they come from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

_SCOPES = "pkg.torch.onnx.name_scopes"
_NO_MODULE = "_empty_nn_module_stack"  # what the exporter writes where it lost the module


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
    """The path of the module that a node comes from, as the exporter wrote it; "" if unknown."""
    names = _scopes(node)
    return names[-2] if len(names) >= 2 else ""


def enclosing_path(node: Any) -> str:
    """The path of the module around that one, or its own at the top; "" if unknown.

    What onnxruntime fuses (a convolution, its norm, its activation) has one such module in common.
    """
    names = _scopes(node)
    if len(names) < 2:
        return ""
    return next(filter(None, names[-3:-1]), "the model itself")


def _scopes(node: Any) -> list[str]:
    written = {entry.key: entry.value for entry in node.metadata_props}
    try:
        names = ast.literal_eval(written.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return []
    if not isinstance(names, list) or any(str(name).startswith(_NO_MODULE) for name in names):
        return []
    return [str(name) for name in names]
