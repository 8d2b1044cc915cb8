"""Which numbers a tensor of a dtype can hold, and whether a range or values given for it do."""

from __future__ import annotations

_INTEGER_BITS = {"int64": 64, "int32": 32, "int16": 16, "int8": 8}
_FLOATS = ("float", "bfloat")
_WITHOUT_ORDER = ("bool", "complex")


def check_range(what: str, dtype: str, low: float | None, high: float | None) -> None:
    """Refuse a range of random numbers, `high` excluded, that `dtype` has not, or that is empty.

    `what` is the dtype, or names an input that is no random tensor.

    Raises:
        ValueError: in the words of a complaint about a manifest.
    """
    _refuse_without_order("low and high do", what, dtype)
    bottom, top = _bounds(dtype)
    for key, bound in (("low", low), ("high", high)):
        if isinstance(bound, float) and not dtype.startswith(_FLOATS):
            raise ValueError(f"{key} of {dtype} must be a whole number, not {bound}")
        if bound is not None and not bottom <= bound <= top:
            raise ValueError(f"{key} {bound} is out of the range of {dtype}")
    least = 0 if low is None else low
    if high is not None and least >= high:
        raise ValueError(f"low {least} must be less than high {high}")


def check_values(
    what: str, dtype: str, values: tuple[float, ...], shape: tuple[int | str, ...]
) -> None:
    """Refuse values along the last dim of `shape` that are too many, or that `dtype` has not.

    Raises:
        ValueError: as `check_range`.
    """
    _refuse_without_order("values do", what, dtype)
    last = shape[-1] if shape else "none"
    if last != len(values):
        raise ValueError(
            f"values are one for each place of the last dim, {last}, not {len(values)}"
        )
    bottom, top = _bounds(dtype)
    for value in values:
        if isinstance(value, float) and not dtype.startswith(_FLOATS):
            raise ValueError(f"values of {dtype} must be whole numbers, not {value}")
        if not bottom <= value < top:
            raise ValueError(f"{value} among values is out of the range of {dtype}")


def _refuse_without_order(these_do: str, what: str, dtype: str) -> None:
    if what != dtype or dtype.startswith(_WITHOUT_ORDER):
        raise ValueError(f"{these_do} not apply to {what}")


def _bounds(dtype: str) -> tuple[float, float]:
    """The smallest and the largest bound the dtype allows; the upper one is exclusive."""
    if dtype.startswith("uint"):
        return 0, 2 ** min(int(dtype.removeprefix("uint")), 63)  # torch draws int64
    if dtype in _INTEGER_BITS:
        half: int = 2 ** (_INTEGER_BITS[dtype] - 1)
        return -half, half
    return float("-inf"), float("inf")
