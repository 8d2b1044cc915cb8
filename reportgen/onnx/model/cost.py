"""What one ONNX node costs in multiply-adds: own formulas from the operators' specifications.

The convention is that of the `layers` section: products of two operands count, biases and
whatever does a bounded number of operations per element do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from reportgen.onnx.model.fused_cost import (
    grouped_query_attention,
    mixture_of_experts,
    multi_head_attention,
    projected_attention,
    quantized_lstm,
)
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
    "com.microsoft.FusedMatMulActivation": _transposable_product,
    "com.microsoft.TransposeMatMul": _transposable_product,
    "com.microsoft.GemmFastGelu": _product,
    "com.microsoft.GemmFloat8": _transposable_product,
    "com.microsoft.QGemm": _transposable_product,
    "com.microsoft.MatMulNBits": _packed_product,
    "com.microsoft.MatMulBnb4": _packed_product,
    "com.microsoft.MatMulFpQ4": _product,
    "com.microsoft.NhwcConv": _convolution,
    "com.microsoft.NhwcFusedConv": _convolution,
    "com.microsoft.QLinearConv": _quantized_convolution,
    "com.microsoft.ConvTransposeWithDynamicPads": _transposed_convolution,
    "com.microsoft.Attention": projected_attention(past=4),
    "com.microsoft.QAttention": projected_attention(past=8),
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.GroupQueryAttention": grouped_query_attention,
    "com.microsoft.MoE": mixture_of_experts,
    "com.microsoft.DynamicQuantizeLSTM": quantized_lstm,
}

Cost = tuple[int | None, str]
"""Multiply-adds, and "" or why some could not be counted; None if none could."""
