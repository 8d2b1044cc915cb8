"""FLOP formulas for custom operators. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Formula = Callable[..., int]

_REGISTERED: dict[str, Formula] = {}


def register_flops(operator: Any, formula: Formula) -> None:
    """Register the FLOP formula of a custom operator.

    Call it in the file that builds the model, before or after the operator is defined:

        reportgen.register_flops("mylib::attend", lambda q, k, **_: 4 * q.numel() * k.shape[-2])

    Args:
        operator: `"mylib::attend"`, or the operator itself, `torch.ops.mylib.attend`.
        formula: called with the arguments of the operator (tensors, possibly without data) and
            `out_val`, its result; returns FLOPs, a multiply-add is two. An odd number is
            rounded up. Return 0 for an operator without cost.

    It has priority over all other formulas. Formulas registered with torch's own
    `torch.utils.flop_counter.register_flop_formula` are honored as well.

    Raises:
        TypeError: `formula` is not callable.
        ValueError: `operator` is neither an operator nor a name with a namespace.
    """
    if not callable(formula):
        raise TypeError(f"a FLOP formula must be a function, got {type(formula).__name__}")
    _REGISTERED[qualified_name(operator)] = formula


def registered() -> dict[str, Formula]:
    """The registered formulas, by qualified name: `mylib::attend`."""
    return dict(_REGISTERED)


def qualified_name(operator: Any) -> str:
    """`mylib::attend` for that text, for `torch.ops.mylib.attend` and for its overloads."""
    packet = getattr(operator, "_overloadpacket", operator)
    overload = getattr(operator, "_opoverload", None)  # of what torch.library.custom_op returns
    packet = getattr(overload, "_overloadpacket", packet)
    name = packet if isinstance(packet, str) else getattr(packet, "_qualified_op_name", "")
    space, separator, rest = str(name).partition("::")
    if not (separator and space and rest):
        raise ValueError(
            f"{operator!r} is not an operator: use 'mylib::attend' or torch.ops.mylib.attend"
        )
    return f"{space}::{rest.partition('.')[0]}"
