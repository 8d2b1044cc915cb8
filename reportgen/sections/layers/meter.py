"""Watches the operators of one forward pass: their cost, their place, the parameters they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from reportgen.sections.layers.cost import formulas, is_free, tensor_bytes, tensors_in
from reportgen.sections.layers.result import Uncounted

Place = Callable[[list[str]], str]
"""From the parameters that an operator reads to the path of the module that it works for."""


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operator that runs inside it.

    Operators without a formula are taken apart where torch can, as its own counter does, and
    otherwise counted by the convention in `cost`. `parameters` are the model's, by name;
    `place` says for which module an operator works.
    """

    supports_higher_order_operators = True

    def __init__(self, parameters: Mapping[str, Tensor], place: Place) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[str] = Counter()  # by module path
        self.bytes = 0  # read and written by all operators
        self.used: set[str] = set()  # names of the parameters that an operator read
        self.complex_products = 0
        self._uncounted: dict[str, Uncounted] = {}
        self._formulas = formulas()
        self._place = place
        self._names: dict[int, list[str]] = {}
        self._alive = tuple(parameters.values())  # a storage's address must not be given away
        for name, parameter in parameters.items():
            self._names.setdefault(_storage(parameter), []).append(name)

    @property
    def uncounted(self) -> tuple[Uncounted, ...]:
        """Operators without a formula, those that move most first."""
        return tuple(sorted(self._uncounted.values(), key=lambda u: (-u.bytes, u.operator)))

    def note_used(self, tensors: list[Tensor]) -> list[str]:
        """Mark the parameters behind `tensors` as used; returns their names."""
        names = [name for tensor in tensors for name in self._names.get(_storage(tensor), ())]
        self.used.update(names)
        return names

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and write down what it was."""
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            result = func(*args, **kwargs)
            self._write_down(func, func, args, kwargs, result)
            return result
        if func in _ABOUT_SHAPES:
            return NotImplemented
        packet = func._overloadpacket
        if packet not in self._formulas and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._write_down(func, packet, args, kwargs, result)
        return result

    def _write_down(
        self, func: Any, formula: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        read = [*tensors_in(args), *tensors_in(kwargs)]
        written = list(tensors_in(result))
        if getattr(func, "is_view", False):
            return  # nothing moves, and whoever reads the view is seen reading its storage
        used = self.note_used(read)
        moved = sum(tensor_bytes(tensor) for tensor in [*read, *written])
        self.bytes += moved
        if formula in self._formulas:
            flops = int(self._formulas[formula](*args, **kwargs, out_val=result))
            self.flops[self._place(used)] += flops
            self.complex_products += any(tensor.is_complex() for tensor in read)
        elif not is_free(func, read, written):
            name = _name(func)
            seen = self._uncounted.get(name)
            self._uncounted[name] = Uncounted(
                operator=name,
                calls=1 + (seen.calls if seen else 0),
                bytes=moved + (seen.bytes if seen else 0),
                where=seen.where if seen else self._place(used),
            )


def _name(func: Any) -> str:
    """`aten.linalg_qr`, without the overload that nobody writes."""
    packet = getattr(func, "_overloadpacket", func)
    return str(packet).removeprefix("torch.ops.")


def _storage(tensor: Tensor) -> int:
    """A number that all views of one tensor share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without one storage
        return id(tensor)


_aten = torch.ops.aten
_ABOUT_SHAPES = {
    _aten.sym_is_contiguous.default,
    _aten.is_contiguous.default,
    _aten.is_contiguous.memory_format,
    _aten.is_strides_like_format.default,
    _aten.is_non_overlapping_and_dense.default,
    _aten.size.default,
    _aten.sym_size.default,
    _aten.stride.default,
    _aten.sym_stride.default,
    _aten.storage_offset.default,
    _aten.sym_storage_offset.default,
    _aten.numel.default,
    _aten.sym_numel.default,
    _aten.dim.default,
    torch.ops.prim.layout.default,
}
