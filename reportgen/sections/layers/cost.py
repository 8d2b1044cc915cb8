"""What an operator costs: torch's own FLOP formulas, a few more, and what is free by convention.

The convention is that of torch's counter: a multiply-add is two FLOPs, and only multiply-adds of
products of two operands count (matrix products, convolutions, attention). Free by convention is
what does a bounded number of operations per element it reads or writes: views, copies, creation,
look-ups, elementwise arithmetic, reductions, normalisation, pooling, resampling, sorting.
Everything else that touches floating-point data and has no formula is *uncounted* and listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Formula = Callable[..., int]

_FREE = frozenset(
    # moved, made or looked up
    "alias as_strided cat clone constant_pad_nd contiguous copy copy_ _copy_from _to_copy"
    " _pin_memory detach detach_ diag_embed diagonal_scatter embedding embedding_renorm_"
    " _embedding_bag _embedding_bag_forward_only empty_like expand_copy fill fill_ flip gather"
    " index index_add index_add_ index_copy index_copy_ index_fill index_fill_ index_put"
    " index_put_ _index_put_impl_ index_select _unsafe_index _unsafe_index_put lift lift_fresh"
    " lift_fresh_copy masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select"
    " new_empty new_empty_strided new_full new_ones new_zeros nonzero nonzero_static one_hot"
    " permute_copy pixel_shuffle pixel_unshuffle channel_shuffle reflection_pad1d"
    " reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d"
    " replication_pad2d replication_pad3d resize_ roll rot90 scalar_tensor scatter scatter_"
    " scatter_add scatter_add_ scatter_reduce scatter_reduce_ select_backward select_scatter"
    " set_ slice_scatter stack take tril tril_ triu triu_ unfold_copy _unsafe_view view_as_complex"
    " view_as_real zero_ im2col col2im _nested_tensor_from_tensor_list _local_scalar_dense item"
    " _assert_async _assert_scalar equal _has_compatible_shallow_copy_type to_dense _to_dense"
    " to_sparse _to_sparse _coalesce coalesce sparse_mask _sparse_coo_tensor_with_dims_and_tensors"
    " unique_dim _unique2 unique_consecutive _resize_output_ squeeze_ unsqueeze_ t_ transpose_"
    " _reshape_copy _fused_dropout dropout native_dropout bernoulli bernoulli_ normal normal_"
    " normal_functional uniform uniform_ exponential_ geometric_ random_ rand_like randn_like"
    " multinomial full_like ones_like zeros_like poisson linspace logspace arange"
    " _weight_int4pack_convert complex polar"
    # a bounded number of operations per element
    " all any amax amin aminmax argmax argmin argsort bincount bucketize count_nonzero cummax"
    " cummin cumprod cumprod_ cumsum cumsum_ diff dist histc kthvalue log_softmax _log_softmax"
    " logcumsumexp logsumexp max mean median min mode nanmean nanmedian nansum norm"
    " linalg_vector_norm prod searchsorted softmax _softmax _safe_softmax _masked_softmax sort"
    " std std_mean sum topk var var_mean renorm renorm_ glu prelu _prelu_kernel rrelu"
    " rrelu_with_noise"
    " rrelu_with_noise_functional batch_norm native_batch_norm _native_batch_norm_legit"
    " _native_batch_norm_legit_no_training _native_batch_norm_legit_functional"
    " _batch_norm_with_update _batch_norm_no_update _batch_norm_with_update_functional"
    " batch_norm_update_stats native_group_norm native_layer_norm rms_norm _fused_rms_norm"
    " _weight_norm_interface _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d"
    " adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d"
    " fractional_max_pool2d fractional_max_pool3d max_pool2d_with_indices max_pool3d_with_indices"
    " max_unpool2d max_unpool3d upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d"
    " _upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d upsample_nearest2d"
    " upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d"
    " _upsample_nearest_exact3d upsample_trilinear3d grid_sampler_2d grid_sampler_3d"
    " _grid_sampler_2d_cpu_fallback affine_grid_generator nll_loss_forward nll_loss2d_forward"
    " binary_cross_entropy mse_loss smooth_l1_loss huber_loss soft_margin_loss"
    " quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize"
    " fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask"
    " _fused_moving_avg_obs_fq_helper _thnn_fused_lstm_cell _thnn_fused_gru_cell"
    " _foreach_add _foreach_mul _foreach_sub _foreach_div linalg_cross".split()
)


def formulas() -> dict[Any, Formula]:
    """FLOP formulas by operator: all of torch's, and those that it lacks.

    Each is called with the operator's own arguments and `out_val`, its result.
    """
    from torch.utils.flop_counter import FlopCounterMode

    found: dict[Any, Formula] = {**_own_formulas(), **FlopCounterMode(display=False).flop_registry}
    for operator in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
        found[operator] = _sparse_aware(found[operator], summand=operator is torch.ops.aten.addmm)
    return found


def _own_formulas() -> dict[Any, Formula]:
    aten = torch.ops.aten
    own: dict[Any, Formula] = {
        aten.mv: lambda matrix, vector, **_: 2 * matrix.numel(),
        aten.addmv: lambda summand, matrix, vector, **_: 2 * matrix.numel(),
        aten.addmv_: lambda summand, matrix, vector, **_: 2 * matrix.numel(),
        aten.dot: lambda left, right, **_: 2 * left.numel(),
        aten.vdot: lambda left, right, **_: 2 * left.numel(),
        aten.addr: lambda summand, left, right, **_: 2 * left.numel() * right.numel(),
        aten.addbmm: lambda summand, left, right, **_: 2 * left.numel() * right.shape[-1],
        aten._trilinear: _trilinear,
    }
    grouped = getattr(aten, "_grouped_mm", None)
    if grouped is not None:
        own[grouped] = _grouped_mm
    own.update(_quantized_formulas())
    return own


def _trilinear(
    i1: Tensor, i2: Tensor, i3: Tensor, expand1: Any, expand2: Any, expand3: Any, sumdim: Any,
    unroll_dim: int = 1, **_: Any,
) -> int:  # fmt: skip
    """`x1 @ W @ x2` for every sample and output: first one side, then the other.

    `nn.Bilinear(a, b, o)` on n samples: n·o·b·a multiply-adds for `x1 @ W`, n·o·b for the rest.
    """
    samples = math.prod(i1.shape[:-1])
    outputs, left, right = i2.shape
    return 2 * samples * outputs * right * (left + 1)


def _grouped_mm(mat_a: Tensor, mat_b: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """Rows of `mat_a`, each through the one matrix of its group."""
    if mat_a.ndim == 2 and mat_b.ndim == 2:  # the summed dimension is what is grouped
        return 2 * mat_a.numel() * mat_b.shape[-1]
    return 2 * out_val.numel() * mat_a.shape[-1]


def _quantized_formulas() -> dict[Any, Formula]:
    """Products with a packed integer weight: x, the packed weight, then scales."""
    found: dict[Any, Formula] = {}
    quantized = torch.ops.quantized
    for name in ("linear", "linear_relu", "linear_dynamic", "linear_relu_dynamic"):
        if hasattr(quantized, name):
            found[getattr(quantized, name)] = _packed_linear
    for name in ("conv1d", "conv2d", "conv3d"):
        for ending in ("", "_relu", "_dynamic"):
            if hasattr(quantized, name + ending):
                found[getattr(quantized, name + ending)] = _packed_convolution
    return found


def _packed_linear(x: Tensor, packed: Any, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * out_val.numel() * x.shape[-1]


def _packed_convolution(x: Tensor, packed: Any, *_: Any, out_val: Tensor, **__: Any) -> int:
    weight = packed.unpack()[0]  # outputs, inputs per group, kernel...
    return 2 * out_val.numel() * math.prod(weight.shape[1:])


def _sparse_aware(formula: Formula, *, summand: bool) -> Formula:
    """`formula`, but a sparse left side costs by what it holds, not by its shape."""

    def count(*args: Any, **kwargs: Any) -> int:
        left, right = args[1:3] if summand else args[:2]
        if left.layout == torch.strided:
            return formula(*args, **kwargs)
        return 2 * int(left._nnz()) * int(right.shape[-1])

    return count


def is_free(operator: Any, tensors: list[Tensor], results: list[Tensor]) -> bool:
    """Whether `operator` costs nothing by the convention above."""
    if not any(t.is_floating_point() or t.is_complex() for t in [*tensors, *results]):
        return True  # counting with indices
    if not tensors or not isinstance(operator, torch._ops.OpOverload):
        return not tensors
    if operator.namespace in ("prim", "prims", "rngprims"):
        return True
    if operator.is_view or {torch.Tag.pointwise, torch.Tag.reduction} & set(operator.tags):
        return True
    return operator.namespace == "aten" and operator._opname in _FREE


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor among an operator's arguments or results, lists included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes that the numbers of `tensor` take, whatever its layout or wrapping."""
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in names)
    if tensor.layout == torch.sparse_coo:
        indices, values = tensor._indices(), tensor._values()
        return sum(t.numel() * t.element_size() for t in (indices, values))
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        return sum(t.numel() * t.element_size() for t in parts)
    return tensor.numel() * tensor.element_size()
