"""Tables of operators: what CUDA kernels allocate, and fast replacements of fake kernels.

The functions of `CUDA_KERNELS` record the outputs of an ATen call and the scratch memory around
them, in the order of the CUDA implementation. Sources: the kernels under
aten/src/ATen/native/cuda and native/transformers/cuda of torch 2.6 to 2.11. Those of
`FAKE_SHORTCUTS` give the shapes and types of operators whose fake kernels are slow: a fake batch
norm runs a Python decomposition, an in-place foreach operator visits hundreds of tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ..allocator import round_up
from ..cudnn import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from ..memory_trace import Request
from .output_cache import empty_beside, without_dispatch
from .storage_recorder import Kernel, Shortcut, StorageRecorder

aten = torch.ops.aten
Args = tuple[Any, ...]

_INDEX_BYTES = 8
_FP32_BYTES = 4


def _convolution(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Output, then the workspace of the call."""
    recorder.output(result)
    x, weight, transposed = args[0], args[1], args[6]
    kind = INPUT_GRADIENT if transposed else FORWARD
    recorder.request(_workspace(kind, x, weight, result, args[3:]))


def _convolution_backward(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Gradient of the input, of the weight, of the bias; a workspace for the first two."""
    grad_output, x, weight, transposed = args[0], args[1], args[2], args[7]
    kinds = (FORWARD if transposed else INPUT_GRADIENT, WEIGHT_GRADIENT)
    for gradient, kind in zip(result[:2], kinds, strict=True):
        if gradient is not None:
            recorder.output(gradient)
            recorder.request(_workspace(kind, x, weight, grad_output, args[4:]))
    recorder.outputs(result[2])


def _workspace(
    kind: int, x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor, layout: Args
) -> Request:
    """The request of one cuDNN call; `layout` is stride, padding, dilation, transposed, ....

    A transposed convolution is the input gradient of the plain one, with `x` and `y` swapped.
    """
    stride, padding, dilation, transposed = layout[:4]
    if transposed:
        x, y = y, x
    spatial = weight.dim() - 2
    low = x.dtype is torch.bfloat16
    # plain numbers, so that a polynomial of the batch can be fitted to each of them
    numbers = (
        kind, x.element_size(), int(low), spatial, *x.shape, *weight.shape, *y.shape,
        *_per_axis(stride, spatial), *_per_axis(padding, spatial), *_per_axis(dilation, spatial),
    )  # fmt: skip
    return Request(rule="convolution", numbers=numbers, optional=True)


def _per_axis(values: Any, spatial: int) -> list[int]:
    return list(values) if len(values) == spatial else list(values) * spatial


def _matmul(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Output, copies of expanded operands, then cuBLAS's workspace at its first use in a thread."""
    recorder.output(result)
    for operand in args[:2]:
        # the gradient of a plain sum; a batch may be expanded without a copy
        if 0 in operand.stride()[-2:]:
            recorder.scratch(operand.numel() * operand.element_size())
    recorder.request_once("cublas")


def _sum(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """A sum over the leading dimensions, as of a bias: blocks that share an output exchange."""
    recorder.output(result)
    x, dims = args[0], {dim % max(args[0].dim(), 1) for dim in args[1] or ()}
    kept = x.dim() - len(dims)
    if x.dim() < 2 or kept != 1 or not x.numel():
        return
    (column,) = set(range(x.dim())) - dims
    if x.stride(column) != 1:
        return  # the terms lie side by side: next to nothing is exchanged
    accumulator = max(x.element_size(), _FP32_BYTES)
    numbers = (x.shape[column], x.numel() // x.shape[column], accumulator)
    recorder.request(Request(rule="reduction", numbers=numbers), category="temporary")


def _layer_norm(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Outputs; strided inputs are copied first."""
    _copied(recorder, args[:1])
    recorder.outputs(result)


def _layer_norm_backward(recorder: StorageRecorder, args: Args, result: Any) -> None:
    _copied(recorder, args[:2])
    recorder.outputs(result)


def _copied(recorder: StorageRecorder, tensors: Args) -> None:
    recorder.scratch(sum(tensor.nbytes for tensor in tensors if not tensor.is_contiguous()))


def _roll(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Dimensions are rolled one after the other."""
    if len(args[1]) > 1:
        recorder.scratch(args[0].nbytes)
    recorder.output(result)


def _softmax_backward(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """The product of gradient and output."""
    recorder.output(result)
    recorder.scratch(args[1].nbytes)


def _addmm(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """A bias of one dimension goes through cublasLt, which has its own scratch up to 2.10."""
    recorder.output(result)
    if args[0].dim() == 1:
        recorder.request(Request(rule="cublaslt_call"))
        recorder.request_once("cublaslt_kept")
    recorder.request_once("cublas")


def _embedding_backward(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Sorted indices and fp32 partial sums, above 3,072 indices."""
    recorder.output(result)
    grad, indices, rows = args[0], args[1], int(args[2])
    numbers = (indices.numel(), rows, grad.shape[-1], indices.element_size())
    recorder.request(Request(rule="embedding_backward", numbers=numbers), category="temporary")


def _index_put(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """With accumulation: linear, sorted and original indices and the radix sort's scratch."""
    recorder.outputs(result)
    if len(args) > 3 and args[3]:
        elements = max((i.numel() for i in args[1] if i is not None), default=0)
        recorder.scratch(5 * _INDEX_BYTES * elements)


def _sort(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Values and indices are sorted through a second buffer of both."""
    recorder.outputs(result)
    recorder.scratch(args[0].nbytes + 2 * _INDEX_BYTES * args[0].numel())


def _scan(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """Scans through cub take a few bytes per tile; only scans of one dimension use it."""
    recorder.outputs(result)
    if args[0].dim() == 1:
        recorder.scratch(args[0].numel() // 128 + 1024)


def _nonzero(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """A count, then the flat indices before they are split by dimension."""
    recorder.outputs(result)
    recorder.scratch(_INDEX_BYTES * args[0].numel())


def _flash_backward(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """fp32 softmax sums and query gradients, padded to 128 rows and 32 columns."""
    recorder.outputs(result)
    query = args[1]
    batch, heads, rows, width = query.shape
    padded_rows = round_up(rows, 128)
    recorder.scratch(_FP32_BYTES * batch * heads * padded_rows)
    recorder.scratch(_FP32_BYTES * batch * heads * padded_rows * round_up(width, 32))
    # grouped queries: the gradients of keys and values are first computed for every query head
    if args[2].shape[1] != heads:
        recorder.scratch(2 * query.nbytes)


def _efficient_backward(recorder: StorageRecorder, args: Args, result: Any) -> None:
    """fp32 row sums, and fp32 accumulators for keys and values where they are not fp32."""
    recorder.outputs(result)
    query, key = args[1], args[2]
    batch, heads, rows, width = query.shape
    recorder.scratch(_FP32_BYTES * batch * heads * round_up(rows, 32))
    columns = key.shape[2]
    # fp32 too where blocks share the keys: measured from 197 keys on
    if query.element_size() < _FP32_BYTES or max(width, columns) > 128:
        padded = round_up(columns, 128) * round_up(width, 32)
        recorder.scratch(_FP32_BYTES * batch * heads * padded)


CUDA_KERNELS: dict[Any, Kernel] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.baddbmm.default: _matmul,
    aten.addbmm.default: _matmul,
    aten.mv.default: _matmul,
    aten.addmv.default: _matmul,
    aten.addmm.default: _addmm,
    aten._addmm_activation.default: _addmm,
    aten.sum.dim_IntList: _sum,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.roll.default: _roll,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.index_put.default: _index_put,
    aten.index_put_.default: _index_put,
    aten._index_put_impl_.default: _index_put,
    aten.sort.default: _sort,
    aten.sort.stable: _sort,
    aten.argsort.default: _sort,
    aten.cumsum.default: _scan,
    aten.cumprod.default: _scan,
    aten.nonzero.default: _nonzero,
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
}


def _batch_norm(args: Args) -> Any:
    """Output, saved mean and inverse deviation; the latter are fp32 in training, else empty."""
    x, training = args[0], args[5]
    if not isinstance(x, FakeTensor):  # a constant of the model
        return NotImplemented
    channels = x.shape[1] if training else 0
    dtype = torch.float32 if x.element_size() < 4 else x.dtype
    saved = tuple(empty_beside(x, (channels,), dtype) for _ in range(2))
    return (_empty_like(x), *saved)


def _batch_norm_backward(args: Args) -> Any:
    x, weight, mask = args[1], args[2], args[9]
    if not isinstance(x, FakeTensor):
        return NotImplemented
    dtype = x.dtype if weight is None else weight.dtype
    gradients = [empty_beside(x, (x.shape[1],), dtype) if needed else None for needed in mask[1:]]
    return (_empty_like(x) if mask[0] else None, *gradients)


def _in_place(args: Args) -> Any:
    """The operand itself; scalars are computed, because optimizers read their step counts."""
    return args[0] if args[0].dim() else NotImplemented


def _in_place_list(args: Args) -> Any:
    # lists of scalars, an optimizer's step counts, are computed: see `_in_place`
    tensors = args[0]
    return None if tensors and tensors[0].dim() else NotImplemented


def _empty_like(tensor: FakeTensor) -> torch.Tensor:
    """A new tensor of the same shape, type and layout, dense."""
    if tensor.is_contiguous():
        return empty_beside(tensor, tensor.shape, tensor.dtype)
    return torch.empty_like(tensor)


def _number(args: Args) -> Any:
    """A number whose value the fake mode knows, as an optimizer's step count."""
    constant = getattr(args[0], "constant", None)
    return NotImplemented if constant is None else without_dispatch(constant.item)


_IN_PLACE = "relu_ hardtanh_ silu_ hardswish_ add_.Tensor mul_.Tensor copy_ zero_ fill_.Scalar"
_IN_PLACE_LISTS = (
    "_foreach_add_.Tensor _foreach_add_.List _foreach_add_.Scalar _foreach_mul_.Scalar "
    "_foreach_mul_.List _foreach_mul_.Tensor _foreach_lerp_.Scalar _foreach_lerp_.List "
    "_foreach_addcmul_.Scalar _foreach_addcdiv_.Scalar _foreach_addcdiv_.ScalarList "
    "_foreach_addcmul_.ScalarList _foreach_div_.ScalarList _foreach_div_.List "
    "_foreach_div_.Scalar _foreach_sqrt_ _foreach_neg_ _foreach_zero_ _foreach_sub_.Scalar "
    "_foreach_reciprocal_ _foreach_copy_ _foreach_maximum_.List"
)


def _overloads(names: str) -> list[Any]:
    """The operator overloads of these names that this torch has."""
    found = []
    for name in names.split():
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(aten, packet, None), overload or "default", None)
        if operator is not None:
            found.append(operator)
    return found


FAKE_SHORTCUTS: dict[Any, Shortcut] = {
    aten._local_scalar_dense.default: _number,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    **dict.fromkeys(_overloads(_IN_PLACE), _in_place),
    **dict.fromkeys(_overloads(_IN_PLACE_LISTS), _in_place_list),
}
