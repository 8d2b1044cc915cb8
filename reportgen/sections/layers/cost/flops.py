"""FLOPs of one operator: formulas of the user, of torch.utils.flop_counter, and our own.

A multiply-add is two FLOPs, as in torch.utils.flop_counter. `zero_cost_ops` lists the operators
that count as zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from reportgen.fake_model import ValuesNeededError
from reportgen.sections.layers.cost.formulas import convolution_backward, own_formulas
from reportgen.sections.layers.cost.linear_algebra import linear_algebra_formulas
from reportgen.sections.layers.cost.operators import is_nested
from reportgen.sections.layers.cost.registration import Formula, registered
from reportgen.tracing.tensors import tensors_in

_aten = torch.ops.aten
_PRODUCTS = {_aten.matmul, _aten.bmm, _aten.mm}
_ATTENTION = {
    _aten.scaled_dot_product_attention,
    _aten._scaled_dot_product_attention_math,
    _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention,
}
_UNKNOWN = "the number of elements that a sparse tensor stores is not in its shape"


class FlopFormulas:
    """The FLOP formulas that are registered when it is created, by operator.

    A formula is called with the arguments of the operator and with `out_val`, its result.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        found = {**own_formulas(), **FlopCounterMode(display=False).flop_registry}
        aten = torch.ops.aten
        found[aten.convolution_backward] = convolution_backward  # torch ignores groups
        # torch's formulas take the shape of a sparse operand, as if all its elements were stored
        found[aten._sparse_mm] = found[aten.mm] = _sparse_aware(found[aten.mm], left=0)
        found[aten._sparse_addmm] = found[aten.addmm] = _sparse_aware(found[aten.addmm], left=1)
        found[aten.sparse_sampled_addmm] = _sampled
        self._by_packet: dict[Any, Formula] = found
        self._by_name = registered()
        self._conventional = set(linear_algebra_formulas())

    def find(self, packet: Any) -> Formula | None:
        """The formula of an operator packet or a higher-order operator; the user's has priority."""
        # by name, because a user may register the formula before the operator is defined
        name = getattr(packet, "_qualified_op_name", "")
        return self._by_name.get(name) or self._by_packet.get(packet)

    def is_conventional(self, packet: Any) -> bool:
        """Whether the formula is the leading term of a classic algorithm, not of a product."""
        mine = getattr(packet, "_qualified_op_name", "") in self._by_name
        return packet in self._conventional and not mine

    def flops(self, packet: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int | None:
        """FLOPs of one call; None if there is no formula or the formula raises.

        Raises:
            ValuesNeededError: the cost depends on values, and the tensors are fake.
        """
        if any(map(is_nested, tensors_in(args))):
            return _nested_flops(packet, args)
        formula = self.find(packet)
        if formula is None:
            return None
        try:
            flops = int(formula(*args, **kwargs, out_val=result))
        except ValuesNeededError:
            raise
        except Exception:  # from the user's formula, or it does not support ragged tensors
            return None
        return flops + flops % 2  # even, so that multiply-adds are whole


def _sparse_aware(formula: Formula, *, left: int) -> Formula:
    """`formula`, but a sparse left operand costs by its stored elements, not by its shape."""

    def count(*args: Any, **kwargs: Any) -> int:
        sparse, dense = args[left], args[left + 1]
        if sparse.layout == torch.strided or dense.layout != torch.strided:
            return formula(*args, **kwargs)
        if isinstance(kwargs["out_val"], FakeTensor):
            raise ValuesNeededError(_UNKNOWN)
        return 2 * _stored_elements(sparse) * int(dense.shape[-1])

    return count


def _sampled(mask: Tensor, left: Tensor, *_: Any, **__: Any) -> int:
    """The product of two dense matrices at the stored elements of a sparse one."""
    return 2 * _stored_elements(mask) * int(left.shape[-1])


def _stored_elements(sparse: Tensor) -> int:
    """Elements that a sparse tensor stores, including zeros inside its blocks."""
    if isinstance(sparse, FakeTensor):
        raise ValuesNeededError(_UNKNOWN)
    values = sparse._values() if sparse.layout == torch.sparse_coo else sparse.values()
    return int(values.numel())


def _nested_flops(packet: Any, args: tuple[Any, ...]) -> int | None:
    """FLOPs of an operator on strided nested tensors, item by item; None without a formula."""
    if packet is _aten.linear:
        return 2 * int(args[0].numel()) * int(args[1].shape[0])
    if packet in _PRODUCTS:
        return sum(2 * a.numel() * int(b.shape[-1]) for a, b in _nested_items(args[:2]))
    if packet in _ATTENTION:
        return sum(
            2 * q.numel() // int(q.shape[-1]) * int(k.shape[-2]) * int(q.shape[-1] + v.shape[-1])
            for q, k, v in _nested_items(args[:3])
        )
    return None


def _nested_items(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.unbind() for tensor in tensors), strict=True))
