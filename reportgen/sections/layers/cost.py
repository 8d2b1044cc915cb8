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
from torch._subclasses.fake_tensor import FakeTensor

from reportgen.twin import ValuesNeededError

Formula = Callable[..., int]

_MOVED_OR_MADE = """
_assert_async _assert_scalar _chunk_cat _coalesce _copy_from _embedding_bag
_embedding_bag_forward_only _fused_dropout _has_compatible_shallow_copy_type _index_put_impl_
_local_scalar_dense _nested_tensor_from_tensor_list _pack_padded_sequence _pad_packed_sequence
_pin_memory _reshape_copy _resize_output_ _sparse_coo_tensor_with_dims_and_tensors _to_copy
_to_dense _to_sparse _unique2 _unsafe_index _unsafe_index_put _unsafe_view
_weight_int4pack_convert alias arange as_strided bernoulli bernoulli_ block_diag cartesian_prod
cat channel_shuffle clone coalesce col2im complex constant_pad_nd contiguous copy copy_ detach
detach_ diag_embed diagonal_scatter dropout embedding embedding_renorm_ empty_like equal
expand_copy exponential_ fill fill_ flip full_like gather geometric_ heaviside im2col index
index_add index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_
index_reduce index_select item lift lift_fresh lift_fresh_copy linspace logspace masked_fill
masked_fill_ masked_scatter masked_scatter_ masked_select multinomial native_dropout new_empty
new_empty_strided new_full new_ones new_zeros nonzero nonzero_static normal normal_
normal_functional one_hot ones_like permute_copy pixel_shuffle pixel_unshuffle poisson polar
rand_like randn_like random_ reflection_pad1d reflection_pad2d reflection_pad3d repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d resize_ resize_as_ roll
rot90 scalar_tensor scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_
select_backward select_scatter set_ slice_scatter sparse_mask squeeze_ stack t_ take to_dense
to_sparse transpose_ trapezoid tril tril_ tril_indices triu triu_ triu_indices unfold_copy
uniform uniform_ unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes
unsqueeze_ view_as_complex view_as_real zero_ zeros_like
"""
_BOUNDED_PER_ELEMENT = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _batch_norm_no_update _batch_norm_with_update
_batch_norm_with_update_functional _foreach_add _foreach_div _foreach_mul _foreach_sub
_fused_moving_avg_obs_fq_helper _fused_rms_norm _grid_sampler_2d_cpu_fallback _log_softmax
_masked_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
_native_batch_norm_legit_no_training _prelu_kernel _safe_softmax _softmax _thnn_fused_gru_cell
_thnn_fused_lstm_cell _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm_interface adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator all amax amin
aminmax any argmax argmin argsort avg_pool1d avg_pool2d avg_pool3d batch_norm
batch_norm_update_stats binary_cross_entropy binary_cross_entropy_with_logits bincount bucketize
count_nonzero cummax cummin cumprod cumprod_ cumsum cumsum_ dequantize diff dist
fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
fractional_max_pool2d fractional_max_pool3d glu grid_sampler_2d grid_sampler_3d hardswish histc
huber_loss kthvalue linalg_cross linalg_vector_norm log_sigmoid_forward log_softmax logcumsumexp
logsumexp max max_pool2d_with_indices max_pool3d_with_indices max_unpool2d max_unpool3d mean
median min mode mse_loss nanmean nanmedian nansum native_batch_norm native_group_norm
native_layer_norm nll_loss2d_forward nll_loss_forward norm prelu prod ps_roi_align ps_roi_pool
quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic renorm renorm_ rms_norm
roi_align roi_pool rrelu rrelu_with_noise rrelu_with_noise_functional searchsorted
smooth_l1_loss soft_margin_loss softmax sort std std_mean sum topk upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
upsample_trilinear3d var var_mean
"""
_FREE_TAGS = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy}
_FREE = frozenset([*_MOVED_OR_MADE.split(), *_BOUNDED_PER_ELEMENT.split()])


def formulas() -> dict[Any, Formula]:
    """FLOP formulas by operator: all of torch's, and those that it lacks.

    Each is called with the operator's own arguments and `out_val`, its result.
    """
    from torch.utils.flop_counter import FlopCounterMode

    found: dict[Any, Formula] = {**_own_formulas(), **FlopCounterMode(display=False).flop_registry}
    aten = torch.ops.aten
    found[aten._sparse_mm] = found[aten.mm] = _sparse_aware(found[aten.mm], left=0)
    found[aten._sparse_addmm] = found[aten.addmm] = _sparse_aware(found[aten.addmm], left=1)
    return found


def _own_formulas() -> dict[Any, Formula]:
    aten = torch.ops.aten
    own: dict[Any, Formula] = {
        aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
        aten.addmv: lambda _, matrix, *__, **___: 2 * matrix.numel(),
        aten.addmv_: lambda _, matrix, *__, **___: 2 * matrix.numel(),
        aten.dot: lambda left, *_, **__: 2 * left.numel(),
        aten.vdot: lambda left, *_, **__: 2 * left.numel(),
        aten.addr: lambda _, left, right, **__: 2 * left.numel() * right.numel(),
        aten.addbmm: lambda _, left, right, **__: 2 * left.numel() * right.shape[-1],
        aten._trilinear: _trilinear,
    }
    grouped = getattr(aten, "_grouped_mm", None)
    if grouped is not None:
        own[grouped] = _grouped_mm
    if hasattr(torch.ops.torchvision, "deform_conv2d"):  # there once torchvision is imported
        own[torch.ops.torchvision.deform_conv2d] = _deformable_convolution
    own.update(_quantized_formulas())
    return own


def _trilinear(i1: Tensor, i2: Tensor, *_: Any, **__: Any) -> int:
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


def _deformable_convolution(
    _: Tensor, weight: Tensor, *__: Any, out_val: Tensor, **___: Any
) -> int:
    """As a convolution; where it looks is interpolated, and that is free."""
    return 2 * out_val.numel() * math.prod(weight.shape[1:])


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


def _packed_linear(x: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * out_val.numel() * x.shape[-1]


def _packed_convolution(_: Tensor, packed: Any, *__: Any, out_val: Tensor, **___: Any) -> int:
    weight: Tensor = packed.unpack()[0]  # outputs, inputs per group, kernel...
    return 2 * out_val.numel() * math.prod(weight.shape[1:])


def _sparse_aware(formula: Formula, *, left: int) -> Formula:
    """`formula`, but a sparse left side costs by what it holds, not by its shape."""

    def count(*args: Any, **kwargs: Any) -> int:
        sparse, dense = args[left], args[left + 1]
        if sparse.layout == torch.strided or dense.layout != torch.strided:
            return formula(*args, **kwargs)
        if isinstance(kwargs["out_val"], FakeTensor):
            raise ValuesNeededError("how much a sparse tensor holds is not in its shape")
        return 2 * int(sparse._nnz()) * int(dense.shape[-1])

    return count


def is_free(operator: Any, tensors: list[Tensor], results: list[Tensor]) -> bool:
    """Whether `operator` costs nothing by the convention above."""
    if not any(t.is_floating_point() or t.is_complex() for t in [*tensors, *results]):
        return True  # counting with indices
    if not tensors or not isinstance(operator, torch._ops.OpOverload):
        return not tensors
    if operator.namespace in ("prim", "prims", "rngprims"):
        return True
    return any(_is_marked_free(form) for form in (operator, *_out_of_place(operator)))


def _is_marked_free(operator: torch._ops.OpOverload) -> bool:
    if operator.is_view or _FREE_TAGS & set(operator.tags):
        return True
    return operator.namespace in ("aten", "torchvision") and operator._opname in _FREE


def _out_of_place(operator: torch._ops.OpOverload) -> Iterator[torch._ops.OpOverload]:
    """`aten.hardswish` of `aten.hardswish_`: torch tags the former with more care."""
    name = operator._opname
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    for overload in packet.overloads() if packet is not None else ():
        yield getattr(packet, overload)


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
