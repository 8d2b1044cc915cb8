"""Operators that torch's exporter supports for real numbers only, computed by their parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def _exponential(x: Tensor) -> Any:
    import torch

    if not x.dtype.is_complex:
        return NotImplemented
    length = x.real.exp()
    return torch.complex(length * x.imag.cos(), length * x.imag.sin())


def _by_parts(packet: str, overload: str = "default") -> Callable[..., Any]:
    """Decompose an operator that only moves values: real and imaginary parts move alike."""

    def form(*given: Any, **options: Any) -> Any:
        import torch

        operator = getattr(getattr(torch.ops.aten, packet), overload)
        # a number to fill in would end up in both parts, unless it is zero
        fills = any(map(_is_nonzero_number, (*given, *options.values())))
        if fills or not _has_complex((given, options)):
            return NotImplemented
        parts = (operator(*_part(given, name), **_part(options, name)) for name in ("real", "imag"))
        return torch.complex(*parts)

    return form


def _is_nonzero_number(argument: Any) -> bool:
    return isinstance(argument, float | complex) and argument != 0


def _has_complex(given: Any) -> bool:
    import torch
    from torch.utils._pytree import tree_leaves

    return any(isinstance(x, torch.Tensor) and x.dtype.is_complex for x in tree_leaves(given))


def _part(given: Any, name: str) -> Any:
    """`given` with the real or the imaginary part of every number; indices and masks stay."""
    import torch
    from torch.utils._pytree import tree_map_only

    def part(x: Tensor) -> Any:
        if x.dtype.is_complex:
            return getattr(x, name)
        # `where` may mix real and complex tensors: a real one has no imaginary part
        is_number = x.dtype.is_floating_point and name == "imag"
        return torch.zeros_like(x) if is_number else x

    return tree_map_only(torch.Tensor, part, given)


def _contraction(equation: str, operands: list[Tensor], **_path: Any) -> Any:
    import torch

    if not _has_complex(operands) or len(operands) != 2:  # four products for two operands
        return NotImplemented
    real, imaginary = _part(operands, "real"), _part(operands, "imag")

    def product(a: Tensor, b: Tensor) -> Tensor:
        return torch.ops.aten.einsum.default(equation, [a, b])  # type: ignore[no-any-return]

    return torch.complex(
        product(real[0], real[1]) - product(imaginary[0], imaginary[1]),
        product(real[0], imaginary[1]) + product(imaginary[0], real[1]),
    )


def _filled(size: list[Any], value: Any, dtype: Any, device: Any) -> Any:
    import torch

    if dtype is None or not dtype.is_complex:
        return NotImplemented
    parts = (complex(value).real, complex(value).imag)
    width = dtype.to_real()
    return torch.complex(*(torch.full(size, part, dtype=width, device=device) for part in parts))


def _full(size: list[Any], value: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    return _filled(size, value, dtype, device)


def _zeros(size: list[Any], *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    return _filled(size, 0, dtype, device)


def _zeros_like(x: Tensor, *, dtype: Any = None, **_: Any) -> Any:
    return _filled(list(x.shape), 0, dtype or x.dtype, x.device)


COMPLEX: dict[str, Callable[..., Any]] = {
    "constant_pad_nd.default": _by_parts("constant_pad_nd"),
    "copy.default": _by_parts("copy"),
    "einsum.default": _contraction,
    "exp.default": _exponential,
    "full.default": _full,
    "index.Tensor": _by_parts("index", "Tensor"),
    "slice_scatter.default": _by_parts("slice_scatter"),
    "where.self": _by_parts("where", "self"),
    "zeros.default": _zeros,
    "zeros_like.default": _zeros_like,
}
