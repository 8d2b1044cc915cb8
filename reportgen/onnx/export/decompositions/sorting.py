"""Sorting, selection by rank, and cumulative operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def _sort_stable(x: Tensor, *, dim: int = -1, descending: bool = False, **_stable: Any) -> Any:
    # an unstable sort is exported as TopK, which puts the lower index first among equals
    return x.sort(dim, descending)


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    values, indices = x.topk(k, dim, largest=False)  # sorted: the last one is the k-th
    taken = (each.narrow(dim, k - 1, 1) for each in (values, indices))
    return tuple(each if keepdim else each.squeeze(dim) for each in taken)


def _median(x: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The lower of the two in the middle; NaN if there is one, with its first index."""
    size = x.shape[dim]
    value, index = _kthvalue(x, (size + 1) // 2, dim, keepdim=True)
    if x.dtype.is_floating_point:
        odd = x.isnan()
        any_odd = odd.any(dim, keepdim=True)
        value = value.masked_fill(any_odd, math.nan)
        index = odd.long().argmax(dim, keepdim=True).where(any_odd, index)
    return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))


def _median_of_all(x: Tensor) -> Tensor:
    value: Tensor = _median(x.reshape(-1), 0)[0]
    return value


def _searchsorted(
    edges: Tensor,
    x: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    import torch

    # sorted edges: the number of those below a value is its position
    if sorter is not None:
        edges = edges.gather(-1, sorter)
    x = x if isinstance(x, torch.Tensor) else edges.new_full((), x)
    lower = edges if edges.ndim == 1 or x.ndim == 0 else edges.unsqueeze(-2)
    below = lower <= x.unsqueeze(-1) if right or side == "right" else lower < x.unsqueeze(-1)
    count: Tensor = below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)
    return count


# ONNX accumulates sums only (CumSum): here each position reduces over all before it, which takes
# size² elements
def _rows_so_far(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`x` as one row for each position of `dim`, and the mask of what precedes the position."""
    import torch

    size = x.shape[dim]
    place = torch.arange(size, device=x.device)
    return x.movedim(dim, -1).unsqueeze(-2), place.unsqueeze(0) <= place.unsqueeze(1)


def _cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Any:
    import torch

    kind = dtype or (x.dtype if x.dtype.is_floating_point or x.dtype.is_complex else torch.int64)
    if x.ndim == 0 or kind.is_complex:
        return NotImplemented
    rows, seen = _rows_so_far(x.to(kind), dim)
    return rows.where(seen, torch.ones_like(rows)).prod(-1).movedim(-1, dim)


def _cumulative(extreme: str, least: float) -> Callable[..., Any]:
    """The largest or smallest value so far, and the last of its indices."""

    def form(x: Tensor, dim: int) -> Any:
        if x.ndim == 0 or not x.dtype.is_floating_point:  # integers have no infinity to mask with
            return NotImplemented
        rows, seen = _rows_so_far(x, dim)
        hidden = rows.masked_fill(~seen, least)
        values = getattr(hidden, extreme)(-1, keepdim=True)
        size = x.shape[dim]
        reached = (hidden == values) & seen
        # positions count from 1, so that those not reached, 0, never win
        places = reached.long() * seen.new_ones(size).long().cumsum(0)
        return values.squeeze(-1).movedim(-1, dim), (places.amax(-1) - 1).movedim(-1, dim)

    return form


ORDERS: dict[str, Callable[..., Any]] = {
    "cummax.default": _cumulative("amax", -math.inf),
    "cummin.default": _cumulative("amin", math.inf),
    "cumprod.default": _cumprod,
    "kthvalue.default": _kthvalue,
    "median.default": _median_of_all,
    "median.dim": _median,
    "searchsorted.Scalar": _searchsorted,
    "searchsorted.Tensor": _searchsorted,
    "sort.stable": _sort_stable,
}
