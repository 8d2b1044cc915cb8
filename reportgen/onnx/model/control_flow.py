"""What the bodies of If, Loop and Scan cost: the dearer branch, and every turn that is sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reportgen.onnx.model.protos import bodies_of
from reportgen.onnx.model.shapes import Shape

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators that run the nodes of graphs within them."""

Cost = tuple[int | None, str]
"""Multiply-adds; None with the reason where they cannot be counted."""


def cost_inside(
    node: Any,
    cost_of: Callable[[Any], Cost],
    shapes: Mapping[str, Shape],
    constants: Mapping[str, int],
) -> Cost:
    """The cost of a node that runs others.

    Args:
        node: of one of the types in `CONTROL_FLOW`.
        cost_of: of a node within.
        shapes: those that are known, by value name.
        constants: whole numbers and truth values that are stored, by value name.
    """
    totals = [_total(body, cost_of) for body in bodies_of(node)]
    unknown = next((why for macs, why in totals if macs is None), "")
    if unknown:
        return None, f"inside, {unknown}"
    dearest = max((macs or 0 for macs, _ in totals), default=0)
    if not dearest or node.op_type == "If":
        return dearest, ""
    turns = _turns(node, shapes, constants)
    if turns is None:
        heavy = sorted({n.op_type for body in bodies_of(node) for n in body.node if cost_of(n)[0]})
        return None, f"{', '.join(heavy)} inside run a number of times that the file does not tell"
    return turns * dearest, ""


def _total(graph: Any, cost_of: Callable[[Any], Cost]) -> Cost:
    total = 0
    for node in graph.node:
        macs, why = cost_of(node)
        if macs is None:
            return None, f"of {node.op_type} {why}"
        total += macs
    return total, ""


def _turns(node: Any, shapes: Mapping[str, Shape], constants: Mapping[str, int]) -> int | None:
    if node.op_type == "Scan":
        return _length(node, shapes)
    if node.op_type != "Loop" or not _goes_on(node, constants):
        return None
    return constants.get(node.input[0])


def _goes_on(node: Any, constants: Mapping[str, int]) -> bool:
    """Whether nothing but the trip count ends a loop."""
    start = len(node.input) < 2 or not node.input[1] or constants.get(node.input[1]) == 1
    body = next(bodies_of(node))
    name = body.output[0].name
    makers = {each: made for made in body.node for each in made.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return start and (name == body.input[1].name or constants.get(name) == 1)


def _length(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    """How long what a Scan reads is, along its first axis or the one that it names."""
    given = {attribute.name: attribute for attribute in node.attribute}
    scanned = given["num_scan_inputs"].i
    axes = given["scan_input_axes"].ints if "scan_input_axes" in given else [0]
    shape = shapes.get(node.input[len(node.input) - scanned])
    return None if shape is None else shape[axes[0]]
