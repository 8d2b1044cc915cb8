"""What a node costs that runs other nodes: If, Loop, Scan, SequenceMap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reportgen.onnx.model.cost import Cost
from reportgen.onnx.model.observed import Place
from reportgen.onnx.model.protos import CONTROL_FLOW, subgraphs
from reportgen.onnx.model.shapes import Shape

Call = tuple[Shape, ...]
"""The shapes of the observed ports of a node in one of its calls."""


def cost_of_calls(
    node: Any,
    place: Place,
    calls: Mapping[Place, list[Call]],
    cost_of_call: Callable[[Any, Call], Cost],
) -> Cost:
    """The cost of what ran within `node`: each call of each node in the branches and turns taken.

    Args:
        node: the node at `place`.
        calls: the observed calls of nodes within.
        cost_of_call: of one call of a node.
    """
    total, reason = 0, ""
    for number, body in enumerate(subgraphs(node)):
        for index, inner in enumerate(body.node):
            here = (*place, number, index)
            costs = [cost_of_call(inner, call) for call in calls.get(here, ())]
            if inner.op_type in CONTROL_FLOW:
                costs.append(cost_of_calls(inner, here, calls, cost_of_call))
            total += sum(macs or 0 for macs, _ in costs)
            reason = reason or next((_inside(inner, why) for _, why in costs if why), "")
    return (None if reason and not total else total), reason


def cost_unobserved(
    node: Any,
    cost_of: Callable[[Any], Cost],
    shapes: Mapping[str, Shape],
    constants: Mapping[str, int],
) -> Cost:
    """The cost of what runs within `node` as far as the file itself says it.

    Args:
        node: of one of the types in `CONTROL_FLOW`.
        cost_of: of a node within.
        shapes: those that are known, by value name.
        constants: whole numbers and truth values that are stored, by value name.
    """
    if node.op_type == "If":
        return _cost_of_branches(node, cost_of, constants)
    body = next(subgraphs(node))
    macs, why = _total(body, cost_of)
    if why or not macs:
        return None if why else 0, why
    turns = _turns(node, shapes, constants)
    if turns is None:
        costly = sorted({each.op_type for each in body.node if cost_of(each)[0]})
        return None, f"loop trip count of {', '.join(costly)} is unknown"
    return turns * macs, ""


def cost_of_dearer_branch(node: Any, cost_of: Callable[[Any], Cost]) -> Cost:
    """The cost of an If by its more expensive branch; `cost_of` is that of a node within."""
    costs = [_total(body, cost_of) for body in subgraphs(node)]
    unknown = next((why for _, why in costs if why), "")
    return max((macs or 0 for macs, _ in costs), default=0) or (None if unknown else 0), unknown


def _cost_of_branches(
    node: Any, cost_of: Callable[[Any], Cost], constants: Mapping[str, int]
) -> Cost:
    branches = {each.name: _total(each.g, cost_of) for each in node.attribute if each.HasField("g")}
    if node.input[0] in constants:
        return branches["then_branch" if constants[node.input[0]] else "else_branch"]
    unknown = next((why for _, why in branches.values() if why), "")
    least, *_, most = sorted(macs or 0 for macs, _ in branches.values())
    if not unknown and least == most:
        return least, ""
    why = unknown or f"its branches take {least:,} and {most:,}, and which one runs is unknown"
    return least or None, why


def _total(graph: Any, cost_of: Callable[[Any], Cost]) -> Cost:
    costs = [(node, *cost_of(node)) for node in graph.node]
    total = sum(macs or 0 for _, macs, _ in costs)
    reason = next((_inside(node, why) for node, _, why in costs if why), "")
    return (None if reason and not total else total), reason


def _inside(node: Any, why: str) -> str:
    return why if why.startswith("inside, ") else f"inside, {node.op_type}: {why}"


def _turns(node: Any, shapes: Mapping[str, Shape], constants: Mapping[str, int]) -> int | None:
    if node.op_type == "Scan":
        return _length(node, shapes)
    # SequenceMap runs once per element, and no file states how long a sequence is
    if node.op_type != "Loop" or not _has_fixed_condition(node, constants):
        return None
    return constants.get(node.input[0])


def _has_fixed_condition(node: Any, constants: Mapping[str, int]) -> bool:
    """Whether only the trip count ends a loop."""
    start = len(node.input) < 2 or not node.input[1] or constants.get(node.input[1]) == 1
    body = next(subgraphs(node))
    name = body.output[0].name
    # exporters hand the condition through, mostly by an Identity
    makers = {each: made for made in body.node for each in made.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return start and (name == body.input[1].name or constants.get(name) == 1)


def _length(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    """How many steps a Scan takes: the size of its first scanned input along the scanned axis."""
    given = {attribute.name: attribute for attribute in node.attribute}
    scanned = given["num_scan_inputs"].i
    axes = given["scan_input_axes"].ints if "scan_input_axes" in given else [0]
    shape = shapes.get(node.input[len(node.input) - scanned])
    return None if shape is None else shape[axes[0]]
