"""What one ONNX node costs in multiply-adds: own formulas from the operators' specifications.

The convention is that of the `layers` section: products of two operands count, biases and
whatever does a bounded number of operations per element do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from reportgen.onnx.model.protos import subgraphs
from reportgen.onnx.model.shapes import Shape

Attributes = Mapping[str, Any]
Formula = Callable[[list[Shape], list[Shape], Attributes], int]
"""From the shapes of the inputs, those of the outputs, and the attributes to multiply-adds."""

UNCOUNTED = frozenset({"DFT", "STFT", "Det"})
"""Standard operators that multiply and for which there is no formula here."""

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def formula_of(operator: str) -> Formula | None:
    """The formula for an operator, `com.microsoft.` before those of onnxruntime's own domain."""
    return _FORMULAS.get(operator)


def _convolution(inputs: list[Shape], outputs: list[Shape], _: Attributes) -> int:
    """Every output element sums over the input channels of its group and the kernel."""
    return math.prod(outputs[0]) * math.prod(inputs[1][1:])


def _quantized_convolution(inputs: list[Shape], outputs: list[Shape], _: Attributes) -> int:
    # x, its scale and zero point come before the weight
    return math.prod(outputs[0]) * math.prod(inputs[3][1:])


def _transposed_convolution(inputs: list[Shape], _: list[Shape], __: Attributes) -> int:
    """Every input element is spread over the output channels of its group and the kernel."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _product(inputs: list[Shape], outputs: list[Shape], _: Attributes) -> int:
    return math.prod(outputs[0]) * inputs[0][-1]


def _transposable_product(inputs: list[Shape], outputs: list[Shape], given: Attributes) -> int:
    return math.prod(outputs[0]) * inputs[0][-2 if given.get("transA") else -1]


def _einsum(inputs: list[Shape], _: list[Shape], given: Attributes) -> int:
    """The product of all label sizes, for two operands."""
    left = str(given["equation"]).replace(" ", "").partition("->")[0].split(",")
    if len(left) == 1:  # a transpose or a sum
        return 0
    if len(left) != 2:
        raise ValueError("the contraction order of more than two operands is not specified")
    sizes: dict[str, int] = {}
    for labels, shape in zip(left, inputs, strict=True):
        head, dots, tail = labels.partition("...")
        sizes |= zip(head, shape, strict=False)
        sizes |= zip(reversed(tail), reversed(shape), strict=False)
        if dots:
            # what `...` stands for broadcasts, aligned at its last axis
            middle = shape[len(head) : len(shape) - len(tail)]
            for index, size in enumerate(reversed(middle)):
                key = f"...{index}"
                sizes[key] = max(size, sizes.get(key, 1))
    return math.prod(sizes.values())


def _recurrent(gates: int) -> Formula:
    def count(inputs: list[Shape], _: list[Shape], __: Attributes) -> int:
        """X is [steps, batch, features], W [directions, gates * hidden, features]."""
        steps, batch, features = inputs[0]
        directions, hidden = inputs[1][0], inputs[2][-1]  # R: [directions, gates * hidden, hidden]
        return steps * batch * directions * gates * hidden * (features + hidden)

    return count


def _attention(inputs: list[Shape], _: list[Shape], given: Attributes) -> int:
    """Scores and their sum over the values: Q [..., L, E], K [..., S, E], V [..., S, Ev]."""
    query, key, value = inputs[:3]
    if len(query) == 4:
        batch, heads, length, width = query
        return batch * heads * length * key[2] * (width + value[3])
    # three axes: heads lie side by side in the last one, which does not change the products
    return query[0] * query[1] * key[1] * (query[2] + _share_of_heads(value, given))


def _share_of_heads(value: Shape, given: Attributes) -> int:
    # grouped-query attention: each value head serves several query heads, and is multiplied by each
    query_heads, own_heads = given.get("q_num_heads", 1), given.get("kv_num_heads", 1)
    return int(value[2] * query_heads // own_heads)


def _packed_product(_: list[Shape], outputs: list[Shape], given: Attributes) -> int:
    return math.prod(outputs[0]) * int(given["K"])  # the weight's own shape is that of packed bytes


_FORMULAS: dict[str, Formula] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _quantized_convolution,
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _convolution,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _transposable_product,
    "Einsum": _einsum,
    "Attention": _attention,
    **{name: _recurrent(gates) for name, gates in _GATES.items()},
    "com.microsoft.FusedConv": _convolution,
    "com.microsoft.FusedMatMul": _transposable_product,
    "com.microsoft.FusedGemm": _transposable_product,
    "com.microsoft.MatMulIntegerToFloat": _product,
    "com.microsoft.DynamicQuantizeMatMul": _product,
    "com.microsoft.MatMulNBits": _packed_product,
}

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
    totals = [_total(body, cost_of) for body in subgraphs(node)]
    unknown = next((why for macs, why in totals if macs is None), "")
    if unknown:
        return None, f"inside, {unknown}"
    # of an If one branch runs, which depends on values: the larger one is the bound
    largest = max((macs or 0 for macs, _ in totals), default=0)
    if not largest or node.op_type == "If":
        return largest, ""
    turns = _turns(node, shapes, constants)
    if turns is None:
        costly = sorted({n.op_type for body in subgraphs(node) for n in body.node if cost_of(n)[0]})
        return None, f"loop trip count of {', '.join(costly)} is unknown"
    return turns * largest, ""


def _total(graph: Any, cost_of: Callable[[Any], Cost]) -> Cost:
    total = 0
    for node in graph.node:
        macs, why = cost_of(node)
        if macs is None:
            return None, f"{node.op_type}: {why}"
        total += macs
    return total, ""


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
