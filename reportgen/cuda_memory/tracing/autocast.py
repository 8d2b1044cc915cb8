"""CUDA's autocast lists applied to CPU tensors.

`torch.autocast("cpu")` casts by the CPU lists. While `register_cuda_autocast` lasts, the autocast
kernels of the listed operators follow the CUDA lists of aten/src/ATen/autocast_mode.h instead:
the cast of a leaf weight is kept until the outermost autocast block ends, as on CUDA.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

Tensor = torch.Tensor
aten = torch.ops.aten

# lower_precision_fp, fp32, fp32_set_opt_dtype and promote of autocast_mode.h
LOWER = [
    "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "convolution", "prelu", "addmm", "addmv", "addr", "matmul", "einsum", "mm",
    "mv", "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot",
    "scaled_dot_product_attention", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
]  # fmt: skip
FP32 = [
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal",
    "rsqrt", "sinh", "tan", "pow", "softplus", "layer_norm", "native_layer_norm", "rms_norm",
    "group_norm", "frobenius_norm", "nuclear_norm", "cosine_similarity",
    "poisson_nll_loss", "cosine_embedding_loss", "nll_loss",
    "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss",
    "mse_loss", "margin_ranking_loss", "multilabel_margin_loss", "soft_margin_loss",
    "triplet_margin_loss", "multi_margin_loss", "binary_cross_entropy_with_logits", "dist", "pdist",
    "cdist", "renorm", "logsumexp", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
    "upsample_bicubic2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
]  # fmt: skip
FP32_OUTPUT = [
    "prod", "softmax", "log_softmax", "cumprod", "cumsum", "linalg_vector_norm",
    "linalg_matrix_norm", "sum",
]  # fmt: skip
WIDEST = [
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "index_put", "tensordot",
    "scatter_add", "grid_sampler",
]  # fmt: skip

_LISTED = {*LOWER, *FP32, *FP32_OUTPUT, *WIDEST}
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
_CASTABLE = (torch.float32, torch.float16, torch.bfloat16)
_casts: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}


@contextmanager
def register_cuda_autocast(library: torch.library.Library) -> Iterator[None]:
    """Register the CUDA lists with `library`, and keep the casts of weights as CUDA does."""
    register: Callable[..., None] = library.impl
    for names, kernel_of in (
        (LOWER, _lower),
        (FP32, _fp32),
        (FP32_OUTPUT, _fp32_output),
        (WIDEST, _widest),
    ):
        for overload in _overloads(names):
            register(overload, kernel_of(overload), "AutocastCPU", allow_override=True)
    for name in _cast_on_cpu_alone():
        register(name, torch.library.fallthrough_kernel, "AutocastCPU", allow_override=True)
    # torch.autocast calls it when its outermost block ends
    original = torch.clear_autocast_cache

    def clear() -> None:
        _casts.clear()
        original()

    torch.clear_autocast_cache = clear
    try:
        with _cuda_autocast_enabled():
            yield
    finally:
        torch.clear_autocast_cache = original
        _casts.clear()


@contextmanager
def _cuda_autocast_enabled() -> Iterator[None]:
    """Let `torch.autocast("cuda")` in a model cast the CPU tensors that stand for CUDA tensors.

    Without a GPU torch disables it with a warning when it is created.
    """
    cls: Any = torch.autocast
    original = cls.__init__

    def init(
        self: Any, device_type: str, dtype: torch.dtype | None = None, *args: Any, **kwargs: Any
    ) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
        original(self, device_type, dtype, *args, **kwargs)

    cls.__init__ = init
    try:
        yield
    finally:
        cls.__init__ = original


def autocast_arguments(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The tensors in the type of autocast if it is enabled, else unchanged."""
    if not torch.is_autocast_enabled("cpu"):
        return list(tensors)
    dtype = torch.get_autocast_dtype("cpu")
    return [_cast(tensor, dtype) for tensor in tensors]


@cache  # of the 3,000 names that torch knows
def _cast_on_cpu_alone() -> tuple[str, ...]:
    """Operators that CUDA's autocast leaves alone: what they call inside is still cast."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return tuple(
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::")
        and name.removeprefix("aten::").split(".")[0] not in _LISTED
        and has_kernel(name, "AutocastCPU")
        and not has_kernel(name, "AutocastCUDA")
    )


def _overloads(names: list[str]) -> Iterator[Any]:
    for name in names:
        packet = getattr(aten, name, None)  # a version of torch may lack a name
        for overload in packet.overloads() if packet is not None else ():
            # the lists contain neither variant
            if "out" not in overload and "dimname" not in overload.lower():
                yield getattr(packet, overload)


def _lower(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        return _run_cast(op, args, kwargs, torch.get_autocast_dtype("cpu"))

    return kernel


def _fp32(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        return _run_cast(op, args, kwargs, torch.float32)

    return kernel


def _fp32_output(op: Any) -> Callable[..., Any]:
    """The result is fp32 unless the caller passed a type."""
    takes_dtype = any(argument.name == "dtype" for argument in op._schema.arguments)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else None
        low = isinstance(first, Tensor) and first.dtype in _CASTABLE[1:]
        named = len(args) > _dtype_position(op)
        if takes_dtype and low and not named and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        return _run_cast(op, args, kwargs, None)

    return kernel


def _widest(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtypes = {leaf.dtype for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
        wide = torch.float32 in dtypes
        dtype = torch.float32 if wide else torch.get_autocast_dtype("cpu")
        return _run_cast(op, args, kwargs, dtype if dtypes.intersection(_CASTABLE) else None)

    return kernel


def _run_cast(
    op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype | None
) -> Any:
    """Run below autocast, with the arguments in `dtype`; None leaves them as they are."""
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        if dtype is None:
            return op(*args, **kwargs)
        return op(*_cast(args, dtype), **_cast(kwargs, dtype))


def _dtype_position(op: Any) -> int:
    names = [a.name for a in op._schema.arguments if not a.kwarg_only]
    return names.index("dtype") if "dtype" in names else len(op._schema.arguments)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast the floating tensors in nested arguments; doubles and integers stay."""
    if isinstance(value, Tensor):
        return _cast_tensor(value, dtype) if value.dtype in _CASTABLE else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value


def _cast_tensor(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.dtype is dtype:
        return tensor
    # the conditions of cached_cast: an activation is cast again, a weight once
    keep = (
        tensor.requires_grad
        and tensor.is_leaf
        and not tensor._is_view()
        and tensor.dtype is torch.float32
        and dtype is not torch.float32
        and torch.is_autocast_cache_enabled()
    )
    if not keep:
        return tensor.to(dtype)
    found = _casts.get(id(tensor))
    # the reference shows whether the id now belongs to another tensor
    if found is not None and found[0]() is tensor:
        return found[1]
    cast = tensor.to(dtype)
    _casts[id(tensor)] = (weakref.ref(tensor), cast)
    return cast
