"""FLOP formulas for operators of one's own. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Formula = Callable[..., int]

_REGISTERED: dict[str, Formula] = {}


def register_flops(operator: Any, formula: Formula) -> None:
    """Tell reportgen what an operator of your own costs.

    Call it in the file that makes the model, once the operator is defined or before:

        reportgen.register_flops("mylib::attend", lambda q, k, **_: 4 * q.numel() * k.shape[-2])

    Args:
        operator: `"mylib::attend"`, or the operator itself, `torch.ops.mylib.attend`.
        formula: called with the operator's own arguments (tensors, possibly without data) and
            `out_val`, its result; gives FLOPs, where one multiply-add is two. An odd number is
            rounded up. Give 0 to say that the operator is free.

    It goes before every other formula, torch's included. Formulas registered with torch's own
    `torch.utils.flop_counter.register_flop_formula` are honored as well.

    Raises:
        TypeError: `formula` cannot be called.
        ValueError: `operator` is neither an operator nor a name with a namespace.
    """
    if not callable(formula):
        raise TypeError(f"a FLOP formula is a function, not {type(formula).__name__}")
    _REGISTERED[qualified_name(operator)] = formula


def registered() -> dict[str, Formula]:
    """What has been registered, by qualified name: `mylib::attend`."""
    return dict(_REGISTERED)


def qualified_name(operator: Any) -> str:
    """`mylib::attend` of that text, of `torch.ops.mylib.attend` or of one of its overloads."""
    packet = getattr(operator, "_overloadpacket", operator)
    opaque = getattr(operator, "_opoverload", None)  # what torch.library.custom_op gives
    packet = getattr(opaque, "_overloadpacket", packet)
    name = packet if isinstance(packet, str) else getattr(packet, "_qualified_op_name", "")
    space, separator, rest = str(name).partition("::")
    if not (separator and space and rest):
        raise ValueError(
            f"{operator!r} is no operator: write it as 'mylib::attend' or torch.ops.mylib.attend"
        )
    return f"{space}::{rest.partition('.')[0]}"
