"""What an operator costs: torch's own FLOP formulas, ours, and those of the user.

A multiply-add is two FLOPs, as in torch's counter. What is free by convention stands in `free`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from reportgen.fake_model import ValuesNeededError
from reportgen.sections.layers.formulas import Formula, convolution_backward, own_formulas
from reportgen.sections.layers.linear_algebra import linear_algebra_formulas
from reportgen.sections.layers.memory_traffic import tensors_in
from reportgen.sections.layers.nested import is_nested, nested_flops
from reportgen.sections.layers.registration import registered

_UNKNOWN = "how much a sparse tensor holds is not in its shape"


class Formulas:
    """FLOP formulas by operator, as they are registered at this moment.

    A formula is called with the operator's own arguments and `out_val`, its result.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        found = {**own_formulas(), **FlopCounterMode(display=False).flop_registry}
        aten = torch.ops.aten
        found[aten.convolution_backward] = convolution_backward  # torch's ignores groups
        found[aten._sparse_mm] = found[aten.mm] = _sparse_aware(found[aten.mm], left=0)
        found[aten._sparse_addmm] = found[aten.addmm] = _sparse_aware(found[aten.addmm], left=1)
        found[aten.sparse_sampled_addmm] = _sampled
        self._by_packet: dict[Any, Formula] = found
        self._by_name = registered()
        self._conventional = set(linear_algebra_formulas())

    def find(self, packet: Any) -> Formula | None:
        """The formula of an operator packet or a higher-order operator; the user's goes first."""
        if self._by_name:
            mine = self._by_name.get(getattr(packet, "_qualified_op_name", ""))
            if mine is not None:
                return mine
        return self._by_packet.get(packet)

    def is_conventional(self, packet: Any) -> bool:
        """Whether the formula is the leading term of a classic algorithm, not a product's."""
        mine = getattr(packet, "_qualified_op_name", "") in self._by_name
        return packet in self._conventional and not mine

    def flops(self, packet: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int | None:
        """FLOPs of one call; None where there is no formula or it does not fit this call.

        Raises:
            ValuesNeededError: the cost depends on values, and the tensors have none.
        """
        if any(map(is_nested, tensors_in(args))):
            return nested_flops(packet, args)
        formula = self.find(packet)
        if formula is None:
            return None
        try:
            flops = int(formula(*args, **kwargs, out_val=result))
        except ValuesNeededError:
            raise
        except Exception:  # ragged, wrapped or otherwise unlike what the formula was written for
            return None
        return flops + flops % 2


def _sparse_aware(formula: Formula, *, left: int) -> Formula:
    """`formula`, but a sparse left side costs by what it holds, not by its shape."""

    def count(*args: Any, **kwargs: Any) -> int:
        sparse, dense = args[left], args[left + 1]
        if sparse.layout == torch.strided or dense.layout != torch.strided:
            return formula(*args, **kwargs)
        if isinstance(kwargs["out_val"], FakeTensor):
            raise ValuesNeededError(_UNKNOWN)
        return 2 * _held(sparse) * int(dense.shape[-1])

    return count


def _sampled(places: Tensor, left: Tensor, *_: Any, **__: Any) -> int:
    """The product of two dense matrices at the places of a sparse one alone."""
    return 2 * _held(places) * int(left.shape[-1])


def _held(sparse: Tensor) -> int:
    """Numbers that a sparse tensor stores, the zeros of its blocks included."""
    if isinstance(sparse, FakeTensor):
        raise ValuesNeededError(_UNKNOWN)
    values = sparse._values() if sparse.layout == torch.sparse_coo else sparse.values()
    return int(values.numel())
