"""Inverses and determinants of small matrices in closed form, by minors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST = 4  # by minors; beyond it they are many, and cancel

Rows = list[list["Tensor"]]


def _inverse(x: Tensor) -> Any:
    """The adjugate over the determinant; a singular matrix gives Inf or NaN, not an error."""
    import torch

    size = x.shape[-1]
    if not isinstance(size, int) or not 0 < size <= _LARGEST or x.dtype.is_complex:
        return NotImplemented
    rows = [list(row.unbind(-1)) for row in x.unbind(-2)]
    cofactors = [[_cofactor(rows, i, j) for j in range(size)] for i in range(size)]
    products = [a * b for a, b in zip(rows[0], cofactors[0], strict=True)]
    determinant = _total(products)
    adjugate = torch.stack([torch.stack(column, -1) for column in cofactors], -1)
    return adjugate / determinant[..., None, None]


def _cofactor(rows: Rows, row: int, column: int) -> Tensor:
    minor = [[*r[:column], *r[column + 1 :]] for k, r in enumerate(rows) if k != row]
    value = _determinant(minor) if minor else rows[0][0].new_ones(rows[0][0].shape)
    return -value if (row + column) % 2 else value


def _determinant(rows: Rows) -> Tensor:
    """By the first row; two by two at the end."""
    if len(rows) == 1:
        return rows[0][0]
    if len(rows) == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    return _total([value * _cofactor(rows, 0, place) for place, value in enumerate(rows[0])])


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _inverse_and_info(x: Tensor, **_options: Any) -> Any:
    import torch

    inverse = _inverse(x)
    if inverse is NotImplemented:
        return NotImplemented
    return inverse, x.new_zeros(x.shape[:-2], dtype=torch.int32)


def _solution(a: Tensor, b: Tensor, *, left: bool = True) -> Any:
    inverse = _inverse(a)
    if inverse is NotImplemented:
        return NotImplemented
    is_vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if not is_vector:
        return inverse @ b if left else b @ inverse
    return (inverse @ b.unsqueeze(-1)).squeeze(-1)


def _log_determinant(x: Tensor) -> Any:
    """The sign and the logarithm; the factors that torch also keeps are not computed."""
    import torch

    determinant = torch.linalg.det(x)
    pivots = x.new_zeros(x.shape[:-1], dtype=torch.int32)
    return determinant.sign(), determinant.abs().log(), x.clone(), pivots


MATRICES: dict[str, Callable[..., Any]] = {
    "_linalg_slogdet.default": _log_determinant,
    "inverse.default": _inverse,
    "linalg_inv.default": _inverse,
    "linalg_inv_ex.default": _inverse_and_info,
    "linalg_solve.default": _solution,
}
