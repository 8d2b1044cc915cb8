"""The module that each node of an ONNX file belongs to, those that a quantizer added too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import all_graphs

_SCALING = frozenset({"Cast", "Mul", "Add"})  # from integers back to floats


def modules_of(graph: Any) -> list[str]:
    """The module of each node of an `onnx.GraphProto`; "" for the model itself.

    Quantizers and optimizers write nodes of no origin among others. Such a node belongs to the
    module whose weight it reads (`layers.0.fc` for `layers.0.fc.weight_quantized`), as does what
    scales the result back; else to the innermost module around the nodes that read its result,
    else around those that it reads.
    """
    origins = [origin_of(node) for node in graph.node]
    found: list[str | None] = [each.module if each.modules else None for each in origins]
    known = {path for each in origins for path in each.modules}
    if len(known) < 2:  # names of nodes say nothing
        return [module or "" for module in found]
    stored = {tensor.name for tensor in graph.initializer}
    makers = {name: n for n, node in enumerate(graph.node) for name in node.output if name}
    readers: dict[int, list[int]] = defaultdict(list)
    sources: list[list[int]] = []
    owned: set[int] = set()
    for n, node in enumerate(graph.node):
        sources.append([makers[name] for name in node.input if name in makers])
        for source in sources[-1]:
            readers[source].append(n)
        if found[n] is None:
            scaled = [found[s] for s in sources[-1] if s in owned and node.op_type in _SCALING]
            weights = [name for name in node.input if name in stored]
            found[n] = scaled[0] if scaled else _owner(weights, known)
            if found[n] is not None:
                owned.add(n)
    for n in reversed(range(len(found))):
        if found[n] is None:
            found[n] = _around(found[reader] for reader in readers[n])
    for n, before in enumerate(sources):
        if found[n] is None:
            found[n] = _around(found[source] for source in before)
    return [module or "" for module in found]


def module_classes(graph: Any) -> dict[str, str]:
    """Class names of modules by path, those that the exporter recorded; "" for unknown ones."""
    found: dict[str, str] = {}
    for each in all_graphs(graph):
        for node in each.node:
            origin = origin_of(node)
            found |= dict(zip(origin.modules, origin.classes, strict=True))
    return {path: name.rpartition(".")[2] for path, name in found.items() if path}


def _owner(weights: Sequence[str], known: set[str]) -> str | None:
    """The module of a weight, which may have no node of its own any more."""
    for name in weights:
        module = name.rpartition(".")[0]
        above = module.rpartition(".")[0]
        if module and (module in known or above in known - {""}):
            return module
    return None


def _around(modules: Iterable[str | None]) -> str | None:
    """The innermost module around all of them, as far as they are known."""
    paths = [module.split(".") for module in modules if module is not None]
    if not paths:
        return None
    parts = zip(*paths, strict=False)
    return ".".join(part for part, *_ in takewhile(lambda same: len(set(same)) == 1, parts))
