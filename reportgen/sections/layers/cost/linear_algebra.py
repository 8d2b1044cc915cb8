"""FLOP formulas of transforms, distances and factorizations, to leading order.

These are not sums of multiply-adds of two operands. By convention, which the page states, they
count as the real floating-point operations of the classic algorithm (Golub & Van Loan, *Matrix
Computations*, 4th edition), two of which are one multiply-add. The fast Fourier transform of n
complex numbers is 5·n·log2 n, of n real ones half of it. On complex matrices an operation counts
as one, as in torch.utils.flop_counter. Under a dispatch mode, `svdvals` and `eigvalsh` also compute
the vectors, so these are counted.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reportgen.sections.layers.cost.registration import Formula


def linear_algebra_formulas() -> dict[Any, Formula]:
    """Formulas by operator packet; each gives an even number of FLOPs."""
    aten = torch.ops.aten
    found: dict[str, Formula] = {
        "_fft_c2c": lambda x, dims, *_, **__: _fft(5, x, dims, x.shape),
        "_fft_r2c": lambda x, dims, *_, **__: _fft(2.5, x, dims, x.shape),
        "_fft_c2r": lambda _, dims, *__, out_val, **___: _fft(2.5, out_val, dims, out_val.shape),
        "_cdist_forward": _pairs,
        "_euclidean_dist": _pairs,
        "_pdist_forward": _own_pairs,
        "_linalg_solve_ex": lambda a, *_, out_val, **__: (
            _times(a, _lu(_n(a))) + _solve(a, out_val[0], 2)
        ),
        "linalg_lu": lambda a, **_: _times(a, _lu_of(a)),
        "_linalg_det": lambda a, **_: _times(a, _lu(_n(a))),
        "_linalg_slogdet": lambda a, **_: _times(a, _lu(_n(a))),
        "linalg_inv_ex": lambda a, **_: _times(a, 2 * _n(a) ** 3),
        "linalg_cholesky_ex": lambda a, **_: _times(a, _n(a) ** 3 / 3),
        "cholesky_solve": lambda _, a, *__, out_val, **___: _solve(a, out_val, 2),
        "linalg_solve_triangular": lambda a, *_, out_val, **__: _solve(a, out_val, 1),
        "linalg_qr": _qr,
        "linalg_householder_product": lambda a, _, **__: _times(a, _householder(a)),
        "_linalg_svd": _svd,
        "_linalg_eigh": _symmetric_eigen,
        "linalg_eig": lambda a, **_: _times(a, 25 * _n(a) ** 3),
    }
    # private operators come and go with the torch version
    return {getattr(aten, name): found[name] for name in found if hasattr(aten, name)}


def _even(flops: float) -> int:
    """To the next even number, so that multiply-adds stay whole."""
    return 2 * round(flops / 2)


def _fft(factor: float, held: Tensor, dims: list[int], shape: torch.Size) -> int:
    """`factor`·N·log2 N over all transformed dimensions together; N is the longer side's."""
    points = math.prod(int(shape[dim]) for dim in dims)
    return _even(factor * held.numel() * math.log2(points)) if points > 1 else 0


def _pairs(left: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """A multiply-add for each coordinate of each pair of points, whatever the norm."""
    return 2 * out_val.numel() * int(left.shape[-1])


def _own_pairs(x: Tensor, *_: Any, **__: Any) -> int:
    rows, width = map(int, x.shape)
    return rows * (rows - 1) * width  # rows·(rows − 1)/2 pairs


def _n(a: Tensor) -> int:
    return int(a.shape[-1])


def _times(a: Tensor, each: float) -> int:
    """`each` for every matrix of the batch."""
    return math.prod(a.shape[:-2]) * _even(each)


def _lu(n: int) -> float:
    return 2 * n**3 / 3  # Gaussian elimination


def _lu_of(a: Tensor) -> float:
    """m·k² − k³/3 multiply-adds for an m by n matrix whose shorter side is k."""
    long, short = _sides(a)
    return long * short**2 - short**3 / 3


def _sides(a: Tensor) -> tuple[int, int]:
    sides = sorted(map(int, a.shape[-2:]))
    return sides[1], sides[0]


def _solve(a: Tensor, solution: Tensor, triangles: int) -> int:
    """n² FLOPs for each triangular matrix and each column of the solution."""
    return triangles * _n(a) * solution.numel()


def _householder(a: Tensor) -> float:
    """2·m·n² − 2·n³/3, n the shorter side."""
    long, short = _sides(a)
    return 2 * long * short**2 - 2 * short**3 / 3


def _qr(a: Tensor, mode: str = "reduced", **_: Any) -> int:
    """The triangle, and as much again for Q; all of Q costs by its own size."""
    triangle = _householder(a)
    if mode == "r":
        return _times(a, triangle)
    rows = int(a.shape[-2])
    if mode == "complete" and rows > _n(a):
        n = _n(a)
        return _times(a, triangle + 4 * (rows**2 * n - rows * n**2 + n**3 / 3))
    return _times(a, 2 * triangle)


def _singular(a: Tensor, *, vectors: bool) -> float:
    """Golub-Reinsch: 14·m·n² + 8·n³ with both thin sides, 4·m·n² − 4·n³/3 for values alone."""
    long, short = _sides(a)
    if vectors:
        return 14 * long * short**2 + 8 * short**3
    return 4 * long * short**2 - 4 * short**3 / 3


def _svd(a: Tensor, *options: Any, compute_uv: bool = True, **_: Any) -> int:
    vectors = options[1] if len(options) > 1 else compute_uv  # after `full_matrices`
    return _times(a, _singular(a, vectors=vectors))


def _symmetric_eigen(a: Tensor, *options: Any, compute_v: bool = True, **_: Any) -> int:
    """Tridiagonalization and QR steps: 9·n³ with vectors, 4·n³/3 without."""
    vectors = options[1] if len(options) > 1 else compute_v  # after which triangle is read
    return _times(a, 9 * _n(a) ** 3 if vectors else 4 * _n(a) ** 3 / 3)
