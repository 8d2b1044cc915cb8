"""The CUDA personality: composite operators replaced by what they become on a CUDA device.

A trace runs on fake CPU tensors, so torch would take its CPU branches. While `cuda_personality`
lasts, the composite operators whose CUDA branch allocates differently are registered anew; the
originals come back afterwards, whatever happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import recurrent
from .autocast import register_cuda_autocast
from .library import Platform

aten = torch.ops.aten
Tensor = torch.Tensor
_COMPOSITE = "CompositeImplicitAutograd"
_FLASH_DTYPES = (torch.float16, torch.bfloat16)

personality_lock = threading.RLock()
"""Operators are registered for the whole process, so one trace at a time."""


@contextmanager
def cuda_personality(platform: Platform) -> Iterator[None]:
    """Take CUDA's branches for attention, dropout, recurrent layers and autocast meanwhile."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with personality_lock:
        library = torch.library.Library("aten", "IMPL")
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            for name, kernel in _composites(platform).items():
                library.impl(name, kernel, _COMPOSITE, allow_override=True)
            with register_cuda_autocast(library):
                yield
        finally:
            library._destroy()
            torch.backends.mha.set_fastpath_enabled(fast_path)


def _composites(platform: Platform) -> dict[str, Callable[..., Any]]:
    return {
        "scaled_dot_product_attention": _attention_for(platform),
        "dropout": _dropout,
        **recurrent.REPLACEMENTS,
    }


def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """The fused kernel keeps a mask of one byte an element."""
    if not train or p == 0 or x.numel() == 0:
        return x
    result: Tensor = aten.native_dropout(x, p, train)[0]
    return result


def _attention_for(platform: Platform) -> Callable[..., Tensor]:
    """Scaled dot-product attention that picks the kernel of this card."""

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
        kind = _attention_kind(platform, query, key, value, attn_mask, enable_gqa)
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
    platform: Platform,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    enable_gqa: bool,
) -> str:
    """flash, else efficient, else math, by the conditions of native/transformers/cuda/sdp_utils."""
    if query.dim() != 4 or not query.shape[-1] == key.shape[-1] == value.shape[-1]:
        return "math"
    width, half = query.shape[-1], query.dtype in _FLASH_DTYPES
    if half and mask is None and width <= 256 and platform.capability >= (8, 0):
        return "flash"
    alignment = 8 if half else 4
    if platform.capability < (8, 0) and not half:
        alignment = 1
    usable = query.dtype in (*_FLASH_DTYPES, torch.float32) and width % alignment == 0
    return "efficient" if usable and not enable_gqa else "math"


def _flash(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float, is_causal: bool, scale: float | None
) -> Tensor:
    """Heads are padded to a multiple of eight columns, as torch does."""
    width = query.shape[-1]
    if width % 8:
        query, key, value = (torch.nn.functional.pad(t, (0, 8 - width % 8)) for t in (query, key, value))
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
    """A mask becomes an additive bias of the query's type, its last dimension aligned to 8 or 16."""
    bias = None
    if mask is not None:
        bias = mask
        if bias.dtype is torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(mask.logical_not(), -1e4)
        missing = -bias.shape[-1] % 16
        if missing:
            bias = torch.nn.functional.pad(bias, (0, missing))[..., : bias.shape[-1]]
        shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        bias = bias.expand(shape)
    needs_gradient = torch.is_grad_enabled() and any(
        t.requires_grad for t in (query, key, value)
    )
    result: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_gradient, dropout_p, is_causal, scale=scale
    )[0]
    return result
