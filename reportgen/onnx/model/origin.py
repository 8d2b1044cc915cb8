"""The origin of a node: the modules around it, and the PyTorch operation."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
CLASSES = "pkg.torch.onnx.class_hierarchy"
"""The metadata in which torch's exporter records it, by names and by classes."""

_NO_MODULE = "_empty_nn_module_stack"  # what the exporter writes where it lost the module


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a file says of a node's origin.

    Attributes:
        modules: paths of the modules around it, the model itself ("") first; () where unknown.
        classes: the classes of these modules, in the same order; "" where unknown.
        operation: the operation of PyTorch that it belongs to, by name in the traced graph.
        torch_operator: which operator of PyTorch that is: `aten.linear.default`.
    """

    modules: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    operation: str = ""
    torch_operator: str = ""

    @property
    def module(self) -> str:
        """The path of the innermost module; "" for the model itself, and where it is unknown."""
        return self.modules[-1] if self.modules else ""


def origin_of(node: Any) -> Origin:
    """The origin of a NodeProto.

    The dynamo exporter writes it into the node's metadata, the older one into its name
    (`/encoder/layer.0/layer.0.1/MatMul`); other exporters use names of that form too.
    """
    written = {entry.key: entry.value for entry in node.metadata_props}
    if NAME_SCOPES not in written:
        return _of_name(str(node.name))
    names, classes = (_listed(written.get(key, "[]")) for key in (NAME_SCOPES, CLASSES))
    if not names:
        return Origin()
    operation, operator = names[-1], classes[-1] if classes else ""
    if any(name.startswith(_NO_MODULE) for name in names):  # it stands where a path should
        return Origin(operation=operation, torch_operator=operator)
    modules = tuple(names[:-1])
    return Origin(
        modules=modules,
        classes=tuple(classes[:-1]) if len(classes) == len(names) else ("",) * len(modules),
        operation=operation,
        torch_operator=operator,
    )


def _of_name(name: str) -> Origin:
    if "/" not in name:
        return Origin()
    modules = ("", *_paths(filter(None, name.split("/")[:-1])))
    return Origin(modules=modules, classes=("",) * len(modules))


def _paths(parts: Iterable[str]) -> Iterator[str]:
    """The whole path at each part."""
    path, before = "", ""
    for part in parts:
        # the older exporter repeats the path within containers: /layer.0/layer.0.1 is layer.0.1
        own = part.removeprefix(f"{before}.") if before else part
        path, before = f"{path}.{own}" if path else own, part
        yield path


def _listed(text: str) -> list[str]:
    try:  # the exporter writes a Python list; a file may contain anything
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return []
    return [str(part) for part in found] if isinstance(found, list | tuple) else []
