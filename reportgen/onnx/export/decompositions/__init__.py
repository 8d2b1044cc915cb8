"""Decompositions of operators that torch's exporter cannot translate into ones that it can.

Each is exact: it computes what the operator does, up to rounding and to which of equal values
comes first. An operator whose arguments do not allow it is left as it is, and the failure
reports it. `tests/onnx/test_export_decompositions.py` compares each with its operator.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.decompositions.complex_numbers import COMPLEX
from reportgen.onnx.export.decompositions.sorting import ORDERS

if TYPE_CHECKING:
    from torch import Tensor

Form = Callable[..., Any]
"""Has the operator's arguments and results; NotImplemented for those it does not support."""


@contextmanager
def use_decompositions() -> Iterator[set[str]]:
    """Let torch's exporter use these decompositions where it has no translation of its own.

    Yields a set that collects the names of the decomposed operators.
    """
    # The exporter's own table of decompositions is extended: `run_decompositions` on the program
    # beforehand would trace the model once more.
    from torch.onnx._internal.exporter import _decomp

    private: Any = _decomp
    theirs = private.create_onnx_friendly_decomposition_table
    used: set[str] = set()
    own = dict(_operators(_FORMS, used))
    complex_ones = dict(_operators(COMPLEX, used))

    def extended(registered: set[Any]) -> dict[Any, Form]:
        # COMPLEX replaces operators that are registered, but for real numbers only
        missing = {op: form for op, form in own.items() if op not in registered}
        return {**theirs(registered), **missing, **complex_ones}

    private.create_onnx_friendly_decomposition_table = extended
    try:
        yield used
    finally:
        private.create_onnx_friendly_decomposition_table = theirs


def _operators(forms: dict[str, Form], used: set[str]) -> Iterator[tuple[Any, Form]]:
    import torch

    for name, form in forms.items():
        packet, _, overload = name.partition(".")
        found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if found is not None:  # an older torch may not have it
            yield found, partial(_recorded, used, f"aten.{name}", form)


def _recorded(used: set[str], name: str, form: Form, *args: Any, **kwargs: Any) -> Any:
    result = form(*args, **kwargs)
    if result is not NotImplemented:
        used.add(name.removesuffix(".default"))
    return result


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    import torch

    mask = mask & torch.ones_like(x, dtype=torch.bool)  # each may broadcast to the other
    return x.expand(mask.shape)[mask]


def _unfold_backward(
    gradient: Tensor, input_size: list[int], dimension: int, size: int, step: int
) -> Tensor:
    """Overlap and add, as in istft."""
    import torch

    # torch's own decomposition uses int32 indices, which ONNX refuses
    dim = dimension % len(input_size)
    places = torch.arange(input_size[dim], device=gradient.device).unfold(0, size, step).flatten()
    values = gradient.movedim(-1, dim + 1).flatten(dim, dim + 1)
    return gradient.new_zeros(input_size).index_add(dim, places, values)


_REDUCTIONS = {"add": "sum", "multiply": "prod"}


def _scatter_reduced(x: Tensor, dim: int, index: Tensor, given: Any, *, reduce: str) -> Tensor:
    import torch

    if not isinstance(given, torch.Tensor):  # scatter.value_reduce
        given = x.new_full(index.shape, given)
    return x.scatter_reduce(dim, index, given, _REDUCTIONS[reduce])


def _index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [1] * x.ndim
    shape[dim] = -1
    places = index.long().reshape(shape).expand_as(source)
    return x.scatter_reduce(dim, places, source, reduce, include_self=include_self)


def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat, places = x.reshape(-1), index.reshape(-1)
    return flat.index_put((places,), source.reshape(-1), accumulate).reshape(x.shape)


def _as_strided_scatter(
    x: Tensor, given: Tensor, size: list[int], stride: list[int], offset: int | None = None
) -> Any:
    """Write values at memory offsets, as `fill_diagonal_` does."""
    import torch

    # only if the offsets are those of the flattened tensor, and known while tracing
    if not x.is_contiguous() or not all(isinstance(each, int) for each in (*size, *stride)):
        return NotImplemented
    places = torch.full((), offset or 0, dtype=torch.int64, device=x.device)
    for length, step in zip(size, stride, strict=True):
        places = places.unsqueeze(-1) + step * torch.arange(length, device=x.device)
    flat = x.reshape(-1).index_put((places.reshape(-1),), given.reshape(-1))
    return flat.reshape(x.shape)


def _norm(difference: Tensor, p: float) -> Tensor:
    """The p-norm along the last axis."""
    # 0 and infinity have no power formula; 1 and 2 are cheaper without Pow
    if p == 0:
        return (difference != 0).to(difference.dtype).sum(-1)
    if p == 1:
        return difference.abs().sum(-1)
    if p == 2:
        return (difference * difference).sum(-1).sqrt()
    if p == math.inf:
        return difference.abs().amax(-1)
    return difference.abs().pow(p).sum(-1).pow(1 / p)


# the mode chooses between two ways to compute the same distances
def _cdist(a: Tensor, b: Tensor, p: float, _mode: int | None) -> Tensor:
    return _norm(a.unsqueeze(-2) - b.unsqueeze(-3), p)


def _pdist(x: Tensor, p: float = 2.0) -> Any:
    import torch

    if not isinstance(x.shape[0], int):  # every pair of rows becomes a constant index
        return NotImplemented
    row, column = torch.triu_indices(x.shape[0], x.shape[0], 1).unbind()
    return _norm(x[row] - x[column], p)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    import torch

    # scaled by the larger side, so that no square overflows; 0/0 is avoided where both are zero
    a, b = a.abs(), b.abs()
    large = torch.maximum(a, b)
    share = torch.minimum(a, b) / large.masked_fill(large == 0, 1.0)
    return large * (1 + share * share).sqrt()


def _copysign(x: Tensor, sign: Tensor) -> Tensor:
    import torch

    return torch.where(sign.signbit(), -x.abs(), x.abs())  # signbit also holds for -0.0


def _leaky_in_eval(
    x: Tensor,
    noise: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    *_generator: Any,
) -> Any:
    """RReLU in eval mode: its slope is the mean of its bounds."""
    import torch

    if training:  # slopes are random
        return NotImplemented
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2), noise


def _widened_product(a: Tensor, b: Tensor, dtype: Any) -> Tensor:
    return a.to(dtype) @ b.to(dtype)


def _integer_product(a: Tensor, b: Tensor) -> Tensor:
    import torch

    return a.to(torch.int32) @ b.to(torch.int32)


_LARGEST_MATRIX = 4  # inverted by minors: beyond it there are many, and rounding errors grow

Rows = list[list["Tensor"]]


def _inverse(x: Tensor) -> Any:
    """The adjugate over the determinant; a singular matrix gives Inf or NaN, not an error."""
    import torch

    size = x.shape[-1]
    if not isinstance(size, int) or not 0 < size <= _LARGEST_MATRIX or x.dtype.is_complex:
        return NotImplemented
    rows = [list(row.unbind(-1)) for row in x.unbind(-2)]
    cofactors = [[_cofactor(rows, i, j) for j in range(size)] for i in range(size)]
    products = [a * b for a, b in zip(rows[0], cofactors[0], strict=True)]
    determinant = reduce(operator.add, products)
    adjugate = torch.stack([torch.stack(column, -1) for column in cofactors], -1)
    return adjugate / determinant[..., None, None]


def _cofactor(rows: Rows, row: int, column: int) -> Tensor:
    minor = [[*r[:column], *r[column + 1 :]] for k, r in enumerate(rows) if k != row]
    value = _determinant(minor) if minor else rows[0][0].new_ones(rows[0][0].shape)
    return -value if (row + column) % 2 else value


def _determinant(rows: Rows) -> Tensor:
    """Laplace expansion along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    if len(rows) == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    minors = (value * _cofactor(rows, 0, place) for place, value in enumerate(rows[0]))
    return reduce(operator.add, minors)


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
    # torch.linalg.solve's own rule for when `b` is a batch of vectors
    is_vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if not is_vector:
        return inverse @ b if left else b @ inverse
    return (inverse @ b.unsqueeze(-1)).squeeze(-1)


def _log_determinant(x: Tensor) -> Any:
    """Sign and logarithm."""
    import torch

    # torch also returns the LU factors and pivots, for the backward pass only: left uncomputed
    determinant = torch.linalg.det(x)
    pivots = x.new_zeros(x.shape[:-1], dtype=torch.int32)
    return determinant.sign(), determinant.abs().log(), x.clone(), pivots


_MATRICES: dict[str, Form] = {
    "_linalg_slogdet.default": _log_determinant,
    "inverse.default": _inverse,
    "linalg_inv.default": _inverse,
    "linalg_inv_ex.default": _inverse_and_info,
    "linalg_solve.default": _solution,
}


_MOST_WINDOWS = 256  # along an axis; each becomes a node or two of the file


def _windows(x: Tensor, dim: int, size: int) -> list[Tensor]:
    """The slices of an axis under the `size` adaptive windows, with torch's bounds."""
    length = x.shape[dim]
    starts = [place * length // size for place in range(size)]
    ends = [-(-(place + 1) * length // size) for place in range(size)]
    return [x.narrow(dim, a, b - a) for a, b in zip(starts, ends, strict=True)]


def _is_bounded(x: Tensor, sizes: Sequence[int]) -> bool:
    fixed = all(isinstance(length, int) for length in x.shape[-len(sizes) :])
    return fixed and max(sizes) <= _MOST_WINDOWS


def _average(x: Tensor, sizes: Sequence[int]) -> Any:
    import torch

    if not _is_bounded(x, sizes):
        return NotImplemented
    # axis by axis: the mean of a box is the mean of the means of its rows
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
    place = torch.arange(math.prod(shape), device=x.device).reshape(shape).expand(x.shape)
    for dim, size in reversed(list(zip(range(-len(sizes), 0), sizes, strict=True))):
        parts = zip(_windows(x, dim, size), _windows(place, dim, size), strict=True)
        found = [_first_largest(values, places, dim) for values, places in parts]
        x = torch.cat([values for values, _ in found], dim)
        place = torch.cat([places for _, places in found], dim)
    return x, place


def _first_largest(x: Tensor, place: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    index = x.argmax(dim, keepdim=True)
    return x.gather(dim, index), place.gather(dim, index)


_POOLING: dict[str, Form] = {
    "_adaptive_avg_pool3d.default": _average,
    "adaptive_max_pool2d.default": _largest,
    "adaptive_max_pool3d.default": _largest,
}


_FORMS: dict[str, Form] = {
    "_cdist_forward.default": _cdist,
    "_int_mm.default": _integer_product,
    "_is_all_true.default": lambda x: x.all(),
    "_is_any_true.default": lambda x: x.any(),
    "_pdist_forward.default": _pdist,
    "as_strided_scatter.default": _as_strided_scatter,
    "bmm.dtype": _widened_product,
    "copysign.Tensor": _copysign,
    "hypot.default": _hypot,
    "index_reduce.default": _index_reduce,
    "masked_select.default": _masked_select,
    "mm.dtype": _widened_product,
    "put.default": _put,
    "rrelu_with_noise_functional.default": _leaky_in_eval,
    "scatter.reduce": _scatter_reduced,
    "scatter.value_reduce": _scatter_reduced,
    "unfold_backward.default": _unfold_backward,
    **_MATRICES,
    **ORDERS,
    **_POOLING,
}
