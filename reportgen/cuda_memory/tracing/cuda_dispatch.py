"""Run composite operators as on a CUDA device, while the tensors are fake CPU tensors.

While `cuda_dispatch` is active, the operators whose CUDA branch allocates differently are replaced:
attention, dropout, recurrent layers and autocast. LSTM, GRU and plain recurrent layers run as one
cuDNN call per layer stack, with a reserve for the backward pass (see `library.json`) and a
workspace; the cells of the CPU path would record many small tensors instead.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..library_workspaces import Platform, library_figures
from .autocast import autocast_arguments, register_cuda_autocast

Tensor = torch.Tensor
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _reserve_elements(layout: dict[str, Any], steps: int) -> int:
    """What cuDNN keeps of `steps` time steps of all samples, in elements, for the backward pass."""
    if not layout["train"]:
        return 0
    name = {"lstm": "lstm_reserve_gates", "gru": "gru_reserve_gates"}.get(layout["kind"])
    figures = library_figures()["rnn"]
    each = float(figures[name or "rnn_reserve_gates"]["nominal"]) * layout["hidden"]
    projected = layout["output_width"] // layout["directions"]
    if projected != layout["hidden"]:
        each += float(figures["projected_reserve_gates"]["nominal"]) * layout["hidden"] + projected
    dropped = (layout["layers"] - 1) * layout["hidden"] if layout["dropout"] else 0
    return int(steps * layout["directions"] * (layout["layers"] * each + dropped))


def _workspace_elements(layout: dict[str, Any], steps: int, weights: Sequence[Tensor]) -> int:
    gates = _GATES[layout["kind"]] + float(library_figures()["rnn"]["workspace_gates"]["nominal"])
    states = steps * layout["hidden"] * layout["layers"] * layout["directions"]
    return int(gates * states) + sum(weight.numel() for weight in weights)


class _CudnnRnn(torch.autograd.Function):
    """Allocates what `_cudnn_rnn` and its backward allocate, without computing values."""

    @staticmethod
    def forward(ctx: Any, layout: dict[str, Any], x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """`x` is [time, batch, features]; `rest` the states, then the weights."""
        states, weights = rest[: layout["states"]], rest[layout["states"] :]
        steps = x.shape[:-1]
        output = x.new_empty((*steps, layout["output_width"]))
        ends = [state.new_empty(state.shape) for state in states]
        workspace = x.new_empty((_workspace_elements(layout, steps.numel(), weights),))
        reserve = x.new_empty((_reserve_elements(layout, steps.numel()),))
        del workspace  # cuDNN frees it when the call returns
        ctx.layout = layout
        ctx.save_for_backward(x, output, reserve, *states, *weights)
        return (output, *ends)

    @staticmethod
    def backward(ctx: Any, *_grads: Any) -> Any:
        """Gradients of the input, the states and the weights, these in one flat buffer."""
        x, _output, _reserve, *rest = ctx.saved_tensors
        layout = ctx.layout
        states, weights = rest[: layout["states"]], rest[layout["states"] :]
        grad_x = x.new_empty(x.shape)
        grad_states = [state.new_empty(state.shape) for state in states]
        elements = _workspace_elements(layout, x.shape[:-1].numel(), weights)
        workspace = x.new_empty((elements,))  # for the input's gradient
        del workspace
        flat = x.new_zeros((sum(weight.numel() for weight in weights),))
        workspace = x.new_empty((elements,))  # for the weights' gradients
        del workspace
        parts = flat.split([weight.numel() for weight in weights])
        grad_weights = [
            part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)
        ]
        return (None, grad_x, *grad_states, *grad_weights)


def _run(
    kind: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    x, *rest = autocast_arguments((x, *states, *weights))
    count = len(states)
    hidden = rest[count + 1].shape[0] // _GATES[kind]  # of weight_hh_l0: before a projection
    directions = 2 if bidirectional else 1
    layout = {
        "kind": kind,
        "states": count,
        "hidden": hidden,
        "layers": layers,
        "directions": directions,
        "output_width": states[0].shape[-1] * directions,
        "dropout": train and dropout > 0,
        "train": train or (torch.is_grad_enabled() and x.requires_grad),
    }
    return _CudnnRnn.apply(layout, x, *rest)  # type: ignore[no-any-return]


def _padded(kind: str) -> Callable[..., tuple[Tensor, ...]]:
    """The `.input` overload: one tensor of equal lengths."""

    def run(
        x: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        _has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        states = list(hx) if kind == "lstm" else [hx]
        if batch_first:  # cuDNN takes the time first
            x = x.transpose(0, 1).contiguous()
        output, *ends = _run(kind, x, states, params, num_layers, dropout, train, bidirectional)
        return (output.transpose(0, 1) if batch_first else output, *ends)

    return run


def _packed(kind: str) -> Callable[..., tuple[Tensor, ...]]:
    """The `.data` overload: packed sequences of several lengths."""

    def run(
        data: Tensor,
        _batch_sizes: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        _has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> tuple[Tensor, ...]:
        states = list(hx) if kind == "lstm" else [hx]
        return _run(kind, data, states, params, num_layers, dropout, train, bidirectional)

    return run


_RECURRENT: dict[str, Callable[..., Any]] = {
    **{f"{kind}.input": _padded(kind) for kind in _GATES},
    **{f"{kind}.data": _packed(kind) for kind in _GATES},
}


aten = torch.ops.aten
_COMPOSITE = "CompositeImplicitAutograd"
_FLASH_DTYPES = (torch.float16, torch.bfloat16)

# operators are registered for the whole process, so only one trace runs at a time
dispatch_lock = threading.RLock()


class KernelChoices:
    """`depend_on_gpu`: whether GPUs of another generation would have run other kernels."""

    def __init__(self) -> None:
        self.depend_on_gpu = False


@contextmanager
def cuda_dispatch(platform: Platform) -> Iterator[KernelChoices]:
    """Register the CUDA branches of attention, dropout, recurrent layers and autocast."""
    choices = KernelChoices()
    composites = {
        "scaled_dot_product_attention": _attention_for(platform, choices),
        "dropout": _dropout,
        **_RECURRENT,
    }
    with dispatch_lock, torch.library._scoped_library("aten", "IMPL") as library:
        fast_path = torch.backends.mha.get_fastpath_enabled()
        try:
            # the fused encoder layer is one operator, whose hidden buffers no kernel here records
            torch.backends.mha.set_fastpath_enabled(False)
            for name, kernel in composites.items():
                # composite, so that autograd differentiates the operators of the CUDA branch
                library.impl(name, kernel, _COMPOSITE, allow_override=True)
            with register_cuda_autocast(library), _one_sequence_per_row():
                yield choices
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _one_sequence_per_row() -> Iterator[None]:
    """What transformers finds when it reads position ids, which fake tensors do not have.

    It looks for sequences packed into one row. Where it cannot look, it passes an attention mask,
    and the GPU would run another kernel.
    """
    masks: Any = sys.modules.get("transformers.masking_utils")
    find = getattr(masks, "find_packed_sequence_indices", None)
    if find is None:
        yield
        return
    masks.find_packed_sequence_indices = lambda *_: None
    try:
        yield
    finally:
        masks.find_packed_sequence_indices = find


def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """The fused kernel keeps a mask of one byte per element."""
    if not train or p == 0 or x.numel() == 0:
        return x
    result: Tensor = aten.native_dropout(x, p, train)[0]
    return result


def _attention_for(platform: Platform, choices: KernelChoices) -> Callable[..., Tensor]:
    """Scaled dot-product attention with the kernel of this GPU."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        recent = platform.capability >= (8, 0)
        # both generations, so that one trace serves all GPUs of a model without attention
        kind, other = (
            _attention_kind(generation, query, key, value, attn_mask, enable_gqa)
            for generation in (recent, not recent)
        )
        choices.depend_on_gpu = choices.depend_on_gpu or kind != other
        if kind == "flash":
            return _flash(query, key, value, dropout_p, is_causal, scale)
        if kind == "efficient":
            return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)
        result: Tensor = aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
        return result

    return attention


def _attention_kind(
    recent: bool,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    enable_gqa: bool,
) -> str:
    """flash, else efficient, else math, by the conditions of native/transformers/cuda/sdp_utils.

    `recent` is Ampere and later.
    """
    # the fused kernels take [batch, heads, length, width] of equal widths
    if query.dim() != 4 or not query.shape[-1] == key.shape[-1] == value.shape[-1]:
        return "math"
    width, half = query.shape[-1], query.dtype in _FLASH_DTYPES
    if half and mask is None and width <= 256 and recent:
        return "flash"
    alignment = 8 if half else 4
    if not recent and not half:
        alignment = 1
    usable = query.dtype in (*_FLASH_DTYPES, torch.float32) and width % alignment == 0
    return "efficient" if usable and not enable_gqa else "math"


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """Heads are padded to a multiple of eight columns, as torch does."""
    width = query.shape[-1]
    if width % 8:
        padding = (0, 8 - width % 8)
        query, key, value = (torch.nn.functional.pad(t, padding) for t in (query, key, value))
    result: Tensor = aten._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, scale=scale
    )[0]
    return result[..., :width] if width % 8 else result


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """A mask becomes an additive bias of the query's type, its rows aligned to 16 elements."""
    bias = None
    if mask is not None:
        bias = mask
        # -1e4 instead of -inf: only the size counts
        if bias.dtype is torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(mask.logical_not(), -1e4)
        missing = -bias.shape[-1] % 16
        if missing:
            bias = torch.nn.functional.pad(bias, (0, missing))[..., : bias.shape[-1]]
        bias = bias.expand((*query.shape[:3], key.shape[2]))
    # the log-sum-exp is an output only if a backward pass will use it
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    result: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_gradient, dropout_p, is_causal, scale=scale
    )[0]
    return result
