"""What onnxruntime's own operators (`com.microsoft`) cost, and which of them are free.

Shapes and attributes are those of onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reportgen.onnx.model.shapes import Shape

Attributes = Mapping[str, Any]

_FREE_NAMES = """
    BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BitmaskBiasDropout BitmaskDropout
    BranchwiseRMSNorm ComplexMul ComplexMulConj CropAndResize DequantizeBFP DequantizeLinear
    DequantizeWithOrder EmbedLayerNormalization ExpandDims FastGelu GatedAdd GatedRMSNorm
    GatherBlockQuantized GatherND Gelu GemmaRotaryEmbedding GridSample GroupNorm IsAllFinite
    MRotaryEmbedding MaxpoolWithMask MulInteger MurmurHash3 NGramRepeatBlock NhwcMaxPool Pad
    QEmbedLayerNormalization QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool
    QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere
    QOrderedGelu QOrderedLayerNormalization QuantizeBFP QuantizeLinear QuantizeWithOrder QuickGelu
    RMSNormRotary Range ReduceSumInteger RelativePositionBias RemovePadding RestorePadding
    RotaryEmbedding ScaledSiLU SkipGroupNorm SkipLayerNormalization
    SkipSimplifiedLayerNormalization SwiGLU Tokenizer TorchEmbedding Trilu UnfoldTensor Unique
"""
_FREE_IN_BLOCKS = """
    AveragePool GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample
"""
FREE = frozenset(
    [f"com.microsoft.{name}" for name in _FREE_NAMES.split()]
    + [f"com.microsoft.nchwc.{name}" for name in _FREE_IN_BLOCKS.split()]
)
"""Look-ups, norms, activations, copies: a bounded number of operations per element."""


def projected_attention(past: int) -> Any:
    """Attention that projects its input to queries, keys and values itself.

    Args:
        past: position of the keys and values of earlier tokens, [2, batch, heads, length, width].
    """

    def count(inputs: list[Shape], _: list[Shape], given: Attributes) -> int:
        (batch, length, features), projections = inputs[0], inputs[1][1]
        earlier = inputs[past][3] if len(inputs) > past and inputs[past] else 0
        sizes = given.get("qkv_hidden_sizes") or (projections // 3,) * 3
        products = length * features * projections
        return batch * (products + length * (length + earlier) * (sizes[0] + sizes[2]))

    return count


def multi_head_attention(inputs: list[Shape], _: list[Shape], __: Attributes) -> int:
    """Scores and their sum over the values; keys and values may be packed into other inputs."""
    left_out: Shape = ()
    query, key, value = [*inputs, left_out, left_out][:3]
    batch, length = query[:2]
    if len(query) == 5:  # queries, keys and values in one: [batch, length, heads, 3, width]
        return batch * length * length * 2 * query[2] * query[4]
    if len(key) == 5:  # keys and values in one: [batch, length, heads, 2, width]
        keys, values = key[1], key[2] * key[4]
    elif len(key) == 4:  # [batch, heads, length, width], of an encoder
        keys, values = key[2], value[1] * value[3]
    else:
        keys, values = key[1], value[2]
    earlier = inputs[6][2] if len(inputs) > 6 and inputs[6] else 0
    return batch * length * (keys + earlier) * (query[2] + values)


def grouped_query_attention(inputs: list[Shape], outputs: list[Shape], given: Attributes) -> int:
    """Scores and their sum over the values; each key serves several query heads."""
    (batch, length, features), key, past = inputs[0], inputs[1], inputs[3]
    heads, key_heads = given["num_heads"], given["kv_num_heads"]
    width = features // heads if key else features // (heads + 2 * key_heads)
    keys = length + (past[2] if past else 0)
    if len(outputs) > 1 and outputs[1]:
        keys = outputs[1][2]
        if past and past[2] == keys:
            raise ValueError("how many keys there are in its buffer is unknown")
    return int(batch * length * keys * 2 * heads * width)


def mixture_of_experts(inputs: list[Shape], _: list[Shape], given: Attributes) -> int:
    """Each token runs `k` of the experts; weights are [experts, …]."""
    tokens = math.prod(inputs[0][:-1])
    weights = [inputs[place] for place in (2, 4, 6) if len(inputs) > place and inputs[place]]
    return int(tokens * given.get("k", 1) * sum(math.prod(weight[1:]) for weight in weights))


def quantized_lstm(inputs: list[Shape], _: list[Shape], __: Attributes) -> int:
    """X is [steps, batch, features], R [directions, hidden, 4 * hidden]."""
    steps, batch, features = inputs[0]
    directions, hidden, gates = inputs[2]
    return steps * batch * directions * gates * (features + hidden)
