"""Whether two tensors agree, bit for bit or within what rounding explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_TOLERANCES = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-3,
    torch.complex64: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Relative to the largest number of the tensor: another shape is summed in another order."""


def is_same(a: Tensor, b: Tensor) -> bool:
    """Equality in every number, in which NaN equals itself; dtype and shape included."""
    if a.shape != b.shape or a.dtype != b.dtype or a.layout != b.layout:
        return False
    if a.is_quantized or a.layout != torch.strided:
        a, b = _plain(a), _plain(b)
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def rounding_of(tensors: Iterable[Tensor]) -> float:
    """What rounding in the least exact dtype among `tensors` may cost; 0 without floats."""
    return max((_TOLERANCES.get(dtype, 0.0) for dtype in {t.dtype for t in tensors}), default=0.0)


def is_close(a: Tensor, b: Tensor, *, share: float = 1.0, rounding: float = 0.0) -> bool:
    """Equality but for rounding; whole numbers and truths must be equal.

    `share` is the part of the tolerance that is allowed. `rounding` is what the numbers were
    computed with, where that may be less exact than the dtype that they came out in.
    """
    if is_same(a, b):
        return True
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype not in _TOLERANCES:
        return False
    a, b = _plain(a), _plain(b)
    finite = a.isfinite() & b.isfinite()
    if not is_same(a[~finite], b[~finite]):
        return False
    limit = share * max(_TOLERANCES[a.dtype], rounding) * largest(b[finite])
    return largest(a[finite] - b[finite]) <= limit


def largest(tensor: Tensor) -> float:
    """The largest magnitude; 0 for no numbers."""
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def distance(a: Tensor, b: Tensor) -> float | None:
    """The largest difference where both are finite; None where they cannot be subtracted."""
    if a.shape != b.shape or a.dtype == torch.bool or b.dtype == torch.bool:
        return None
    a, b = _plain(a), _plain(b)
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    apart = a.to(wide) - b.to(wide)
    return largest(apart[apart.isfinite()])


def how_far(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str:
    """The outputs that differ by more than rounding, in words; "" for none.

    Example: `logits by up to 0.53`.
    """
    if list(a) != list(b):
        return "the output keys differ"
    words = []
    for key, tensor in a.items():
        if is_close(tensor, b[key]):
            continue
        apart = distance(tensor, b[key])
        by = f" by up to {apart:.2g}" if apart else ""
        words.append(f"{key or 'the output'}{by}")
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    plain = _plain(tensor)
    if plain.sum().isfinite():  # many times faster, and a NaN or an infinity cannot hide in it
        return True
    return bool(plain.isfinite().all())  # finite numbers may have a sum that is not


def _plain(tensor: Tensor) -> Tensor:
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()
