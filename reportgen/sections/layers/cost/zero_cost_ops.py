"""Operators that count as zero FLOPs, by convention.

The convention is that of torch.utils.flop_counter: only products of two operands count (matrix
products, convolutions, attention). Operators with a bounded number of operations per element
count as zero: views, copies, creation, look-ups, elementwise arithmetic, reductions,
normalization, pooling, resampling, sorting. All other operators on floating-point data without
a formula are *uncounted* and listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_COPY_OR_CREATE = """
_assert_async _assert_scalar _chunk_cat _coalesce _copy_from _embedding_bag
_embedding_bag_forward_only _fused_dropout _has_compatible_shallow_copy_type _index_put_impl_
_jagged_to_padded_dense_forward _local_scalar_dense _nested_from_padded _nested_tensor_from_mask
_nested_tensor_from_tensor_list _nested_view_from_buffer _nested_view_from_buffer_copy
_nested_view_from_jagged _padded_dense_to_jagged_forward nested_to_padded_tensor to_padded_tensor
_pack_padded_sequence _pad_packed_sequence
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
_batch_norm_with_update_functional _ctc_loss _foreach_add _foreach_div _foreach_mul _foreach_sub
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
median min mode mse_loss multi_margin_loss nanmean nanmedian nansum native_batch_norm
native_group_norm native_layer_norm nll_loss2d_forward nll_loss_forward norm prelu prod
ps_roi_align ps_roi_pool quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic
renorm renorm_ rms_norm roi_align roi_pool rrelu rrelu_with_noise rrelu_with_noise_functional
searchsorted smooth_l1_loss soft_margin_loss softmax sort std std_mean sum topk
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean
"""
# Most elementwise operators and reductions have one of these tags; the lists name the others.
_ZERO_COST_TAGS = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy}
_QUANTIZED_ZERO_COST = """
add batch_norm cat celu clamp dropout elu embedding group_norm hardswish instance_norm layer_norm
leaky_relu max_pool mul prelu relu6 sigmoid softmax threshold
"""
_BACKWARD = """
_batch_norm_with_update_backward _embedding_bag_backward _embedding_bag_dense_backward
_embedding_bag_per_sample_weights_backward _weight_norm_differentiable_backward
batch_norm_backward embedding_dense_backward evenly_distribute_backward index_select_backward
max_pool2d_backward nll_loss2d_backward nll_loss_backward select_backward slice_backward
threshold_backward trace_backward unfold_backward value_selecting_reduction_backward
"""
_ZERO_COST = frozenset([*_COPY_OR_CREATE.split(), *_BOUNDED_PER_ELEMENT.split()])
_ZERO_COST_BACKWARD = frozenset(_BACKWARD.split())
# A prefix also covers the fused and typed variants: `add_relu`, `max_pool2d`.
_QUANTIZED_PREFIXES = tuple(_QUANTIZED_ZERO_COST.split())


def counts_as_zero(operator: Any, tensors: list[Tensor], results: list[Tensor]) -> bool:
    """Whether `operator` counts as zero by the convention above."""
    if not any(t.is_floating_point() or t.is_complex() for t in [*tensors, *results]):
        return True  # integer arithmetic
    if not tensors or not isinstance(operator, torch._ops.OpOverload):
        return not tensors  # an operator that reads no tensor creates one
    if operator.namespace in ("prim", "prims", "rngprims"):
        return True
    return any(_has_zero_cost(form) for form in (operator, *_out_of_place(operator)))


def _has_zero_cost(operator: torch._ops.OpOverload) -> bool:
    if operator.is_view or _ZERO_COST_TAGS & set(operator.tags):
        return True
    name = operator._opname
    if operator.namespace == "quantized":
        return name.startswith(_QUANTIZED_PREFIXES)
    if operator.namespace not in ("aten", "torchvision"):
        return False
    return name in _ZERO_COST or _is_zero_cost_backward(name)


def _is_zero_cost_backward(name: str) -> bool:
    if name in _ZERO_COST_BACKWARD:
        return True
    # `tanh_backward`, `_softmax_backward_data`, `_thnn_fused_lstm_cell_backward_impl`
    forward = name.removesuffix("_data").removesuffix("_impl").removesuffix("_backward")
    if forward in (name, f"{name}_backward"):
        return False
    if {forward, forward.removeprefix("_")} & _ZERO_COST:
        return True
    packet = getattr(torch.ops.aten, forward, None)
    return packet is not None and any(
        _ZERO_COST_TAGS & set(getattr(packet, overload).tags) or getattr(packet, overload).is_view
        for overload in packet.overloads()
    )


def _out_of_place(operator: torch._ops.OpOverload) -> Iterator[torch._ops.OpOverload]:
    """`aten.hardswish` for `aten.hardswish_`; in-place overloads often lack tags."""
    name = operator._opname
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    for overload in packet.overloads() if packet is not None else ():
        yield getattr(packet, overload)
