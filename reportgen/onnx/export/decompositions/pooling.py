"""Adaptive pooling as slices: each output place has a window of its own along every axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_MOST_WINDOWS = 256  # along an axis; each is a node or two of the file


def _windows(x: Tensor, dim: int, size: int) -> list[Tensor]:
    """The slices of an axis that `size` output places see, as torch lays them."""
    length = x.shape[dim]
    starts = [place * length // size for place in range(size)]
    ends = [-(-(place + 1) * length // size) for place in range(size)]
    return [x.narrow(dim, a, b - a) for a, b in zip(starts, ends, strict=True)]


def _is_bounded(x: Tensor, sizes: Sequence[int]) -> bool:
    fixed = all(isinstance(length, int) for length in x.shape[-len(sizes) :])
    return fixed and max(sizes) <= _MOST_WINDOWS


def _average(x: Tensor, sizes: Sequence[int]) -> Any:
    """Axis by axis: the mean of a box is the mean of the means of its rows."""
    import torch

    if not _is_bounded(x, sizes):
        return NotImplemented
    for dim, size in zip(range(-len(sizes), 0), sizes, strict=True):
        x = torch.cat([part.mean(dim, keepdim=True) for part in _windows(x, dim, size)], dim)
    return x


def _largest(x: Tensor, sizes: Sequence[int]) -> Any:
    """The largest value of each box and its place in the flattened input, the last axis first.

    Ties go to the first place, as in torch: the first row that has the value, and in it the
    first column.
    """
    import torch

    if not _is_bounded(x, sizes):
        return NotImplemented
    shape = x.shape[-len(sizes) :]
    count = 1
    for length in shape:
        count *= length
    place = torch.arange(count, device=x.device).reshape(shape).expand(x.shape)
    for dim, size in reversed(list(zip(range(-len(sizes), 0), sizes, strict=True))):
        parts = zip(_windows(x, dim, size), _windows(place, dim, size), strict=True)
        found = [_first_largest(values, places, dim) for values, places in parts]
        x = torch.cat([values for values, _ in found], dim)
        place = torch.cat([places for _, places in found], dim)
    return x, place


def _first_largest(x: Tensor, place: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    index = x.argmax(dim, keepdim=True)
    return x.gather(dim, index), place.gather(dim, index)


POOLING: dict[str, Callable[..., Any]] = {
    "_adaptive_avg_pool3d.default": _average,
    "adaptive_max_pool2d.default": _largest,
    "adaptive_max_pool3d.default": _largest,
}
