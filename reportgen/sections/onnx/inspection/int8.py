"""int8 readiness: the share of nodes that onnxruntime quantizes, and the spread of channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any

from reportgen.onnx.model.protos import STANDARD, operator_name
from reportgen.sections.onnx.file_result import ChannelRange, Int8Readiness
from reportgen.sections.onnx.inspection.graph import TensorData, TypedNode, outputs_of, ranked
from reportgen.units import format_share

_MACS = {
    "Attention",
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "Einsum",
    "GRU",
    "Gemm",
    "LSTM",
    "MatMul",
    "RNN",
}
_QUANTIZED = {
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}  # of output channels, in the weight
_FLOATS = {"tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)"}
_READ = ("float32", "float16", "float64")
_WIDEST = 5
# moves or names values, or contains other nodes: nothing that quantization would speed up
_NOT_WORK = {"Constant", "Identity", "Cast", "Shape", "If", "Loop", "Scan"}


Ranges = tuple[ChannelRange, ...] | None
"""Channel ranges of the weights, the widest first; None if the weights were not read."""


def measure_channel_ranges(
    nodes: Iterable[Any], stored: Iterable[TensorData], not_read: str
) -> Ranges:
    """Compare the channels of every weight that a product or a convolution reads directly."""
    if not_read:
        return None
    by_name = {tensor.name: tensor for tensor in stored if not tensor.sparse}
    found: dict[str, ChannelRange] = {}
    for node in nodes:
        axis = _axis(node)
        weight = by_name.get(node.input[1]) if axis is not None else None
        if weight is None or weight.name in found or axis is None:
            continue
        ratio = _outlier_ratio(weight, axis, len(weight.shape))
        if ratio is not None:
            found[weight.name] = ChannelRange(
                name=weight.name,
                operator=node.op_type,
                channels=weight.shape[axis],
                outlier_ratio=ratio,
            )
    return tuple(sorted(found.values(), key=lambda one: (-one.outlier_ratio, one.name)))


def assess_int8(ranges: Ranges, nodes: Sequence[TypedNode]) -> Int8Readiness:
    """Which operators the installed onnxruntime quantizes, by its own registries."""
    covered_types = _quantized_types()
    macs = [typed for typed in nodes if not typed.domain and typed.node.op_type in _MACS]
    floating = [typed for typed in macs if _is_floating(typed)]
    covered = [typed for typed in floating if typed.node.op_type in covered_types]
    staying = Counter(
        operator_name(typed.node)
        for typed in nodes
        if _is_floating(typed)
        and typed.node.op_type not in _NOT_WORK
        and (typed.domain or typed.node.op_type not in covered_types)
    )
    # files with quantized weights only have no other trace of it than DequantizeLinear
    quantized = _count(nodes, _QUANTIZED) or _count(nodes, {"DequantizeLinear"})
    return Int8Readiness(
        mac_nodes=len(floating),
        covered_nodes=len(covered),
        staying_float=ranked(staying),
        quantized_nodes=quantized,
        widest=(ranges or ())[:_WIDEST],
        weights=None if ranges is None else len(ranges),
        verdict=_verdict(len(floating), len(covered), quantized, ranges),
    )


def _count(nodes: Iterable[TypedNode], operators: Collection[str]) -> int:
    return sum(typed.node.op_type in operators for typed in nodes)


def _verdict(macs: int, covered: int, quantized: int, ranges: Ranges) -> str:
    if quantized:
        number = (
            "1 node of the file is" if quantized == 1 else f"{quantized:,} nodes of the file are"
        )
        return f"{number} quantized already"
    if not macs:
        return "no node multiplies and adds floating-point values, so there is little to gain"
    share = format_share(covered, macs)
    text = (
        f"static quantization covers {covered:,} of {macs:,} nodes that multiply and add ({share})"
    )
    if ranges:
        text += f"; channels of a weight differ by {ranges[0].outlier_ratio:.3g} to 1 at most"
    return f"{text} (static evidence: no calibration was run)"


@cache
def _quantized_types() -> frozenset[str]:
    """The operators that `quantize_static` quantizes by default: both of its registries."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return frozenset(QDQRegistry) | frozenset(QLinearOpsRegistry)


def _is_floating(typed: TypedNode) -> bool:
    return any(dtype in _FLOATS for dtype in outputs_of(typed))


def _axis(node: Any) -> int | None:
    """The axis of output channels in the second input; None for other operators."""
    if node.domain not in STANDARD or len(node.input) < 2:
        return None
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return _CHANNEL_AXIS.get(node.op_type)


def _outlier_ratio(weight: TensorData, axis: int, rank: int) -> float | None:
    """The largest magnitude of a channel over that of the median channel; None without one."""
    import numpy as np

    values = weight.values() if weight.dtype in _READ and rank > 1 else None
    if values is None or not values.size:
        return None
    array = values.reshape(weight.shape)
    others = tuple(dim for dim in range(rank) if dim != axis % rank)
    # not np.abs(array), which would copy the weight
    magnitudes = np.maximum(array.max(axis=others), -array.min(axis=others)).astype(np.float64)
    median = float(np.median(magnitudes))
    top = float(magnitudes.max())
    return top / median if median > 0 and np.isfinite(top) else None
