"""FLOP formulas that torch.utils.flop_counter lacks: products of two operands in other forms.

A formula is called with the arguments of the operator and with `out_val`, its result. It returns
FLOPs; a multiply-add is two.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reportgen.sections.layers.cost.linear_algebra import linear_algebra_formulas
from reportgen.sections.layers.cost.registration import Formula


def own_formulas() -> dict[Any, Formula]:
    """Formulas by operator packet, for the operators that this version of torch has."""
    return {
        **_products(),
        **_convolutions(),
        **_quantized(),
        **_recurrent(),
        **linear_algebra_formulas(),
    }


def _products() -> dict[Any, Formula]:
    aten = torch.ops.aten
    return {
        aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
        aten.addmv: lambda _, matrix, *__, **___: 2 * matrix.numel(),
        aten.dot: lambda left, *_, **__: 2 * left.numel(),
        aten.vdot: lambda left, *_, **__: 2 * left.numel(),
        aten.addr: lambda _, left, right, **__: 2 * left.numel() * right.numel(),
        aten.addbmm: lambda _, left, right, **__: 2 * left.numel() * right.shape[-1],
        aten.addmm_: lambda _, left, right, **__: 2 * left.numel() * right.shape[-1],
        aten._trilinear: _trilinear,
        **_named(aten, "_int_mm _weight_int8pack_mm _wrapped_quantized_linear", _rows_by_columns),
        **_named(aten, "_grouped_mm", _grouped_mm),
        **_named(aten, "_scaled_dot_product_flash_attention_for_cpu", _attention),
    }


def _named(home: Any, names: str, formula: Formula) -> dict[Any, Formula]:
    """`formula` for each of `names` that `home` has; operators differ between torch versions."""
    return {getattr(home, name): formula for name in names.split() if hasattr(home, name)}


def _rows_by_columns(left: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """`left` by a packed matrix: each output element is a dot product over a row of `left`."""
    return 2 * out_val.numel() * left.shape[-1]


def _trilinear(
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
    *_: Any,
    **__: Any,
) -> int:
    """A product of three tensors in two steps, as `aten::_trilinear` computes it on the CPU.

    `nn.Bilinear(a, b, o)` on n samples: n·o·b·a multiply-adds for `x1 @ W`, n·o·b for the rest.
    """
    first, second, third = (
        _placed(tensor.shape, expand)
        for tensor, expand in ((i1, expand1), (i2, expand2), (i3, expand3))
    )
    pair = {**first, **second}
    rest = {dim: size for dim, size in pair.items() if dim not in sumdim or dim in third}
    return 2 * (math.prod(pair.values()) + math.prod({**rest, **third}.values()))


def _placed(shape: torch.Size, expand: list[int]) -> dict[int, int]:
    """Sizes by dimension after singletons are inserted at `expand`, without the singletons."""
    places = [dim for dim in range(len(shape) + len(expand)) if dim not in expand]
    return dict(zip(places, map(int, shape), strict=True))


def _grouped_mm(mat_a: Tensor, mat_b: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """Each row of `mat_a` by the matrix of its group."""
    if mat_a.ndim == 2 and mat_b.ndim == 2:  # the groups divide the summed dimension
        return 2 * mat_a.numel() * mat_b.shape[-1]
    return 2 * out_val.numel() * mat_a.shape[-1]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Scores and their weighted sum; masks are ignored, as in torch.utils.flop_counter."""
    rows, keys = query.numel() // query.shape[-1], key.shape[-2]
    return 2 * rows * keys * (query.shape[-1] + value.shape[-1])


def _convolutions() -> dict[Any, Formula]:
    found: dict[Any, Formula] = {torch.ops.aten.conv_tbc: _time_first_convolution}
    if hasattr(torch.ops.torchvision, "deform_conv2d"):  # defined if torchvision is imported
        found[torch.ops.torchvision.deform_conv2d] = _convolution
        found[torch.ops.torchvision._deform_conv2d_backward] = _deformable_backward
    return found


def _convolution(_: Tensor, weight: Tensor, *__: Any, out_val: Tensor, **___: Any) -> int:
    """A convolution; the interpolation of a deformable one counts as zero."""
    return 2 * out_val.numel() * math.prod(weight.shape[1:])


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *settings: Any, **__: Any
) -> int:
    """The cost of the forward pass for each of the requested gradients of input and weight.

    torch.utils.flop_counter ignores groups in the weight gradient: for a depthwise convolution of
    96 channels it counts 96 times the right cost.
    """
    # settings: bias sizes, stride, padding, dilation, transposed, output padding, groups, mask
    transposed, output_mask = settings[4], settings[7]
    each = 2 * (x if transposed else gradient).numel() * math.prod(weight.shape[1:])
    return each * sum(map(bool, output_mask[:2]))  # the third is the bias: a sum, no product


def _time_first_convolution(_: Tensor, weight: Tensor, *__: Any, out_val: Tensor) -> int:
    return 2 * out_val.numel() * weight.shape[0] * weight.shape[1]  # kernel, inputs, outputs


def _deformable_backward(gradient: Tensor, _: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    """One convolution each for the gradients of the columns and of the weight."""
    return 4 * gradient.numel() * math.prod(weight.shape[1:])


def _recurrent() -> dict[Any, Formula]:
    """The operator that an exported program has for one direction of one recurrent layer."""
    aten = torch.ops.aten
    return {
        **_named(aten, "mkldnn_rnn_layer", _recurrent_layer),
        **_named(aten, "mkldnn_rnn_layer_backward", lambda *a, **k: 2 * _recurrent_layer(*a, **k)),
    }


def _recurrent_layer(x: Tensor, of_input: Tensor, of_state: Tensor, *_: Any, **__: Any) -> int:
    return 2 * (x.numel() // x.shape[-1]) * (of_input.numel() + of_state.numel())


def _quantized() -> dict[Any, Formula]:
    """Products with a packed integer weight; arguments are x, the packed weight, scales."""
    quantized = torch.ops.quantized
    linear = """
        linear linear_relu linear_dynamic linear_relu_dynamic linear_dynamic_fp16
        linear_relu_dynamic_fp16 linear_leaky_relu linear_tanh matmul
    """
    names = [f"conv{n}d{end}" for n in (1, 2, 3) for end in ("", "_relu", "_dynamic")]
    cells = {
        "quantized_lstm_cell_dynamic": 4,
        "quantized_gru_cell_dynamic": 3,
        "quantized_rnn_relu_cell_dynamic": 1,
        "quantized_rnn_tanh_cell_dynamic": 1,
    }
    return {
        **_named(quantized, linear, _rows_by_columns),
        **_named(quantized, " ".join([*names, "conv2d_add conv2d_add_relu"]), _packed_convolution),
        **{
            packet: _packed_cell(gates)
            for name, gates in cells.items()
            for packet in _named(quantized, name, _rows_by_columns)
        },
        **_named(torch.ops.aten, "quantized_lstm", _packed_recurrent(4)),
        **_named(torch.ops.aten, "quantized_gru", _packed_recurrent(3)),
    }


def _kernel_of(arguments: tuple[Any, ...]) -> Tensor:
    packed = next(item for item in arguments if hasattr(item, "unpack"))
    weight: Tensor = packed.unpack()[0]
    return weight


def _packed_convolution(_: Tensor, *packed: Any, out_val: Tensor, **__: Any) -> int:
    weight = _kernel_of(packed)  # outputs, inputs per group, kernel...
    return 2 * out_val.numel() * math.prod(weight.shape[1:])


def _packed_cell(gates: int) -> Formula:
    def count(x: Tensor, hidden: Tensor | list[Tensor], *_: Any, **__: Any) -> int:
        state = hidden[0] if isinstance(hidden, list | tuple) else hidden
        return 2 * gates * state.numel() * (x.shape[-1] + state.shape[-1])

    return count


def _packed_recurrent(gates: int) -> Formula:
    """Gates × hidden × (input + hidden) per time step, layer and direction."""

    def count(x: Tensor, hidden: Any, *rest: Any, **__: Any) -> int:
        given = rest[0][0] if isinstance(rest[0], list | tuple) else rest[0]
        if isinstance(given, Tensor):  # a packed sequence: batch sizes precede the state
            hidden, rest = rest[0], rest[1:]
        layers = int(rest[2])
        both = 2 if rest[5] else 1
        state = hidden[0] if isinstance(hidden, list | tuple) else hidden
        steps, size = x.numel() // x.shape[-1], int(state.shape[-1])
        widths = [int(x.shape[-1]), *[both * size] * (layers - 1)]
        return sum(2 * steps * both * gates * size * (width + size) for width in widths)

    return count
