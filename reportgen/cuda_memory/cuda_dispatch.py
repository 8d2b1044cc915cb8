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
from .library_workspaces import Platform

aten = torch.ops.aten
Tensor = torch.Tensor
_COMPOSITE = "CompositeImplicitAutograd"
_FLASH_DTYPES = (torch.float16, torch.bfloat16)

personality_lock = threading.RLock()
"""Operators are registered for the whole process, so one trace at a time."""


def _library() -> torch.library.Library:
    make: Callable[..., torch.library.Library] = torch.library.Library
    return make("aten", "IMPL")


class Choices:
    """What was chosen while a personality lasted.

    `depend_on_card` tells whether an older or newer card would have taken another kernel.
    """

    def __init__(self) -> None:
        self.depend_on_card = False


@contextmanager
def cuda_personality(platform: Platform) -> Iterator[Choices]:
    """Take CUDA's branches for attention, dropout, recurrent layers and autocast meanwhile."""
    choices = Choices()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with personality_lock:
        library = _library()
        register: Callable[..., None] = library.impl
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            for name, kernel in _composites(platform, choices).items():
                register(name, kernel, _COMPOSITE, allow_override=True)
            with register_cuda_autocast(library):
                yield choices
        finally:
            forget: Callable[[], None] = library._destroy
            forget()
            torch.backends.mha.set_fastpath_enabled(fast_path)


def _composites(platform: Platform, choices: Choices) -> dict[str, Callable[..., Any]]:
    return {
        "scaled_dot_product_attention": _attention_for(platform, choices),
        "dropout": _dropout,
        **recurrent.REPLACEMENTS,
    }


def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """The fused kernel keeps a mask of one byte an element."""
    if not train or p == 0 or x.numel() == 0:
        return x
    result: Tensor = aten.native_dropout(x, p, train)[0]
    return result


def _attention_for(platform: Platform, choices: Choices) -> Callable[..., Tensor]:
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
        recent = platform.capability >= (8, 0)
        kind, other = (
            _attention_kind(generation, query, key, value, attn_mask, enable_gqa)
            for generation in (recent, not recent)
        )
        choices.depend_on_card = choices.depend_on_card or kind != other
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
        if bias.dtype is torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(mask.logical_not(), -1e4)
        missing = -bias.shape[-1] % 16
        if missing:
            bias = torch.nn.functional.pad(bias, (0, missing))[..., : bias.shape[-1]]
        shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        bias = bias.expand(shape)
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    result: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_gradient, dropout_p, is_causal, scale=scale
    )[0]
    return result
