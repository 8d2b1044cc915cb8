"""Which inputs of quantized operators are scales, and how many numbers a packed weight holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reportgen.onnx.model.protos import operator_name

_MANY = (1, 2, 4, 5, 6, 7)
_SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": _MANY,
    "QLinearMatMul": _MANY,
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "com.microsoft.QuantizeLinear": (1, 2),
    "com.microsoft.DequantizeLinear": (1, 2),
    "com.microsoft.MatMulNBits": (2, 3),
    "com.microsoft.MatMulBnb4": (2,),
    "com.microsoft.GatherBlockQuantized": (2, 3),
    "com.microsoft.QMoE": (3, 6, 9, 11, 12, 13),
    "com.microsoft.DynamicQuantizeMatMul": (2, 3),
    "com.microsoft.DynamicQuantizeLSTM": (8, 9, 10, 11),
    "com.microsoft.MatMulIntegerToFloat": (2, 3, 4, 5),
    "com.microsoft.QGemm": (1, 2, 4, 5, 7, 8),
    "com.microsoft.QAttention": (3, 4, 6, 7),
    "com.microsoft.QEmbedLayerNormalization": tuple(range(8, 18)),
    **dict.fromkeys(("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul"), _MANY),
    **dict.fromkeys(
        (
            f"com.microsoft.QLinear{name}"
            for name in (
                "AveragePool", "GlobalAveragePool", "LeakyRelu", "ReduceMean", "Sigmoid", "Softmax",
            )
        ),
        (1, 2, 3, 4),
    ),
}  # fmt: skip
"""Positions of scales and zero points among the inputs of quantized operators."""

_INTEGERS = {
    "DequantizeLinear": 0,
    "com.microsoft.DequantizeLinear": 0,
    "QLinearConv": 8,
    "com.microsoft.QGemm": 6,
}
"""Positions of inputs that are parameters of whatever integer type: int32 biases mostly."""

_INT_PRODUCTS = {"MatMulInteger", "ConvInteger"}


def _rows_by_columns(given: Mapping[str, int], _: int) -> int:
    return given["N"] * given["K"]  # blocks may be padded: the attributes say what is real


def _several_per_byte(attribute: str) -> Callable[[Mapping[str, int], int], int]:
    return lambda given, size: size * 8 // given.get(attribute, 4)


_PACKED: dict[tuple[str, int], Callable[[Mapping[str, int], int], int]] = {
    ("com.microsoft.MatMulNBits", 1): _rows_by_columns,
    ("com.microsoft.MatMulBnb4", 1): _rows_by_columns,
    ("com.microsoft.GatherBlockQuantized", 0): _several_per_byte("bits"),
    **{
        ("com.microsoft.QMoE", position): _several_per_byte("expert_weight_bits")
        for position in (2, 5, 8)
    },
}
"""From the attributes and the stored bytes to the numbers in them, by operator and position."""


@dataclass(slots=True)
class QuantizedUses:
    """How quantized operators use stored tensors, by name.

    Attributes:
        scales: only as scale or zero point.
        integers: as weight or bias, so that an integer type is no sign of a shape or an index.
        packed: as bytes with so many numbers in them.
    """

    scales: set[str] = field(default_factory=set)
    integers: set[str] = field(default_factory=set)
    packed: dict[str, int] = field(default_factory=dict)


def quantized_uses(graphs: Iterable[Any], bytes_of: Mapping[str, int]) -> QuantizedUses:
    """The uses in all `graphs` of a file; `bytes_of` has the sizes of byte tensors by name."""
    found, others = QuantizedUses(), set[str]()
    for graph in graphs:
        whole_products = {
            name for node in graph.node if node.op_type in _INT_PRODUCTS for name in node.output
        }
        for node in graph.node:
            operator = operator_name(node)
            places = _scale_places(operator, len(node.input))
            for place, name in enumerate(node.input):
                (found.scales if place in places else others).add(name)
                if _INTEGERS.get(operator) == place:
                    found.integers.add(name)
                if (operator, place) in _PACKED and name in bytes_of:
                    count = _PACKED[operator, place]
                    found.packed[name] = count(_whole_numbers(node), bytes_of[name])
            if operator == "Add" and whole_products.intersection(node.input):
                found.integers.update(node.input)
    found.scales -= others
    return found


def _scale_places(operator: str, inputs: int) -> Iterable[int]:
    if operator == "com.microsoft.QLinearConcat":  # the output's two, then (x, scale, zero point)…
        return [0, 1, *(place for place in range(2, inputs) if (place - 2) % 3)]
    return _SCALES.get(operator, ())


def _whole_numbers(node: Any) -> dict[str, int]:
    return {each.name: int(each.i) for each in node.attribute if each.HasField("i")}
